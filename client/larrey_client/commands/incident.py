"""`larrey-site incident …`: clocks, frozen trail, bundle."""

from __future__ import annotations

import argparse
import datetime as dt
import sqlite3
from pathlib import Path

from larrey_client.commands.build import Build, Json, ask, read
from larrey_client.commands.on_record import on_record
from larrey_client.settings import SiteSettings

__all__ = ["add"]

_KINDS = ("confidentiality", "integrity", "availability", "key-compromise", "suspected")


def add(build: Build) -> None:
    """Add the commands."""
    opened = build.command(
        "incident open",
        "start the clocks of 24 hours, 72 hours and a month, freeze the trail, write the bundle",
        _open,
        _tell_open,
        example="--kind confidentiality --out incident.zip",
    )
    opened.add_argument("--kind", required=True, choices=_KINDS, help="what is at stake")
    opened.add_argument("--study", default="", help="name or digest; none: the node as such")
    exported = build.command(
        "incident export", "write the bundle again, as of now", _export, example="1 --out again.zip"
    )
    closed = build.command("incident close", "stop the clocks of an incident", _close, example="1")
    for command in (exported, closed):
        command.add_argument("number", type=int, help="of the incident")
    for command in (opened, exported):
        command.add_argument("--out", type=Path, metavar="FILE", help="of the bundle; a new file")
    build.command("incident list", "all incidents and the hours left", _list, _tell_list)
    verify = build.command("incident verify", "check a bundle", _verify, example="incident-1.zip")
    verify.add_argument("bundle", type=Path, help="file written by incident open")
    verify.add_argument("--key", default="", help="the site's public key, if it is known")
    verify.set_defaults(needs_settings=False)


def _open(settings: SiteSettings, options: argparse.Namespace) -> Json:
    _require_new(options.out)
    opened = _changed(settings, "incident open", {"kind": options.kind, "study": options.study})
    out = options.out or Path(f"incident-{opened['number']}.zip")
    return opened | {"bundle": _write(settings, options.config, opened["number"], out)}


def _export(settings: SiteSettings, options: argparse.Namespace) -> Json:
    _require_new(options.out)
    out = options.out or Path(f"incident-{options.number}.zip")
    return {"bundle": _write(settings, options.config, options.number, out)}


def _close(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _changed(settings, "incident close", {"number": options.number})


def _list(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import proofs

    def offline(connection: sqlite3.Connection) -> Json:
        return proofs.incidents_view(connection)

    return read(settings, "incident list", offline)


def _verify(_: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.incident import verify_bundle

    return verify_bundle(options.bundle, options.key)


def _changed(settings: SiteSettings, command: str, asked: Json) -> Json:
    """Ask the running node; where none runs, change its state here."""
    from larrey_client import proofs
    from larrey_protocol.errors import TransportError

    try:
        return ask(settings, command, **asked)
    except TransportError as error:
        if error.code != "agent-not-running":
            raise
    return on_record(settings, command, lambda: proofs.change_offline(settings, command, asked))


def _write(settings: SiteSettings, config: Path, number: int, out: Path) -> str:
    from larrey_client import proofs

    _require_new(out)
    made = on_record(settings, "incident export", lambda: proofs.bundle(settings, config, number))
    out.write_bytes(made)
    return str(out)


def _require_new(out: Path | None) -> None:
    from larrey_protocol.newfile import require_new

    if out is not None:
        require_new(out)


def _tell_open(value: Json) -> str:
    return "\n".join(
        [
            f"incident {value['number']} opened ({value['kind']}); nothing is purged until closed",
            f"early warning due   {_time(value['early_warning_due'])}  (24 hours)",
            f"notification due    {_time(value['notification_due'])}  (72 hours)",
            f"final report due    {_time(value['final_report_due'])}  (one month)",
            f"bundle              {value['bundle']}",
        ]
    )


def _tell_list(value: Json) -> str:
    lines = []
    for one in value:
        left = one["hours_left"]
        state = (
            f"closed {_time(one['closed_at'])}"
            if one["closed_at"]
            else f"hours left: {left['early_warning']:g} early warning, {left['notification']:g}"
            f" notification, {left['final_report']:g} final report"
        )
        lines.append(f"{one['number']:>3}  {_time(one['opened_at'])}  {one['kind']:<16} {state}")
    return "\n".join(lines) or "no incidents"


def _time(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
