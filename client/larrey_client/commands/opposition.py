"""`larrey-site opposition …`: patients who object to the use of their data.

Identifiers are read from a file, standard input or the command line, are never printed and never
kept: the list holds keyed hashes. Prefer a file: other accounts may see a command line.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from pathlib import Path

from larrey_client.commands.build import Build, Json
from larrey_client.settings import SiteSettings
from larrey_protocol.errors import FileError, UsageError

__all__ = ["add"]

_MAX_BYTES = 1 << 26
_MAX_IDENTIFIER = 256


def add(build: Build) -> None:
    """Add the commands."""
    made = build.command(
        "opposition add",
        "record that patients object",
        _add,
        _tell,
        example="--file objections.txt",
        is_direct=True,
    )
    undone = build.command(
        "opposition withdraw",
        "record that patients object no longer",
        _withdraw,
        _tell,
        example="--file withdrawn.txt",
        is_direct=True,
    )
    for command in (made, undone):
        command.add_argument("identifiers", nargs="*", metavar="ID", help="as in the unit column")
        command.add_argument(
            "--file", type=Path, help="one identifier a line; - for standard input"
        )
        command.add_argument(
            "--valid-from", type=_day, metavar="DAY", help="first day, YYYY-MM-DD (default: today)"
        )
    build.command("opposition count", "how many patients object", _count, is_direct=True)
    check = build.command(
        "opposition check",
        "whether a patient objects",
        _check,
        example="--file one.txt",
        is_direct=True,
    )
    check.add_argument("identifiers", nargs="*", metavar="ID", help="as in the unit column")
    check.add_argument("--file", type=Path, help="one identifier a line; - for standard input")


def _add(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _record(settings, options, "oppose")


def _withdraw(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return _record(settings, options, "withdraw")


def _record(settings: SiteSettings, options: argparse.Namespace, kind: Json) -> Json:
    from larrey_client.local import account
    from larrey_client.objections import record_objections

    return record_objections(
        settings,
        _identifiers(options),
        kind,
        valid_from=options.valid_from,
        actor=account(),
        now=time.time(),
    )


def _count(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client.objections import count_objections

    return count_objections(settings, time.time())


def _check(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.objections import is_objecting

    asked, now = _identifiers(options), time.time()
    return {"asked": len(asked), "objecting": sum(is_objecting(settings, i, now) for i in asked)}


def _identifiers(options: argparse.Namespace) -> list[str]:
    """Return the identifiers given, white space stripped; messages quote none of them.

    Raises:
        UsageError: ``identifiers-missing`` or ``identifier-too-long``.
        FileError: ``missing-file``, ``file-too-large`` or ``invalid-text``.
    """
    given = [*options.identifiers, *(_lines(options.file) if options.file else ())]
    found = [identifier.strip() for identifier in given if identifier.strip()]
    if not found:
        raise UsageError("identifiers-missing", "no identifier was given", "Add: --file FILE")
    if max(map(len, found)) > _MAX_IDENTIFIER:
        raise UsageError("identifier-too-long", f"one has over {_MAX_IDENTIFIER} characters")
    return found


def _lines(path: Path) -> list[str]:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise FileError("file-too-large", f"{path} has over {_MAX_BYTES} bytes", "Split it.")
        return data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise FileError("missing-file", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise FileError("invalid-text", f"{path} is not UTF-8 text", "Save it as UTF-8.") from None


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a day such as 2026-01-31, found '{text}'"
        ) from None


def _tell(value: Json) -> str:
    verb = "object" if value["kind"] == "oppose" else "object no longer"
    lines = [f"Recorded: {value['recorded']} patients {verb} from {value['valid_from']} on."]
    lines.append("It changes, of the studies that run here:")
    lines += [f"  {study['study']:24} {study['changes']}" for study in value["studies"]]
    if not value["studies"]:
        lines.append("  none: no study runs here")
    lines.append("It cannot change:")
    lines += [f"  {thing}" for thing in value["cannot_change"]]
    return "\n".join(lines)
