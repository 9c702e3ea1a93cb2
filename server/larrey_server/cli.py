"""`larrey`: the coordinator and the consortium's commands.

Data go to stdout, words for people to stderr. Exit status 0: done; 1: refused or failed; 2: wrong
usage. Heavy libraries are imported by the command that needs them, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from larrey_protocol.errors import LarreyError
from larrey_protocol.newfile import file_failed
from larrey_server import (
    cli_audit,
    cli_doctor,
    cli_members,
    cli_operator,
    cli_people,
    cli_permit,
    cli_study,
)
from larrey_server.cli_build import add_foreign

__all__ = ["main", "make_parser"]

_EXAMPLES = """examples:
  larrey serve --config coordinator.toml
  larrey study check study.toml
  larrey study propose study.toml --operator operator.toml
  larrey study launch heart --operator operator.toml
"""
_SERVE = """examples:
  larrey serve --config coordinator.toml

Prints one line when it is ready. SIGTERM or Ctrl-C stops it; running studies go on from the
journal at the next start.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    try:
        parsed = make_parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = parsed.run
        return run(parsed)
    except LarreyError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130  # what a shell reports for SIGINT
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        sys.stderr.write(f"error: {file_failed(error)}\n")
        return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser with every installed command."""
    parser = argparse.ArgumentParser(
        prog="larrey",
        description="Federated learning across hospitals: coordinator and consortium.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"larrey {version('larrey')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    cli_members.command(commands)
    cli_study.command(commands)
    cli_permit.command(commands)
    cli_people.command(commands)
    cli_operator.command(commands)
    cli_audit.command(commands)
    cli_doctor.command(commands)
    add_foreign(commands, "larrey.commands")
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the coordinator",
        description="Run the coordinator that the settings file describes.",
        epilog=_SERVE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument(
        "--config",
        type=Path,
        default=Path("coordinator.toml"),
        help="settings file",
        metavar="FILE",
    )
    serve.set_defaults(run=_serve)


def _serve(parsed: argparse.Namespace) -> int:
    from larrey_server.serve import serve

    return serve(parsed.config)
