"""`larrey-site`: the hospital's command. Human text to stderr, data to stdout.

Exit status: 0 done, 1 refused or failed, 2 wrong usage. Commands speak to the running node through
its local socket; those that only read work without it, too.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from larrey_client.settings import SiteSettings, load_settings
from larrey_protocol.errors import LarreyError, TransportError

__all__ = ["build_parser", "main"]

_EXAMPLE = """example:
  larrey-site run --config site.toml            start the node of this hospital
  larrey-site study show heart                  read in plain words what a study asks
  larrey-site study approve heart               allow it; nothing else can run
"""
_OF_A_STUDY = ("study show", "study approve", "study refuse")
Json = Any  # Any: JSON values are recursive


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        settings = load_settings(options.config)
        value = options.act(settings, options)
    except LarreyError as error:
        sys.stderr.write(f"larrey-site: {error}\n")
        if options.json:
            said = {"code": error.code, "message": error.message, "next_step": error.next_step}
            sys.stdout.write(json.dumps({"error": said}) + "\n")
        return error.exit_status
    if value is not None:
        sys.stdout.write((json.dumps(value) if options.json else options.tell(value)) + "\n")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the reference page of the command is made from it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("LARREY_SITE_CONFIG", "site.toml")),
        help="the site's file (default: ./site.toml or LARREY_SITE_CONFIG)",
    )
    common.add_argument("--json", action="store_true", help="print data as JSON")
    parser = argparse.ArgumentParser(
        prog="larrey-site",
        description="The hospital's node: joins studies, keeps data, budget and proofs here.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(where: Any, words: str, text: str, act: Callable[..., Json], tell: str) -> Any:
        study = " heart" if words in _OF_A_STUDY else ""
        command = where.add_parser(
            words.rsplit(maxsplit=1)[-1],
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  larrey-site {words}{study} --config site.toml\n",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common],
        )
        command.set_defaults(act=act, tell=_teller(tell))
        return command

    add(commands, "run", "run the node until it is stopped", _run, "")
    add(commands, "status", "how the running node is", _status, "explain_status")
    add(commands, "ledger", "what each dataset's budget is used for", _ledger, "explain_ledger")
    study = commands.add_parser("study", help="studies proposed to this site")
    verbs = study.add_subparsers(required=True, metavar="VERB")
    add(verbs, "study list", "all studies proposed here", _studies, "explain_studies")
    show = add(verbs, "study show", "what a study asks, in plain words", _show, "explain_study")
    approve = add(verbs, "study approve", "allow a study on a dataset", _approve, "")
    refuse = add(verbs, "study refuse", "say no to a study", _refuse, "")
    for command in (show, approve, refuse):
        command.add_argument("study", help="name or digest")
    approve.add_argument("--dataset", help="which dataset, if this site has several")
    audit = commands.add_parser("audit", help="the site's own proofs")
    proofs = audit.add_subparsers(required=True, metavar="VERB")
    add(proofs, "audit verify", "check ledger, audit trail and receipts", _verify, "")
    return parser


def _run(settings: SiteSettings, options: argparse.Namespace) -> None:
    from larrey_client.run import run

    logging.basicConfig(
        level=os.environ.get("LARREY_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    site, address = settings.site.name, settings.coordinator.address

    def ready() -> None:
        facts = {"ready": True, "site": site, "coordinator": address, "pid": os.getpid()}
        line = f"larrey-site {site}: ready, coordinator {address}"
        sys.stdout.write((json.dumps(facts) if options.json else line) + "\n")
        sys.stdout.flush()

    run(settings, ready)


def _status(settings: SiteSettings, _: argparse.Namespace) -> Json:
    return _ask(settings, "status")


def _studies(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import views

    return _read(settings, "study list", views.studies_view)


def _show(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import views

    def offline(connection: sqlite3.Connection) -> Json:
        return views.study_view(connection, settings, options.study)

    return _read(settings, "study show", offline, study=options.study)


def _ledger(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import views

    return _read(settings, "ledger", lambda connection: views.ledger_view(connection, settings))


def _verify(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import views
    from larrey_protocol.keys import SigningKey

    def offline(connection: sqlite3.Connection) -> Json:
        key = SigningKey.load(settings.identity.signing_key).public
        return views.verify_view(connection, key)

    return _read(settings, "audit verify", offline)


def _approve(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _ask(settings, "study approve", study=options.study, dataset=options.dataset)


def _refuse(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _ask(settings, "study refuse", study=options.study)


def _ask(settings: SiteSettings, command: str, **arguments: Json) -> Json:
    from larrey_client.local import ask

    return ask(settings.site.state, command, **arguments)


def _read(
    settings: SiteSettings,
    command: str,
    offline: Callable[[sqlite3.Connection], Json],
    **arguments: Json,
) -> Json:
    """Ask the running node, or read its state where none runs."""
    from larrey_client.store import open_readonly

    try:
        return _ask(settings, command, **arguments)
    except TransportError as error:
        if error.code != "agent-not-running":
            raise
    connection = open_readonly(settings.site.state)
    try:
        return offline(connection)
    finally:
        connection.close()


def _teller(name: str) -> Callable[[Json], str]:
    def tell(value: Json) -> str:
        from larrey_client import explain

        text: Callable[[Json], str] = getattr(explain, name) if name else _pairs
        return text(value)

    return tell


def _pairs(value: dict[str, Json]) -> str:
    return "\n".join(f"{key.replace('_', ' '):16} {entry}" for key, entry in value.items())


if __name__ == "__main__":
    raise SystemExit(main())
