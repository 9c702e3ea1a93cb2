"""The access log's line of a command that no running node answers: written by the command itself.

A running node's door writes down who asked it what. A command that reads or changes the state, or
reads rows, without it does so here, refused or not, under the account as the kernel knows it. Where
the log cannot be written the command goes on and says so: what stops something waits for no log.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from larrey_client.settings import SiteSettings
from larrey_protocol.errors import LarreyError
from larrey_protocol.newfile import file_failed

__all__ = ["on_record"]

Json = Any  # Any: JSON values are recursive


def on_record(
    settings: SiteSettings,
    verb: str,
    act: Callable[[], Json],
    *,
    signed: str = "",
    signer_in: str = "",
) -> Json:
    """Return what ``act`` does, and leave a line about it.

    Args:
        settings: of the site.
        verb: the command without its arguments.
        act: what it does; its errors are raised on, their codes are on the line.
        signed: what a person signed for it, in travelling form; names them on the line.
        signer_in: else the entry of the value that names who signed, if any.
    """
    code, person = "cut", ""
    try:
        value = act()
        code = "ok"
        named = value.get(signer_in, "") if isinstance(value, dict) else ""
        person = _signer(settings, signed) if signed else str(named)
    except LarreyError as error:
        code = error.code
        raise
    except OSError as error:
        code = file_failed(error).code
        raise
    finally:
        _write(settings, verb, code, person)
    return value


def _write(settings: SiteSettings, verb: str, code: str, person: str) -> None:
    from larrey_client.local import account
    from larrey_protocol.access_log import Access, AccessLog

    if not settings.site.state.is_dir():
        return  # nothing was there to be read
    try:
        with closing(AccessLog(settings.site.state)) as log:
            log.add(Access(time.time(), account(), verb, code, person))
    except (sqlite3.Error, OSError):
        sys.stderr.write("this command is not on the access log, which cannot be written\n")


def _signer(settings: SiteSettings, signed: str) -> str:
    """Return the name of the person of this site who signed, nothing where that is not known."""
    from larrey_client.dossier import read_dossier
    from larrey_client.records import SiteRecords
    from larrey_client.store import open_readonly
    from larrey_protocol.people import find_person
    from larrey_protocol.signed import Signed

    with closing(open_readonly(settings.site.state)) as connection:
        try:
            dossier = read_dossier(SiteRecords(connection), settings.consortium.key)
            people = dossier.entitled(settings.people)
            person = find_person(people, Signed.from_bytes(signed.encode()).signer)
        except LarreyError:  # a kept document is altered; the account is on the line
            return ""
    return person.name if person else ""
