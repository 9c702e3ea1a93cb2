"""Where a person's passphrase comes from: a file, else the terminal; never an argument."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from larrey_protocol.errors import UsageError
from larrey_protocol.keys import SigningKey, read_private

__all__ = ["PASSPHRASE_FILE", "load_person_key", "new_passphrase", "read_passphrase"]

PASSPHRASE_FILE = "LARREY_PASSPHRASE_FILE"  # noqa: S105  # names a file of mode 0600
_LEAST = 12  # characters; length is what counts (NIST SP 800-63B, section 5.1.1)


def load_person_key(path: Path) -> SigningKey:
    """Return a person's key, asking for its passphrase where it has one.

    Raises:
        FileError: as `SigningKey.load`.
        UsageError: ``passphrase-missing`` without a terminal and without a file.
    """
    if b"ENCRYPTED" not in read_private(path):
        return SigningKey.load(path)
    return SigningKey.load(path, read_passphrase(f"Passphrase of {path}: "))


def read_passphrase(prompt: str) -> bytes:
    """Return the passphrase in the file that the environment names, else what a person types.

    Raises:
        UsageError: ``passphrase-missing``; FileError: ``missing-file``, ``key-exposed``.
    """
    named = os.environ.get(PASSPHRASE_FILE)
    if named:
        return read_private(Path(named)).strip()
    if not sys.stdin.isatty():
        raise UsageError(
            "passphrase-missing",
            f"expected a terminal or {PASSPHRASE_FILE}, found neither",
            f"Put the passphrase in a file of mode 0600 and name it in {PASSPHRASE_FILE}.",
        )
    return getpass.getpass(prompt).encode()


def new_passphrase(prompt: str) -> bytes:
    """Return a new passphrase, typed twice where it is typed.

    Raises:
        UsageError: ``passphrase-weak`` under 12 characters, ``passphrase-differs``, and as
            `read_passphrase`.
    """
    first = read_passphrase(prompt)
    if len(first.decode(errors="replace")) < _LEAST:
        raise UsageError(
            "passphrase-weak",
            f"a passphrase needs at least {_LEAST} characters",
            "Take several words that nobody would guess; spaces count.",
        )
    if not os.environ.get(PASSPHRASE_FILE) and read_passphrase("Once more: ") != first:
        raise UsageError("passphrase-differs", "the two passphrases differ", "Type it again.")
    return first
