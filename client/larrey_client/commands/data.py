"""`larrey-site data …`: the site's datasets, and whether they meet a contract."""

from __future__ import annotations

import argparse
import datetime as dt
import time

from larrey_client.commands.build import Build, Json
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command(
        "data list",
        "the datasets of site.toml and their last checks",
        _list,
        _tell_list,
        is_direct=True,
    )
    check = build.command(
        "data check",
        "whether a dataset meets a study's contract; nothing leaves",
        _check,
        _tell_check,
        example="heart",
        is_direct=True,
    )
    check.add_argument("reference", metavar="STUDY", help="name or digest, or a contract.toml")
    check.add_argument("--dataset", help="which dataset, if this site has several")


def _list(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client.datasets import list_datasets

    return list_datasets(settings)


def _check(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.datasets import check_dataset

    report = check_dataset(settings, options.reference, options.dataset, time.time())
    options.exit_status = 0 if report["is_met"] else 1
    return report


def _tell_list(value: Json) -> str:
    lines = [f"{'DATASET':16} {'SOURCE':8} {'UNIT':16} {'FAMILY':16} {'FILE':8} PLACE"]
    for dataset in value:
        there = "there" if dataset["is_there"] else "missing"
        unit, family = dataset["unit"] or "-", dataset["family"] or "-"
        lines.append(
            f"{dataset['name']:16} {dataset['source']:8} {unit:16} {family:16} {there:8}"
            f" {dataset['place']}"
        )
        for contract, result in sorted(dataset["checks"].items()):
            at = dt.datetime.fromtimestamp(result["at"], tz=dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
            outcome = "fails " + ", ".join(result["failed"]) if result["failed"] else "meets it"
            lines.append(f"  {contract}: {outcome} ({at})")
    return "\n".join(lines)


def _tell_check(value: Json) -> str:
    counts = ", ".join(f"{band} {name.replace('_', ' ')}" for name, band in value["counts"].items())
    outcome = "meets" if value["is_met"] else "does not meet"
    lines = [f"Dataset '{value['dataset']}' {outcome} the contract of {value['contract']}.", counts]
    for entry in value["rules"]:
        lines.append(f"  {'FAIL' if entry['failures'] else 'pass'}  {entry['rule']}")
        lines += [f"        {failure}" for failure in entry["failures"]]
    return "\n".join(lines)
