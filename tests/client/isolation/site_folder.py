"""A site's folder: settings, keys, state and rows side by side, as a small hospital has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomli_w

from larrey_protocol.keys import SigningKey, write_private

__all__ = ["write_site"]


def write_site(folder: Path, dataset: Mapping[str, object]) -> Path:
    """Return the settings file of a new site with one dataset; its TLS files are only names."""
    folder.mkdir()
    key = SigningKey.generate()
    key.save(folder / "signing.ed25519")
    write_private(folder / "tls.key", b"secret")
    (folder / "tls.crt").write_text("certificate")
    (folder / "state").mkdir(mode=0o700)
    (folder / "state" / "larrey.db").write_text("secret")
    document = {
        "site": {"name": "alpha", "state": "state", "metrics": ""},
        "coordinator": {"address": "localhost:1", "authority": "ca.crt"},
        "identity": {"certificate": "tls.crt", "key": "tls.key", "signing_key": "signing.ed25519"},
        "consortium": {"key": key.public},
        "datasets": [dict(dataset)],
    }
    path = folder / "site.toml"
    path.write_text(tomli_w.dumps(document))
    return path
