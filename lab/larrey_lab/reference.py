"""Generate the reference pages: schemas of the files people write, command line, round machine.

``python -m larrey_lab.reference`` writes them; a test compares them with what the code says now.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from larrey_client.cli import build_parser as site_parser
from larrey_client.settings import SiteSettings
from larrey_lab.doctor_page import PAGE as DOCTOR
from larrey_lab.doctor_page import doctor_page
from larrey_lab.metrics_page import PAGE as METRICS
from larrey_lab.metrics_page import metrics_page
from larrey_lab.round_table import BEGIN, END, table
from larrey_lab.strategies_page import PAGE as STRATEGIES
from larrey_lab.strategies_page import strategies_page
from larrey_lab.threats import PAGE, threat_model
from larrey_protocol.contract import Contract
from larrey_protocol.egress_list import DOCUMENTS, FLOWER_RECORD, LISTED, Field
from larrey_protocol.permit import Permit
from larrey_protocol.refusals import MAY_LEAVE
from larrey_protocol.study import StudyFile
from larrey_server.cli import make_parser as coordinator_parser
from larrey_server.settings import CoordinatorSettings

__all__ = ["pages"]

_FILES: dict[str, type[BaseModel]] = {
    "study": StudyFile,
    "contract": Contract,
    "permit": Permit,
    "site": SiteSettings,
    "coordinator": CoordinatorSettings,
}
_DOCS = Path(__file__).resolve().parents[2] / "docs"
_ARCHITECTURE = "architecture.md"
_EGRESS = (
    (
        "Generated from `larrey_protocol.egress_list` by `python -m larrey_lab.reference`. What is"
        " not listed here is refused by the node's border with `egress-not-listed`, before it is"
        " sent. Why it is so: [ADR 0014](../adr/0014-what-leaves.md)."
    ),
    "",
    (
        "*public*: known without the data. *protected*: a differentially private output."
        " *derived*: made from the data under the rule that its line names. *identity*: keys and"
        " signatures."
    ),
)


def pages() -> dict[str, str]:
    """Return every generated page by its path below ``docs/``."""
    schemas = {f"schemas/{name}.schema.json": _schema(model) for name, model in _FILES.items()}
    written = {"cli.md": _command_line(), "security/egress.md": _egress(), PAGE: threat_model()}
    written[STRATEGIES] = strategies_page()
    written[DOCTOR] = doctor_page()
    written[METRICS] = metrics_page()
    return schemas | written | {_ARCHITECTURE: _architecture()}


def _schema(model: type[BaseModel]) -> str:
    return json.dumps(model.model_json_schema(), indent=2, sort_keys=True) + "\n"


def _architecture() -> str:
    """Return a page that is written by hand but for the table of the round machine."""
    text = (_DOCS / _ARCHITECTURE).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + table() + rest.partition(END)[2]


def _command_line() -> str:
    os.environ["COLUMNS"] = "88"  # argparse wraps at the terminal's width
    lines = [
        "# Command line",
        "",
        "Generated from the parsers by `python -m larrey_lab.reference`.",
    ]
    for parser in (coordinator_parser(), site_parser()):
        for command in _leaves(parser):
            lines += [
                "",
                f"## `{command.prog}`",
                "",
                "```text",
                command.format_help().strip(),
                "```",
            ]
    return "\n".join(lines) + "\n"


def _egress() -> str:
    """Return the list of what may leave a hospital, as tables."""
    heading = "## Requests of `larrey.v1`, and Flower's envelope inside `Give`"
    lines = ["# What may leave a hospital", "", *_EGRESS, "", heading]
    for name, fields in LISTED.items():
        lines += ["", f"### `{name}`", "", *_fields(fields)]
    lines += ["", "### The record of a Flower reply", "", *_fields(FLOWER_RECORD)]
    lines += ["", "## Signed documents"]
    for name, fields in DOCUMENTS.items():
        lines += ["", f"### {name}", "", *_fields(fields)]
    codes = ", ".join(f"`{code}`" for code in sorted(MAY_LEAVE))
    lines += ["", "## Codes", "", f"Any other code leaves as `node-failed`. {codes}."]
    return "\n".join(lines) + "\n"


def _fields(fields: Mapping[str, Field]) -> list[str]:
    if not fields:
        return ["No fields."]
    rows = [
        f"| `{path}` | {one.kind} | {one.shape.replace('|', ', ')} | {one.what} |"
        for path, one in fields.items()
    ]
    return ["| field | class | form | what it is |", "|---|---|---|---|", *rows]


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Give the parser and those of its subcommands, depth first."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _leaves(child)


def main() -> int:
    """Write the pages into ``docs/`` of the current folder."""
    for path, text in pages().items():
        target = Path("docs") / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
