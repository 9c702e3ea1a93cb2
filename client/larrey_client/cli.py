"""`larrey-site`: the hospital's command. Human text to stderr, data to stdout.

Exit status: 0 done, 1 refused or failed, 2 wrong usage. Commands speak to the running node through
its local socket; those that only read work without it, too. Each subject is a module of
`larrey_client.commands`; heavy libraries are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from larrey_client.commands import (
    audit,
    data,
    doctor,
    extract,
    families,
    incident,
    join,
    ledger,
    node,
    opposition,
    people,
    permit,
    policy,
    stops,
    study,
)
from larrey_client.commands.build import Build
from larrey_client.commands.on_record import on_record
from larrey_client.settings import load_settings
from larrey_protocol.errors import LarreyError
from larrey_protocol.newfile import file_failed

__all__ = ["build_parser", "main"]

_EXAMPLE = """example:
  larrey-site run --config site.toml               start the node of this hospital
  larrey-site study show heart                     read in plain words what a study asks
  larrey-site study approve heart --key dpo.key    allow it; nothing else can run
"""
_SUBJECTS = (
    node,
    doctor,
    people,
    policy,
    permit,
    study,
    stops,
    ledger,
    data,
    families,
    opposition,
    audit,
    incident,
    extract,
    join,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        settings = load_settings(options.config) if options.needs_settings else None
        act = partial(options.act, settings, options)
        if settings is not None and options.recorded:
            value = on_record(settings, options.recorded, act, signer_in="by")
        else:
            value = act()
        if value is not None:
            sys.stdout.write((json.dumps(value) if options.json else options.tell(value)) + "\n")
            sys.stdout.flush()
    except LarreyError as error:
        return _refused(error, is_json=options.json)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130  # what a shell reports for SIGINT
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _refused(file_failed(error), is_json=options.json)
    return int(getattr(options, "exit_status", 0))


def _refused(error: LarreyError, *, is_json: bool) -> int:
    sys.stderr.write(f"larrey-site: {error}\n")
    if is_json:
        said = {"code": error.code, "message": error.message, "next_step": error.next_step}
        sys.stdout.write(json.dumps({"error": said}) + "\n")
    return error.exit_status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the reference page of the command is made from it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("LARREY_SITE_CONFIG", "site.toml")),
        help="the site's file (default: ./site.toml or LARREY_SITE_CONFIG)",
    )
    common.add_argument("--json", action="store_true", help="print data as JSON")
    parser = argparse.ArgumentParser(
        prog="larrey-site",
        description="The hospital's node: joins studies, keeps data, budget and proofs here.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build = Build(parser, common)
    for subject in _SUBJECTS:
        subject.add(build)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
