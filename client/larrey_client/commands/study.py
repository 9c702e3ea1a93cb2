"""`larrey-site study …`: read what is proposed, decide about it."""

from __future__ import annotations

import argparse
import sqlite3

from larrey_client.commands.build import Build, Json, ask, read
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command("study list", "all studies proposed here", _studies, _tell_studies)
    show = build.command(
        "study show", "what a study asks, in plain words", _show, _tell_study, example="heart"
    )
    approve = build.command(
        "study approve", "allow a study on a dataset", _approve, example="heart"
    )
    refuse = build.command("study refuse", "say no to a study", _refuse, example="heart")
    for command in (show, approve, refuse):
        command.add_argument("study", help="name or digest")
    approve.add_argument("--dataset", help="which dataset, if this site has several")


def _studies(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import views

    return read(settings, "study list", views.studies_view)


def _show(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import views

    def offline(connection: sqlite3.Connection) -> Json:
        return views.study_view(connection, settings, options.study)

    return read(settings, "study show", offline, study=options.study)


def _approve(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return ask(settings, "study approve", study=options.study, dataset=options.dataset)


def _refuse(settings: SiteSettings, options: argparse.Namespace) -> Json:
    return ask(settings, "study refuse", study=options.study)


def _tell_studies(value: Json) -> str:
    from larrey_client.explain import explain_studies

    return explain_studies(value)


def _tell_study(value: Json) -> str:
    from larrey_client.explain import explain_study

    return explain_study(value)
