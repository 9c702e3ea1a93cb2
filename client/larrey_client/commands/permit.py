"""`larrey-site permit …`: read permits, and say that they are what the authority wrote."""

from __future__ import annotations

import argparse
import sqlite3
import time
from pathlib import Path

from larrey_client.commands.build import Build, Json, read, write
from larrey_client.commands.signer import add_key, load_signer
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command("permit list", "permits that studies here name", _list, _tell_list)
    show = build.command(
        "permit show", "what a permit says, and its versions", _show, _tell, example="FR/2026/0042"
    )
    officer = build.command(
        "permit countersign",
        "say that the newest version is what the authority's document says",
        _countersign,
        example="FR/2026/0042 --document permit.pdf --key dpo.key",
    )
    for command in (show, officer):
        command.add_argument("reference", help="the authority's number of the permit")
        command.add_argument(
            "--membership", default="", help="whose, where several sent it", metavar="NAME"
        )
    officer.add_argument(
        "--document",
        type=Path,
        required=True,
        help="the authority's document; its digest is signed, the file stays here",
    )
    add_key(officer)


def _list(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client.decision_pages import permits_view

    def offline(connection: sqlite3.Connection) -> Json:
        return permits_view(connection, settings)

    return read(settings, "permit list", offline)


def _show(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.decision_pages import permit_view

    def offline(connection: sqlite3.Connection) -> Json:
        return permit_view(connection, settings, options.reference, options.membership)

    return read(
        settings,
        "permit show",
        offline,
        reference=options.reference,
        membership=options.membership,
    )


def _countersign(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.signing import countersign
    from larrey_client.store import SiteStore
    from larrey_protocol.permit import Countersignature
    from larrey_protocol.signed import sign

    document = _digest(options.document)
    newest = _show(settings, options)
    signer = load_signer(settings, options.key)
    word = Countersignature(
        permit=newest["digest"],
        document=document,
        site=settings.site.name,
        person=signer.person.name,
        at=time.time(),
    )
    signed = sign(word, signer.key)

    def offline(store: SiteStore) -> Json:
        return {"reference": countersign(store, settings, signed)}

    value = write(settings, "permit countersign", offline, signed=signed.to_bytes().decode())
    return {
        **value,
        "version": newest["version"],
        "document": document,
        "by": signer.person.name,
    }


def _digest(path: Path) -> str:
    import hashlib

    from larrey_protocol.errors import FileError

    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError("missing-file", f"{path} cannot be read", "Check the path.") from error


def _tell_list(value: Json) -> str:
    from larrey_client.explain import explain_permits

    return explain_permits(value)


def _tell(value: Json) -> str:
    from larrey_client.explain import explain_permit

    return explain_permit(value)
