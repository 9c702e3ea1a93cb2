"""What a receipt claims: by which software, launched by whom, and what of it no epsilon bounds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.cost import app_digest
from larrey_client.explain import explain_study
from larrey_client.ledger_pages import explain_ledger, ledger_view
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.software import PACKAGES, digest_of_sources, software_digest
from larrey_client.store import open_readonly
from larrey_client.trail import Asked, query
from larrey_client.views import study_view
from larrey_protocol.keys import fingerprint
from larrey_protocol.study import Study
from tests.client.border.watched import WatchingPeer
from tests.client.node.conftest import Pki, propose
from tests.client.node.facts import receipt_of
from tests.client.node.peer import wait_until
from tests.client.node.test_agent_calls import MODULE
from tests.client.node.test_agent_calls import STUDY as JUDGED
from tests.protocol.samples import study as make_study

Approve = Callable[[Agent, Study], Study]
PRIVATE = make_study(study__name="private")
RULE = f"""
[[policy.apps]]
name = "judge"
module = "{MODULE}"
digest = "{app_digest(MODULE)}"
unaccounted = true
metrics = true
"""


@pytest.fixture
def written() -> str:
    """Return what the policy says in writing about work without privacy."""
    return 'allow_without_dp = ["heart"]'


@pytest.fixture
def settings(site_file: Path, pki: Pki, written: str) -> SiteSettings:
    site_file.write_text(site_file.read_text() + written + RULE)
    return pki.people.sign_charter(load_settings(site_file))


def _sources(folder: Path, text: str = "x = 1\n") -> dict[str, Path]:
    (folder / "one" / "deep").mkdir(parents=True)
    (folder / "one" / "deep" / "a.py").write_text(text)
    (folder / "one" / "notes.txt").write_text(str(folder))
    return {"one": folder / "one"}


def test_the_same_sources_have_one_digest_wherever_they_lie(tmp_path: Path) -> None:
    here, there, other = (_sources(tmp_path / name) for name in ("a", "b", "c"))
    (other["one"] / "deep" / "a.py").write_text("x = 2\n")
    assert digest_of_sources(here) == digest_of_sources(there) != digest_of_sources(other)
    (there["one"] / "deep" / "a.py").rename(there["one"] / "a.py")
    assert digest_of_sources(here) != digest_of_sources(there)


def test_a_receipt_names_the_software_and_who_launched_it(
    agent: Agent, peer: WatchingPeer, approve: Approve, pki: Pki, settings: SiteSettings
) -> None:
    given = peer.request(peer.first_task(approve(agent, PRIVATE)))
    receipt = receipt_of(given, pki)
    assert (receipt.software, receipt.actor) == (software_digest(), pki.consortium.public)
    assert re.fullmatch("sha256:[0-9a-f]{64}", receipt.software)
    assert "larrey_client" in PACKAGES
    connection = open_readonly(settings.site.state)
    (row,) = query(connection, Asked(action="update-released"))
    connection.close()
    assert row["launcher"] == fingerprint(pki.consortium.public)
    assert row["software"] == receipt.software


def test_metrics_without_epsilon_are_on_record_for_ever_as_unbounded(
    agent: Agent, peer: WatchingPeer, approve: Approve, pki: Pki, settings: SiteSettings
) -> None:
    train = peer.first_task(approve(agent, JUDGED))
    peer.request(train)
    told = receipt_of(peer.request(replace(train, phase="evaluate")), pki)
    assert (told.phase, told.accountant, told.epsilon) == ("evaluate", "none", -1.0)
    assert told.flags == ("unbounded",)
    (view,) = ledger_view(agent.node.store.records.connection, settings)
    assert view["has_unbounded"]
    assert "some work here has no epsilon at all" in explain_ledger([view])
    approve(agent, PRIVATE)
    later = receipt_of(peer.request(peer.first_task(PRIVATE)), pki)
    assert (later.accountant, later.flags) == ("pld", ("unbounded",))


def is_decided(agent: Agent, study: Study) -> bool:
    with agent.node.store.reading() as records:
        return records.decision(study.digest) is not None


@pytest.mark.parametrize("written", [""])
def test_a_rule_that_lets_metrics_leave_does_not_let_them_leave_without_privacy_in_writing(
    agent: Agent, peer: WatchingPeer, pki: Pki
) -> None:
    propose(peer, pki, agent, JUDGED)
    wait_until(lambda: is_decided(agent, JUDGED))
    with agent.node.store.reading() as records:
        decision = records.decision(JUDGED.digest)
    assert decision is not None
    assert (decision.decision, decision.code) == ("refused", "mechanism-none")


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        (
            "en",
            ["!! WARNING: loss, accuracy: exact numbers", "'unbounded' on the dataset for ever"],
        ),
        ("fr", ["loss, accuracy : nombres exacts", "« unbounded » sur le jeu de données"]),
    ],
)
def test_who_approves_reads_what_leaves_without_epsilon_and_that_it_stays_on_record(
    agent: Agent, peer: WatchingPeer, pki: Pki, settings: SiteSettings, lang: str, words: list[str]
) -> None:
    propose(peer, pki, agent, JUDGED)
    view = study_view(agent.node.store.records.connection, settings, JUDGED.digest)
    text = explain_study(view, lang="fr" if lang == "fr" else "en")
    head = text[: text.index("\n\n")]
    assert all(word in head for word in words)
    propose(peer, pki, agent, PRIVATE)
    view = study_view(agent.node.store.records.connection, settings, PRIVATE.digest)
    assert "unbounded" not in explain_study(view)
