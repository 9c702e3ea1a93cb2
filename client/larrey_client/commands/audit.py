"""`larrey-site audit …`: the site's own proofs."""

from __future__ import annotations

import argparse
import sqlite3

from larrey_client.commands.build import Build, Json, read
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command("audit verify", "check ledger, audit trail and receipts", _verify)


def _verify(settings: SiteSettings, _: argparse.Namespace) -> Json:
    from larrey_client import views
    from larrey_protocol.keys import SigningKey

    def offline(connection: sqlite3.Connection) -> Json:
        key = SigningKey.load(settings.identity.signing_key).public
        return views.verify_view(connection, key)

    return read(settings, "audit verify", offline)
