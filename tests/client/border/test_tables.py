"""What the proofs look like to a person: names for keys, verbs for orders, columns under a head."""

from __future__ import annotations

import pytest

from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.commands.build import table
from larrey_client.consortium import Intake
from larrey_client.local import account, ask
from larrey_client.order_intake import OrderIntake
from larrey_client.settings import SiteSettings
from larrey_protocol.access_log import AccessLog
from larrey_protocol.decisions import Order
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.people import Person
from larrey_protocol.signed import sign
from larrey_protocol.study import Study
from tests.client.border.watched import WatchingPeer
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve
from tests.client.node.people import make_permit, make_roster
from tests.client.node.test_stops import order


@pytest.fixture
def running(agent: Agent, approve: Approve, pki: Pki, peer: WatchingPeer) -> Study:
    """Return a study that was answered once, then paused by ada of the roster."""
    ada = SigningKey.generate()
    person = Person(name="ada", role="lead", key=ada.public)
    study = approve(agent, STUDY)
    peer.request(peer.first_task(study))
    roster = sign(make_roster(pki.signing.public, person, version=2), pki.consortium)
    assert Intake(agent.node.store, pki.consortium.public).take([roster.to_bytes()], [])
    fields = {"study": study.digest, "verb": "pause", "person": "ada", "number": 7, "at": 1.0}
    paused = sign(Order.model_validate(fields), ada).to_bytes()
    OrderIntake(agent.node.store, "alpha").take([paused], agent.node.cases.dossier)
    permit = sign(make_permit(permit__reference="test/2"), ada).to_bytes()
    assert Intake(agent.node.store, pki.consortium.public).take([], [permit])
    return study


def said(settings: SiteSettings, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    path = settings.site.state.parent / "site.toml"
    assert main([*words, "--config", str(path)]) == 0
    return capsys.readouterr().out.splitlines()


def test_no_key_stands_in_the_trail_for_a_person(
    running: Study, settings: SiteSettings, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(settings, capsys, "audit", "query")
    assert not any("ed25519:" in line for line in lines)
    assert lines[-1].split()[3:5] == ["ada", "permit-received"]
    (proposed,) = (line for line in lines if "study-proposed" in line)
    assert fingerprint(pki.consortium.public) in proposed
    assert len(said(settings, capsys, "audit", "query", "--actor", pki.consortium.public)) > 1


def test_an_order_received_says_what_was_ordered(
    running: Study, settings: SiteSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(settings, capsys, "audit", "query", "--action", "order-received")
    assert "order-received pause" in lines[1]


@pytest.mark.parametrize("words", [("audit", "query"), ("audit", "access"), ("egress",)])
def test_columns_stand_under_their_names(
    running: Study,
    settings: SiteSettings,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    said(settings, capsys, "audit", "verify")
    head, *rows = said(settings, capsys, *words)
    start = head.index("TIME(UTC)")
    for row in rows:
        if "bytes left" not in row:
            assert row[start : start + 2] == "20"
            assert row[start + 19 : start + 21] == "  "


def test_a_table_is_as_wide_as_its_cells_and_numbers_stand_to_the_right() -> None:
    assert table("N NAME", [(7, "a"), (1000, "bb")]) == "   N  NAME\n   7  a\n1000  bb"
    assert table("N NAME", []) == "N  NAME"


def test_the_access_log_names_who_signed_and_else_the_account(
    agent: Agent, running: Study, pki: Pki, settings: SiteSettings
) -> None:
    state = settings.site.state
    ask(state, "halt")
    resume = order(agent, pki, "resume")
    ask(state, "resume", signed=resume)
    ask(state, "status", signed=resume)  # takes no signature, so that it is nobody's
    rows = AccessLog(state).rows()[-3:]
    assert [(row["verb"], row["person"]) for row in rows] == [
        ("halt", ""),
        ("resume", "ines"),
        ("status", ""),
    ]
    assert {row["actor"] for row in rows} == {account()}


@pytest.mark.parametrize("command", ["study decide", "policy sign", "permit countersign"])
def test_what_was_refused_is_put_down_to_the_account(
    agent: Agent, running: Study, pki: Pki, settings: SiteSettings, command: str
) -> None:
    state = settings.site.state
    with pytest.raises(LarreyError):
        ask(state, command, signed=order(agent, pki, "resume"))
    row = AccessLog(state).rows()[-1]
    assert (row["verb"], row["person"]) == (command, "")
    assert row["code"] != "ok"


def test_an_approval_is_put_down_to_the_person_who_signed_it(
    agent: Agent, lawful: Approve, pki: Pki, settings: SiteSettings
) -> None:
    study = lawful(agent, STUDY)
    signed = pki.people.approval(agent, study, pki.people.dpo).to_bytes().decode()
    ask(settings.site.state, "study decide", signed=signed)
    assert AccessLog(settings.site.state).rows()[-1]["person"] == "dora"
