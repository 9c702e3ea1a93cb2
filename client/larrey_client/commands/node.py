"""`larrey-site run` and `larrey-site status`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time

from larrey_client.commands.build import Build, Json, ask
from larrey_client.settings import SiteSettings
from larrey_protocol.json_log import formatter

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the commands."""
    build.command("run", "run the node until it is stopped", _run)
    build.command("status", "how the running node is", _status, _tell_status)


def _run(settings: SiteSettings, options: argparse.Namespace) -> None:
    from larrey_client.doctor import look_at_start
    from larrey_client.run import run
    from larrey_protocol.checkup import log_findings

    lines = logging.StreamHandler()
    lines.setFormatter(formatter())
    logging.basicConfig(handlers=[lines], level=os.environ.get("LARREY_LOG_LEVEL", "INFO"))
    log_findings(look_at_start(settings, time.time()), logging.getLogger("larrey_client.doctor"))
    site, address = settings.site.name, settings.coordinator.address

    def ready() -> None:
        facts = {"ready": True, "site": site, "coordinator": address, "pid": os.getpid()}
        line = f"larrey-site {site}: ready, coordinator {address}"
        sys.stdout.write((json.dumps(facts) if options.json else line) + "\n")
        sys.stdout.flush()

    run(settings, ready)


def _status(settings: SiteSettings, _: argparse.Namespace) -> Json:
    return ask(settings, "status")


def _tell_status(value: Json) -> str:
    from larrey_client.explain import explain_status

    return explain_status(value)
