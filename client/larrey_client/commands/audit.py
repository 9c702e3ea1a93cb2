"""`larrey-site audit …` and `larrey-site egress`: the site's own proofs."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sqlite3
from pathlib import Path

from larrey_client.commands.build import Build, Json, read, table
from larrey_client.commands.on_record import on_record
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command("audit verify", "check ledger, audit trail and receipts", _verify)
    query = build.command(
        "audit query",
        "who ran what on which data, when, under which permit",
        _query,
        _tell_query,
        example="--dataset heart --from 2026-01-01",
    )
    query.add_argument("--study", default="", help="name or digest")
    query.add_argument("--dataset", default="", help="only what used this dataset")
    query.add_argument("--action", default="", help="only this action, such as update-released")
    query.add_argument("--actor", default="", help="only what this account, person or side did")
    access = build.command("audit access", "who used which command here", _access, _tell_access)
    for command in (query, access):
        command.add_argument("--from", dest="since", type=_day, help="day, such as 2026-01-31")
        command.add_argument("--to", dest="until", type=_day, help="day; itself left out")
    export = build.command(
        "audit export",
        "print trail and receipts for `larrey audit reconcile`",
        _export,
        json.dumps,
    )
    export.add_argument(
        "--membership", default="", help="for which coordinator, of several", metavar="NAME"
    )
    egress = build.command(
        "egress",
        "what left this site, byte for byte",
        _egress,
        _tell_egress,
        example="--study heart",
    )
    egress.add_argument("--study", default="", help="name or digest")
    egress.add_argument("--since", type=_day, help="day, such as 2026-01-31")
    egress.add_argument("--payload", metavar="DIGEST", help="write what left under this digest")
    egress.add_argument("--out", type=Path, metavar="FILE", help="where to; a new file")


def _verify(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import proofs
    from larrey_protocol.keys import SigningKey

    def offline(connection: sqlite3.Connection) -> Json:
        key = SigningKey.load(settings.identity.signing_key).public
        return proofs.verify_view(connection, settings.site.state, key)

    return read(settings, "audit verify", offline)


def _query(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import proofs

    names = ("study", "dataset", "since", "until", "action", "actor")
    asked = {name: getattr(options, name) for name in names}
    return read(settings, "audit query", lambda db: proofs.query_view(db, asked), **asked)


def _access(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import proofs

    asked = {"since": options.since, "until": options.until}
    state = settings.site.state
    return read(settings, "audit access", lambda _: proofs.access_view(state, asked), **asked)


def _export(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import proofs
    from larrey_protocol.keys import SigningKey

    def offline(connection: sqlite3.Connection) -> Json:
        key = SigningKey.load(settings.identity.signing_key).public
        return proofs.export_view(connection, settings, key, options.membership)

    return read(settings, "audit export", offline, membership=options.membership)


def _egress(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import proofs

    state = settings.site.state
    if options.payload:
        return on_record(settings, "egress", lambda: _payload(state, options.payload, options.out))
    asked = {"study": options.study, "since": options.since}
    return read(settings, "egress", lambda db: proofs.egress_view(db, state, asked), **asked)


def _payload(state: Path, digest: str, out: Path | None) -> Json:
    from larrey_client.egress_log import open_log
    from larrey_protocol.canonical import digest_bytes
    from larrey_protocol.errors import UsageError

    if out is None or out.exists():
        raise UsageError("out-needed", "expected --out with a new file", "Add: --out FILE")
    log = open_log(state)
    try:
        data = log.payload(digest)
    finally:
        log.connection.close()
    out.write_bytes(data)
    return {"file": str(out), "bytes": len(data), "digest": digest_bytes(data)}


def _tell_query(value: Json) -> str:
    rows = [
        (
            row["seq"],
            _time(row["at"]),
            row["actor"],
            f"{row['action']} {row['verb']}".rstrip(),
            row["name"] or row["study"][7:19],
            row["round"] or "",
            row["dataset"],
            row["permit"][7:19],
            row["launcher"],
            row["software"][7:19],
            row["code"],
        )
        for row in value
    ]
    head = "NO TIME(UTC) WHO ACTION STUDY ROUND DATASET PERMIT LAUNCHED-BY SOFTWARE CODE"
    return table(head, rows) if rows else "nothing of the kind is on record"


def _tell_access(value: Json) -> str:
    rows = [
        (_time(row["at"]), row["person"] or row["actor"], row["verb"], row["code"]) for row in value
    ]
    head = "TIME(UTC) WHO COMMAND OUTCOME"
    return table(head, rows) if rows else "nobody used a command in that time"


def _tell_egress(value: Json) -> str:
    if "file" in value:
        return f"{value['file']}: {value['bytes']} bytes, {value['digest']}"
    rows: list[tuple[Json, ...]] = [
        (
            row["seq"],
            _time(row["at"]),
            row["method"],
            row["bytes"],
            row["digest"][7:19],
            row["study"][7:19],
            row["round"] or "",
            row["phase"],
            f"{'' if row['is_kept'] else 'digest only '}{row['code']}",
        )
        for row in value["messages"]
    ]
    rows += [
        ("", _time(row["hour"]), row["method"], row["bytes"], row["digest"][7:19], "", "", "",
         f"{row['count']} times within the hour")
        for row in value["polls"]
    ]  # fmt: skip
    told = table("NO TIME(UTC) METHOD BYTES DIGEST STUDY ROUND PHASE NOTE", rows)
    return f"{told}\n{value['total_bytes']} bytes left in all"


def _day(text: str) -> float:
    """Return the beginning of a day in UTC, in seconds since 1970."""
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a day such as 2026-01-31, found '{text}'"
        ) from None


def _time(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
