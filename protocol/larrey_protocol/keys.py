"""Ed25519 keys that sign studies, answers, receipts and certificates.

Public keys travel as ``ed25519:<base64url>``; people compare the fingerprint, five groups of four
characters. Private keys live in PEM files of mode 0600, those of persons behind a passphrase too.
The primitives are `cryptography`'s.

What verified once is remembered, for documents are opened again whenever anything around them may
have changed: that these bytes carry this signature of this key is arithmetic and stays so. Whether
the key counts is never remembered here; who asks says which key it must be.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import AfterValidator, Field

from larrey_protocol.errors import FileError, IntegrityError

__all__ = ["PublicKey", "SigningKey", "fingerprint", "verify", "write_private"]

_PREFIX = "ed25519:"
_REMEMBERED = 1024  # signatures, of some 400 bytes each: full early, constant from then on


def _one_text(public: str) -> str:
    """Return a key's one text: 43 characters hold two bits more than a key, which say nothing."""
    return public[:-1] + _written(_read(public.removeprefix(_PREFIX)))[-1]


PublicKey = Annotated[str, Field(pattern=r"^ed25519:[A-Za-z0-9_-]{43}$"), AfterValidator(_one_text)]


class SigningKey:
    """A private Ed25519 key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._derived: dict[str, bytes] = {}
        raw = private.public_key().public_bytes_raw()
        self.public = _PREFIX + _written(raw)

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new key from the operating system's entropy."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> SigningKey:
        """Return the key in a PEM file.

        Raises:
            FileError: ``missing-file``, ``key-exposed`` (others may read it), ``invalid-key``,
                ``passphrase-needed`` or ``passphrase-wrong``.
        """
        pem = read_private(path)
        is_locked = b"ENCRYPTED" in pem
        if is_locked and not passphrase:
            raise FileError("passphrase-needed", f"{path} is a person's key, behind a passphrase")
        try:
            password = passphrase if is_locked else None
            private = serialization.load_pem_private_key(pem, password=password)
        except ValueError as error:
            if is_locked:
                text = f"the passphrase does not open {path}"
                raise FileError("passphrase-wrong", text, "Type it again.") from error
            raise FileError("invalid-key", f"{path} is not a private key") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise FileError("invalid-key", f"{path} is not an Ed25519 key")
        return cls(private)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the key to a new file of mode 0600, encrypted where there is a passphrase."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
        pem = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        write_private(path, pem)

    def derive(self, purpose: str) -> bytes:
        """Return 32 secret bytes that belong to this key and one purpose: HKDF (RFC 5869)."""
        if purpose not in self._derived:
            kdf = HKDF(hashes.SHA256(), length=32, salt=None, info=b"larrey " + purpose.encode())
            self._derived[purpose] = kdf.derive(self._private.private_bytes_raw())
        return self._derived[purpose]

    def sign(self, message: bytes) -> str:
        """Return the signature of ``message`` in base64url."""
        return base64.urlsafe_b64encode(self._private.sign(message)).decode()


class _Verified:
    """The newest signatures that verified: public key, signature and SHA-256 of the message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, bytes], None] = {}  # in order of age

    def __contains__(self, mark: tuple[str, str, bytes]) -> bool:
        return mark in self._known

    def add(self, mark: tuple[str, str, bytes]) -> None:
        with self._lock:
            while len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[mark] = None


_verified = _Verified()


def verify(public: str, message: bytes, signature: str) -> None:
    """Return if ``signature`` is the one of ``message`` under ``public``.

    Raises:
        IntegrityError: ``bad-signature``.
    """
    mark = (public, signature, hashlib.sha256(message).digest())
    if mark in _verified:
        return
    try:
        key = Ed25519PublicKey.from_public_bytes(_raw(public))
        key.verify(_bytes_of(signature.removesuffix("==")), message)
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(
            "bad-signature",
            f"a signature does not verify under key {_safe_fingerprint(public)}",
            "Compare the fingerprint with its owner by phone.",
        ) from error
    _verified.add(mark)


def fingerprint(public: str) -> str:
    """Return what two people read to each other: five groups of four base32 characters."""
    text = base64.b32encode(hashlib.sha256(_raw(public)).digest()).decode()[:20]
    return "-".join(text[i : i + 4] for i in range(0, 20, 4))


def write_private(path: Path, data: bytes) -> None:
    """Write a secret to a new file that only its owner may read.

    Raises:
        FileError: ``file-exists``; a secret is never overwritten.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FileError(
            "file-exists", f"{path} exists; a key is never overwritten", "Name a new file."
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def read_private(path: Path) -> bytes:
    """Return a secret file's bytes.

    Raises:
        FileError: ``missing-file``, or ``key-exposed`` if other accounts may read or change it.
    """
    if not path.is_file():
        raise FileError("missing-file", f"expected a file at {path}, found none", "Check the path.")
    if path.stat().st_mode & 0o037:  # owner, and a group that may only read (mounted secrets)
        raise FileError("key-exposed", f"{path} is open to others", f"Run: chmod 600 {path}")
    return path.read_bytes()


def _raw(public: str) -> bytes:
    if not public.startswith(_PREFIX):
        raise ValueError("not an ed25519 public key")
    return _bytes_of(public.removeprefix(_PREFIX))


def _bytes_of(text: str) -> bytes:
    """Return what the one text of some bytes stands for; a second one is none."""
    data = _read(text)
    if _written(data) != text:
        raise ValueError("not the text of a key or signature")
    return data


def _read(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _written(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _safe_fingerprint(public: str) -> str:
    try:
        return fingerprint(public)
    except ValueError:
        return "(not a key)"
