"""`larrey-site data extract`: ask the hospital's database for a dataset's rows, now."""

from __future__ import annotations

import argparse

from larrey_client.commands.build import Build, Json
from larrey_client.settings import SiteSettings
from larrey_protocol.errors import UsageError

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the command."""
    text = "ask the database for a dataset's rows and keep them as its snapshot"
    command = build.command(
        "data extract", text, _extract, _tell, example="warehouse", is_direct=True
    )
    command.add_argument("dataset", help="name of a dataset whose source is a query")


def _extract(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.extract.taking import take

    dataset = settings.dataset(options.dataset)
    if dataset is None:
        names = ", ".join(known.name for known in settings.datasets)
        raise UsageError("dataset-unknown", f"no dataset '{options.dataset}'", f"It has: {names}.")
    taken = take(settings, dataset)
    return {
        "dataset": dataset.name,
        "snapshot": str(taken.path),
        "rows": taken.rows,
        "isolation": {
            "stands": list(taken.isolation.stands),
            "missing": taken.isolation.missing,
        },
    }


def _tell(value: Json) -> str:
    from larrey_client.explain import explain_isolation

    head = f"{value['dataset']}: {value['rows']} rows in {value['snapshot']}"
    return "\n".join([head, *explain_isolation(value["isolation"])])
