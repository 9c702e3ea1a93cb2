"""`larrey-site ledger …`: what budgets are used for, and what the officer alone may do to them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from larrey_client.commands.build import Build, Json, read
from larrey_client.settings import SiteSettings

__all__ = ["add"]

_KEY = "file with the data protection officer's own key"


def add(build: Build) -> None:
    """Add the commands."""
    ledger = build.command(
        "ledger", "what each dataset's budget is used for, by study and round", _ledger, _tell
    )
    ledger.add_argument("--csv", action="store_true", help="print one line a round, as CSV")
    adopt = build.command(
        "ledger adopt", "take what a lost tail of the ledger spent as spent", _adopt,
        example="--key dpo.key", is_direct=True,
    )  # fmt: skip
    adopt.add_argument(
        "--anchor", type=Path, help="file of anchors, one a line (default: those known here)"
    )
    split = build.command(
        "ledger split", "give a dataset of a family a budget of its own", _split,
        example="heart --into heart-trial --key dpo.key", is_direct=True,
    )  # fmt: skip
    split.add_argument("dataset", help="name in site.toml")
    split.add_argument("--into", required=True, help="name of the new family")
    reset = build.command(
        "ledger reset", "free a whole budget again; shown in every later receipt", _reset,
        example="heart --key dpo.key", is_direct=True,
    )  # fmt: skip
    reset.add_argument("family", help="name of the family")
    for command in (adopt, split, reset):
        command.add_argument("--key", type=Path, required=True, help=_KEY)


def _ledger(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.ledger_pages import ledger_table, ledger_view

    views = read(settings, "ledger", lambda connection: ledger_view(connection, settings))
    if not options.csv:
        return views
    sys.stdout.write(ledger_table(views))
    return None


def _adopt(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.way_out import adopt_lost

    return adopt_lost(settings, options.key, options.anchor)


def _split(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.way_out import split_family

    return split_family(settings, options.key, options.dataset, options.into)


def _reset(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.way_out import reset_family

    return reset_family(settings, options.key, options.family)


def _tell(value: Json) -> str:
    from larrey_client.ledger_pages import explain_ledger

    return explain_ledger(value)
