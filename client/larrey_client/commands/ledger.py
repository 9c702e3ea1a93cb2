"""`larrey-site ledger`: what each dataset's budget is used for."""

from __future__ import annotations

import argparse

from larrey_client.commands.build import Build, Json, read
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the command."""
    build.command("ledger", "what each dataset's budget is used for", _ledger, _tell)


def _ledger(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import views

    return read(settings, "ledger", lambda connection: views.ledger_view(connection, settings))


def _tell(value: Json) -> str:
    from larrey_client.explain import explain_ledger

    return explain_ledger(value)
