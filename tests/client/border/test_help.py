"""What the help of `larrey-site` says works as it stands there."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest

from larrey_client.cli import build_parser


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                if one.get_default("act") is not None:
                    yield one
                yield from commands(one)


@pytest.mark.parametrize("command", list(commands(build_parser())), ids=lambda one: one.prog)
def test_every_example_in_the_help_is_a_command_that_is_understood(
    command: argparse.ArgumentParser,
) -> None:
    lines = [line.strip() for line in (command.epilog or "").splitlines()]
    examples = [line for line in lines if line.startswith("larrey-site ")]
    assert examples
    for line in examples:
        words = shlex.split(line.partition("   ")[0])[1:]
        options = build_parser().parse_args(words)
        assert options.act is command.get_default("act")
