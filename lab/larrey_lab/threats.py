"""The table of attacks in docs/security/threat-model.md, made from the list that the tests run.

The list lies with the tests, so this works in a checkout and not from an installed wheel.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "threat_model"]

PAGE = "security/threat-model.md"
_ROOT = Path(__file__).parents[2]
_BEGIN, _END = "<!-- attacks: begin -->", "<!-- attacks: end -->"
_SURFACES = {
    "gate": "At the hospital's gate",
    "documents": "By documents",
    "transport": "By messages and processes",
    "tensors": "By models and updates",
    "data": "To get at data",
    "ledger": "On ledger, trail and state",
    "enrolment": "On the coordinator",
}
_Entry = Mapping[str, Any]  # Any: TOML values


def threat_model() -> str:
    """Return the page as it stands with its table made anew.

    Raises:
        ValueError: the page lacks the marks around the table.
    """
    text = (_ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{PAGE} needs the lines {_BEGIN} and {_END}")
    listed = (_ROOT / "tests" / "attacks" / "attacks.toml").read_text(encoding="utf-8")
    table = "\n".join(_tables(tomllib.loads(listed)["attack"]))
    return f"{before}{begin}\n{table}\n{end}{after}"


def _tables(entries: list[_Entry]) -> Iterator[str]:
    yield f"{len(entries)} attempts, each a test:"
    for surface, heading in _SURFACES.items():
        yield from ("", f"### {heading}", "")
        yield from ("| what is tried | by | ends in | what leaves |", "|---|---|---|---|")
        for entry in entries:
            if entry["surface"] == surface:
                yield f"| {_tried(entry)} | {entry['attacker']} | {_ends(entry)} | {_left(entry)} |"


def _tried(entry: _Entry) -> str:
    notes = [f"Spends: {entry['spends']}."] if entry.get("spends") else []
    notes += [f"Refused until {entry['until']}."] if entry.get("until") else []
    return " ".join([entry["title"], *notes])


def _ends(entry: _Entry) -> str:
    return f"`{entry['code']}`" if entry["code"] else "no harm"


def _left(entry: _Entry) -> str:
    leaves = entry.get("leaves", [])
    if not leaves:
        return "nothing"
    if leaves == [entry["code"]]:
        return "the code"
    return ", ".join("the stored update" if word == "update" else f"`{word}`" for word in leaves)
