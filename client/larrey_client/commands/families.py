"""`larrey-site data add`: place a dataset in a cohort family, with the officer's key."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from larrey_client.commands.build import Build, Json, ask
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the command."""
    command = build.command(
        "data add",
        "give a dataset its budget, shared with every dataset that has patients of it",
        _add,
        _tell,
        example="heart --key dpo.key",
    )
    command.add_argument("dataset", help="name in site.toml")
    command.add_argument(
        "--key", type=Path, required=True, help="file with the data protection officer's own key"
    )


def _add(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.way_out import load_officer
    from larrey_protocol.decisions import Registration
    from larrey_protocol.signed import sign

    officer = load_officer(settings, options.key)
    offered = ask(settings, "data scan", dataset=options.dataset)
    count = offered.pop("count")
    document = Registration(**offered, person=officer.person.name, at=time.time())
    signed = sign(document, officer.key).to_bytes().decode()
    return ask(settings, "data add", signed=signed) | {"patients": count}


def _tell(value: Json) -> str:
    shared = "shares the budget of" if value["is_shared"] else "has a budget of its own:"
    return f"{value['dataset']} ({value['patients']} patients) {shared} family {value['family']}."
