"""Whose key signs for the consortium: a named person's, else the consortium's own.

A key behind a passphrase is asked for once a command, when something is to be signed.
"""

from __future__ import annotations

from dataclasses import dataclass

from larrey_protocol.errors import UsageError
from larrey_protocol.keys import SigningKey
from larrey_protocol.passphrase import load_person_key
from larrey_protocol.roster import CONSORTIUM
from larrey_server.settings import OperatorSettings

__all__ = ["Signer", "consortium_key", "root_signer", "signer"]


@dataclass(frozen=True, slots=True)
class Signer:
    """A name on record and the key behind it."""

    name: str
    key: SigningKey


def signer(settings: OperatorSettings) -> Signer:
    """Return the person of the operator file, else the consortium itself.

    Raises:
        UsageError: ``no-signing-key``, or as `load_person_key`.
    """
    if settings.person is not None:
        return Signer(settings.person.name, load_person_key(settings.person.key))
    return root_signer(settings)


def root_signer(settings: OperatorSettings) -> Signer:
    """Return the consortium's key, under which rosters and key changes are signed.

    Raises:
        UsageError: ``no-signing-key``, or as `load_person_key`.
    """
    consortium = settings.consortium
    if consortium is None or consortium.signing_key is None:
        raise UsageError(
            "no-signing-key",
            "expected [person] key or [consortium] signing_key in the operator file, found neither",
            "Make a key with: larrey person new NAME --role lead --out FILE",
        )
    return Signer(CONSORTIUM, load_person_key(consortium.signing_key))


def consortium_key(settings: OperatorSettings) -> str:
    """Return the consortium's public key as the operator file states it.

    Raises:
        UsageError: ``no-consortium-key``, or as `load_person_key`.
    """
    consortium = settings.consortium
    if consortium is not None and consortium.key:
        return consortium.key
    if consortium is not None and consortium.signing_key is not None:
        return load_person_key(consortium.signing_key).public
    raise UsageError(
        "no-consortium-key",
        "expected [consortium] key in the operator file, found none",
        "Write the consortium's public key there; compare its fingerprint by phone.",
    )
