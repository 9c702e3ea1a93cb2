"""`larrey-site person …`: personal keys of the people who decide here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from larrey_client.commands.build import Build, Json
from larrey_client.settings import SiteSettings
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.newfile import require_new
from larrey_protocol.passphrase import new_passphrase
from larrey_protocol.people import Person
from larrey_protocol.tomlfile import validate

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    new = build.command(
        "person new",
        "make a person's key and print their lines for site.toml",
        _new,
        _tell_new,
        example="alice --role dpo --out dpo.key",
    )
    new.set_defaults(needs_settings=False)
    new.add_argument("name", help="lower case, as it will stand on record")
    new.add_argument("--role", required=True, choices=("it", "dpo", "auditor"))
    new.add_argument("--out", type=Path, required=True, help="new file for the key, mode 0600")
    build.command("person list", "who decides here, with fingerprints", _list, _tell_list)


def _new(_: SiteSettings, options: argparse.Namespace) -> Json:
    key = SigningKey.generate()
    fields = {"name": options.name, "role": options.role, "key": key.public}
    person = validate(fields, Person, "person")
    require_new(options.out)
    key.save(options.out, new_passphrase(f"New passphrase of {options.out}: "))
    sys.stderr.write(
        f"Key written to {options.out}; it stays with {person.name} alone."
        " Put these lines into site.toml:\n"
    )
    return person.model_dump(mode="json") | {"fingerprint": fingerprint(key.public)}


def _tell_new(value: Json) -> str:
    lines = [f'{key} = "{value[key]}"' for key in ("name", "role", "key")]
    return "\n".join(["[[people]]", *lines, f"# fingerprint {value['fingerprint']}"])


def _list(settings: SiteSettings, _: argparse.Namespace) -> Json:
    return [
        {"name": p.name, "role": p.role, "fingerprint": fingerprint(p.key)} for p in settings.people
    ]


def _tell_list(value: Json) -> str:
    if not value:
        return "site.toml lists nobody yet: larrey-site person new NAME --role dpo --out FILE"
    return "\n".join(f"{p['name']:24} {p['role']:8} {p['fingerprint']}" for p in value)
