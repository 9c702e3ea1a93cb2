"""A listed app is held to its digest at each request, not only at the first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.cost import app_digest
from larrey_client.settings import SiteSettings, load_settings
from tests.client.node.conftest import Pki
from tests.client.node.facts import Approve
from tests.client.node.peer import Peer
from tests.protocol.samples import study as make_study

POLICY = """
allow_without_dp = ["heart"]
[[policy.apps]]
name = "listed"
module = "listed_app_of_a_test:app"
digest = "{digest}"
unaccounted = true
"""
STUDY = make_study(privacy={"mechanism": "none", "max_update_norm": 10.0}, training__app="listed")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """Give the app's source file, in a folder from which Python imports."""
    folder = tmp_path / "apps"
    folder.mkdir()
    path = folder / "listed_app_of_a_test.py"
    path.write_text("app = None\n")
    sys.path.insert(0, str(folder))
    yield path
    sys.path.remove(str(folder))


@pytest.fixture
def settings(site_file: Path, pki: Pki, source: Path) -> SiteSettings:
    policy = POLICY.format(digest=app_digest("listed_app_of_a_test:app"))
    site_file.write_text(site_file.read_text() + policy)
    return pki.people.sign_charter(load_settings(site_file))


def test_an_app_that_is_replaced_while_the_node_runs_is_refused(
    agent: Agent, peer: Peer, approve: Approve, source: Path
) -> None:
    approve(agent, STUDY)
    assert peer.request(peer.first_task(STUDY)).fields["code"] == ""
    source.write_text("app = 'another'\n")
    assert peer.request(peer.first_task(STUDY, 2)).fields["code"] == "app-digest-differs"
    source.write_text("app = None\n")
    assert peer.request(peer.first_task(STUDY, 2)).fields["code"] == ""
