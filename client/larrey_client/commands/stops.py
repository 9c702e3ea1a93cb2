"""`larrey-site halt|pause|resume`, `study close`, `leave`: what stops things here, and its undo.

Halting takes no key and works from any terminal, with the node running or not.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from larrey_client.commands.build import Build, Json, ask, write
from larrey_client.commands.signer import add_key, load_signer
from larrey_client.settings import SiteSettings

if TYPE_CHECKING:
    from larrey_client.store import SiteStore

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    halt = build.command(
        "halt", "stop a study here at once, or all of them", _halt, example="heart"
    )
    pause = build.command(
        "pause", "let a study finish its present work here, then wait", _pause, example="heart"
    )
    resume = build.command(
        "resume", "undo halt and pause of a study, or of all", _resume, example="heart --key it.key"
    )
    for command in (halt, pause, resume):
        command.add_argument("study", nargs="?", default="", help="name or digest (default: all)")
    close = build.command(
        "study close", "delete what is kept of a study, with a receipt; final", _close,
        example="heart",
    )  # fmt: skip
    close.add_argument("study", help="name or digest")
    leave = build.command(
        "leave", "end this site's membership: revoke and close everything; final", _leave,
        example="--key it.key",
    )  # fmt: skip
    leave.add_argument(
        "--membership", default="", help="which one, where this site has several", metavar="NAME"
    )
    for command in (resume, leave):
        add_key(command)


def _halt(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _stop(settings, "halt", options.study)


def _pause(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _stop(settings, "pause", options.study)


def _stop(settings: SiteSettings, verb: str, study: str) -> Json:
    from larrey_client.local import account
    from larrey_client.stopping import stop

    def offline(store: SiteStore) -> Json:
        return stop(store, "halt" if verb == "halt" else "pause", study, account())

    done = write(settings, verb, offline, study=study)
    again = " ".join(f"larrey-site resume {study} --key KEY".split())
    sys.stderr.write(f"undo it: {again}\n")
    return done


def _resume(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.dossier import read_dossier
    from larrey_client.stopping import resume
    from larrey_protocol.signed import Signed

    def offline_terms(store: SiteStore) -> Json:
        subject = store.records.find(options.study).study.digest if options.study else ""
        return {"site": settings.site.name, "subject": subject, "after": store.audit_head}

    terms = write(settings, "stop terms", offline_terms, study=options.study)
    text = _signed_order(settings, options, "resume", terms)

    def offline(store: SiteStore) -> Json:
        people = read_dossier(store.records, settings.consortium.key).people
        return resume(store, Signed.from_bytes(text.encode()), people, site=settings.site.name)

    return write(settings, "resume", offline, signed=text)


def _close(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return ask(settings, "study close", study=options.study)


def _leave(settings: SiteSettings, options: argparse.Namespace) -> Json:
    terms = ask(settings, "stop terms", membership=options.membership)
    return ask(settings, "leave", signed=_signed_order(settings, options, "leave", terms))


def _signed_order(
    settings: SiteSettings, options: argparse.Namespace, verb: str, terms: Json
) -> str:
    """Return the person's order in travelling form; the key stays in this process."""
    from larrey_protocol.decisions import SiteOrder
    from larrey_protocol.signed import sign

    signer = load_signer(settings, options.key)
    order = SiteOrder.model_validate(
        {**terms, "verb": verb, "person": signer.person.name, "at": time.time()}
    )
    return sign(order, signer.key).to_bytes().decode()
