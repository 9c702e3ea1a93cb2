"""Which software a node runs: one digest over the installed source files, for its receipts.

The same release gives the same digest wherever and however it was installed; one changed byte in
one file gives another. It says what lies on the disk when it is first asked, which a node does as
it starts, and is no proof against who replaces the program: they can sign any digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from larrey_protocol.canonical import digest_of

__all__ = ["PACKAGES", "digest_of_sources", "software_digest"]

PACKAGES = ("larrey_client", "larrey_privacy", "larrey_protocol", "larrey_strategies")


@cache
def software_digest() -> str:
    """Return the digest of this node's own packages as they were when it was asked first."""
    return digest_of_sources({name: _folder(name) for name in PACKAGES})


def digest_of_sources(packages: Mapping[str, Path]) -> str:
    """Return a digest of every Python source file below the packages' folders.

    Args:
        packages: name and folder; where a folder lies does not change the digest.
    """
    return digest_of(
        {
            f"{name}/{path.relative_to(folder).as_posix()}": hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for name, folder in packages.items()
            for path in sorted(folder.rglob("*.py"))
        }
    )


def _folder(package: str) -> Path:
    """Return where a package lies, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed as a folder")
    return Path(spec.submodule_search_locations[0])
