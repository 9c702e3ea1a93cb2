"""A person of this site with their key, in the process of their own command. No commands here."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from larrey_client.settings import SiteSettings
from larrey_protocol.errors import UsageError
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.passphrase import load_person_key
from larrey_protocol.people import Person, find_person

__all__ = ["Signer", "add_key", "load_signer"]


@dataclass(frozen=True, slots=True)
class Signer:
    """A person of site.toml and the key that only they hold."""

    person: Person
    key: SigningKey


def add_key(command: argparse.ArgumentParser) -> None:
    """Add ``--key`` to a command that a person signs."""
    command.add_argument(
        "--key", type=Path, required=True, help="your personal key; asks for its passphrase"
    )


def load_signer(settings: SiteSettings, path: Path) -> Signer:
    """Return who signs with the key in a file.

    Raises:
        UsageError: ``person-unknown``, ``passphrase-missing``; FileError: as
            `larrey_protocol.keys.SigningKey.load`.
    """
    key = load_person_key(path)
    person = find_person(settings.people, key.public)
    if person is None:
        raise UsageError(
            "person-unknown",
            f"{path} is the key {fingerprint(key.public)}, of nobody whom site.toml lists",
            "Add the person's [[people]] lines; see: larrey-site person list",
        )
    return Signer(person, key)
