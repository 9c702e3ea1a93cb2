"""The site's own secret: keys every hash of a patient or file here; it never leaves the site."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

__all__ = ["site_secret"]

_BYTES = 32


def site_secret(state: Path) -> bytes:
    """Return the secret of a state folder, made if it is new; 32 bytes, in a file of mode 0600.

    Node and commands may ask at once: one of them makes it, whole, and all get the same.
    """
    path = state / "salt"
    if not path.exists():
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=state)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_BYTES))
                file.flush()
                os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # not a rename: whoever is first wins
        finally:
            os.unlink(draft)
    return path.read_bytes()
