"""How a command is added to `larrey-site`, and how it speaks to the node.

A command is a function ``(settings, options) -> JSON value or None`` and a function that tells the
value to a person. Without ``--json`` the telling goes to stdout, with it the value does.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from larrey_client.commands.on_record import on_record
from larrey_client.settings import SiteSettings
from larrey_protocol.errors import TransportError

if TYPE_CHECKING:
    from larrey_client.store import SiteStore

__all__ = ["Act", "Build", "Json", "ask", "pairs", "read", "table", "write"]

Json = Any  # Any: JSON values are recursive
Act = Callable[[SiteSettings, argparse.Namespace], Json]
Tell = Callable[[Json], str]
_GROUPS = {
    "study": "studies proposed to this site",
    "audit": "the site's own proofs",
    "data": "datasets, their checks and their cohort families",
    "opposition": "patients who object to the use of their data",
    "person": "personal keys of the people who decide here",
    "permit": "permits and their countersignatures",
    "policy": "what this hospital allows, and who signed it",
    "incident": "security incidents, their clocks and their bundles",
}


class Build:
    """Adds commands to the parser."""

    def __init__(self, parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")
        self._common = common
        self._groups: dict[str, Any] = {}  # Any: argparse's own action has no public type
        self._single: dict[str, argparse.ArgumentParser] = {}  # commands that have verbs, too

    def command(
        self,
        words: str,
        text: str,
        act: Act,
        tell: Tell | None = None,
        *,
        example: str = "",
        is_direct: bool = False,
    ) -> argparse.ArgumentParser:
        """Add ``words`` ("status" or "study show"), and return its parser for arguments.

        Args:
            words: one word, or group and verb.
            text: what it does, lower case, for help.
            act: called with settings and options.
            tell: turns its value into text; `pairs` if none is given.
            example: arguments of the example in its help.
            is_direct: it works on the state or the rows itself, whether a node runs or not, and
                puts itself on the access log.
        """
        group, _, verb = words.rpartition(" ")
        where = self._group(group) if group else self._commands
        line = " ".join(f"larrey-site {words} {example}".split())
        command: argparse.ArgumentParser = where.add_parser(
            verb,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  {line} --config site.toml\n",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[self._common],
        )
        command.set_defaults(act=act, tell=tell or pairs, needs_settings=True)
        command.set_defaults(recorded=words if is_direct else "")
        if not group:
            self._single[verb] = command
        return command

    def _group(self, name: str) -> Any:  # Any: as above
        if name in self._single and name not in self._groups:
            verbs = self._single[name].add_subparsers(metavar="VERB")
            self._groups[name] = verbs
        if name not in self._groups:
            parser = self._commands.add_parser(name, help=_GROUPS[name])
            self._groups[name] = parser.add_subparsers(required=True, metavar="VERB")
        return self._groups[name]


def ask(settings: SiteSettings, command: str, **arguments: Json) -> Json:
    """Return the running node's answer.

    Raises:
        TransportError: ``agent-not-running``; LarreyError: what the node says.
    """
    from larrey_client.local import ask as ask_node

    return ask_node(settings.site.state, command, **arguments)


def read(
    settings: SiteSettings,
    command: str,
    offline: Callable[[sqlite3.Connection], Json],
    **arguments: Json,
) -> Json:
    """Ask the running node, or read its state where none runs."""
    from larrey_client.store import open_readonly

    try:
        return ask(settings, command, **arguments)
    except TransportError as error:
        if error.code != "agent-not-running":
            raise

    def act() -> Json:
        with closing(open_readonly(settings.site.state)) as connection:
            return offline(connection)

    return on_record(settings, command, act)


def write(
    settings: SiteSettings,
    command: str,
    offline: Callable[[SiteStore], Json],
    **arguments: Json,
) -> Json:
    """Ask the running node, or write to its state where none runs."""
    from larrey_client.store import SiteStore

    try:
        return ask(settings, command, **arguments)
    except TransportError as error:
        if error.code != "agent-not-running":
            raise

    def act() -> Json:
        with closing(SiteStore.open(settings.site.state, time.time)) as store:
            return offline(store)

    return on_record(settings, command, act, signed=str(arguments.get("signed", "")))


def pairs(value: Json) -> str:
    """Return a JSON object as lines of name and value."""
    shown = {key: _shown(key, entry) for key, entry in value.items()}
    return "\n".join(f"{key.replace('_', ' '):16} {entry}" for key, entry in shown.items())


def table(head: str, rows: Sequence[Sequence[Json]]) -> str:
    """Return rows under a line of column names, each column as wide as its widest cell.

    Args:
        head: the names, separated by spaces.
        rows: a cell a column; numbers stand to the right.
    """
    names = head.split()
    cells = [names, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = [">" if rows and isinstance(cell, int) else "<" for cell in (rows or [names])[0]]
    lines = [
        "  ".join(f"{c:{sign}{width}}" for c, sign, width in zip(line, signs, widths, strict=True))
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _shown(key: str, entry: Json) -> Json:
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    if key.endswith("_at") and isinstance(entry, float):
        return f"{dt.datetime.fromtimestamp(entry, dt.UTC):%Y-%m-%d %H:%M} UTC"
    is_list = isinstance(entry, Sequence) and not isinstance(entry, str)
    return ", ".join(map(str, entry)) if is_list else entry
