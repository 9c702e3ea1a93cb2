"""What the documents say can be typed, opened and followed."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from larrey_client.cli import build_parser
from larrey_lab.reference import pages
from larrey_server.cli import make_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PARSERS = {"larrey": make_parser, "larrey-site": build_parser}
_COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(larrey|larrey-site)(?: |$)(.*)")


def lines_of(document: Path) -> list[str]:
    """Return the lines of shell and example blocks that start one of our programs."""
    blocks = re.findall(
        r"^```(?:sh|text|console|bash)\n(.*?)^```", document.read_text(), re.M | re.S
    )
    found = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in found if _COMMAND.match(line)]


def mentions_in(document: Path) -> list[str]:
    """Return what stands in backticks within a sentence and names one of our programs."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if _COMMAND.match(span) and "…" not in span]


def words_of(line: str) -> tuple[str, list[str]]:
    """Return the program and its arguments, without explanation beside it or redirection."""
    found = _COMMAND.match(line)
    assert found
    return found[1], shlex.split(re.split(r"\s{2,}|\s+#|\s+>>?\s", found[2])[0])


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


COMMANDS = sorted({line for document in DOCUMENTS for line in lines_of(document)})
MENTIONS = sorted({span for document in DOCUMENTS for span in mentions_in(document)})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_the_documents_parses(line: str) -> None:
    program, words = words_of(line)
    PARSERS[program]().parse_args(words)


@pytest.mark.parametrize("span", MENTIONS)
def test_a_command_mentioned_in_a_sentence_exists(span: str) -> None:
    program, words = words_of(span)
    parser = PARSERS[program]()
    while words and (choices := subcommands(parser)):
        several = words.pop(0).split("|")
        assert several[0].startswith("-") or choices.keys() >= set(several), span
        parser = choices.get(several[-1], parser)
    known = {option for action in parser._actions for option in action.option_strings}
    assert {word for word in words if word.startswith("-")} <= known


def test_the_documents_show_commands_of_both_programs() -> None:
    assert {words_of(line)[0] for line in COMMANDS} == set(PARSERS)
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_in_the_documents_exist(document: Path) -> None:
    text, makefile = document.read_text(), (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)(?![a-z-]|…)", text, re.M))
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


@pytest.mark.parametrize("page", pages())
def test_a_generated_page_is_what_the_code_says_now(page: str) -> None:
    written = (ROOT / "docs" / page).read_text()
    assert written == pages()[page], "run: .venv/bin/python -m larrey_lab.reference"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_in_the_documents_resolve(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    relative = [link for link in links if link and "://" not in link and link[:7] != "mailto:"]
    assert [link for link in relative if not (document.parent / link).exists()] == []
