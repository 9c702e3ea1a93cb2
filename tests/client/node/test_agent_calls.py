"""A node lets a listed standard app answer the other calls of a round, and pays once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.cost import app_digest
from larrey_client.explain import explain_study
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.task import Task
from larrey_client.views import study_view, verify_view
from larrey_privacy.ledger import Hold
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout, phase_layout
from larrey_protocol.signed import Receipt, Signed, open_signed
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.client.node.conftest import Pki
from tests.client.node.peer import Peer
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

Approve = Callable[[Agent, Study], Study]
MODULE = "tests.client.training.apps.standard_apps:judges"
POLICY = f"""
allow_without_dp = ["heart"]
[[policy.apps]]
name = "judge"
module = "{MODULE}"
digest = "{app_digest(MODULE)}"
unaccounted = true
metrics = true
"""
STUDY = make_study(
    privacy={"mechanism": "none", "max_update_norm": 10.0},
    training__app="judge",
    training__calls=["train", "evaluate", "query"],
    training__metrics=["loss", "accuracy"],
    training__spare_rounds=0,
)


@pytest.fixture
def settings(site_file: Path, pki: Pki) -> SiteSettings:
    site_file.write_text(site_file.read_text() + POLICY)
    return pki.people.sign_charter(load_settings(site_file))


def held(agent: Agent) -> Hold:
    with agent.node.store.reading():
        hold = agent.node.store.ledger.held("heart", STUDY.digest)
    assert hold is not None
    return hold


def calls_of(task: Task) -> list[Task]:
    return [replace(task, phase=phase) for phase in STUDY.file.training.calls]


def actions(agent: Agent) -> list[str]:
    with agent.node.store.reading() as records:
        return [record.action for record in records.audit()]


def test_a_round_is_paid_once_and_every_call_is_answered_and_signed_for(
    agent: Agent, peer: Peer, approve: Approve, pki: Pki, trainer: SmallTrainer
) -> None:
    for task in calls_of(peer.first_task(approve(agent, STUDY))):
        given = peer.request(task)
        receipt = open_signed(Signed.from_bytes(given.receipt), Receipt, pki.signing.public)
        assert (receipt.phase, receipt.update) == (task.phase, given.fields["update"])
        assert len(peer.uploads[receipt.update]) == phase_layout(STUDY, task.phase).nbytes
        assert receipt.update_bytes == phase_layout(STUDY, task.phase).nbytes
    assert held(agent).rounds_used == 1
    assert actions(agent)[-4:] == [
        "round-reserved",
        "update-released",
        "metrics-released",
        "metrics-released",
    ]
    assert [wish.phase for wish in trainer.trained] == ["train", "evaluate", "query"]
    assert verify_view(agent.node.store.records.connection, pki.signing.public)["receipts"] == 3


def test_a_later_call_makes_one_durable_commit(agent: Agent, peer: Peer, approve: Approve) -> None:
    train, evaluate, _ = calls_of(peer.first_task(approve(agent, STUDY)))
    statements: list[str] = []
    peer.request(train)
    agent.node.store.records.connection.set_trace_callback(statements.append)
    peer.request(evaluate)
    agent.node.store.records.connection.set_trace_callback(None)
    assert statements.count("COMMIT") == 1


def test_a_repeated_call_gets_the_stored_answer_of_its_own_phase(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    tasks = calls_of(peer.first_task(approve(agent, STUDY)))
    first = [peer.request(task).fields["update"] for task in tasks]
    assert [peer.request(task, attempt=2).fields["update"] for task in tasks] == first
    assert len(trainer.trained) == 3


def test_the_next_round_settles_the_one_before_and_drops_all_its_answers(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    approve(agent, STUDY)
    for number in (1, 2):
        for task in calls_of(peer.first_task(STUDY, number)):
            assert peer.request(task).fields["code"] == ""
    assert [r.is_settled for r in held(agent).reservations] == [True, False]
    assert len(list(agent.node.store.spool.iterdir())) == 3


def test_a_call_that_failed_is_tried_again_without_paying_again(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    train, evaluate, _ = calls_of(peer.first_task(approve(agent, STUDY)))
    peer.request(train)
    trainer.fail = LarreyError("app-failed", "no such handler")
    assert peer.request(evaluate).fields["code"] == "app-failed"
    trainer.fail = None
    assert peer.request(evaluate, attempt=2).fields["code"] == ""
    assert held(agent).rounds_used == 1


def test_nothing_is_told_about_a_model_that_was_not_trained_here(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    _, evaluate, _ = calls_of(peer.first_task(approve(agent, STUDY)))
    assert peer.request(evaluate).fields["code"] == "phase-too-early"
    assert (held(agent).rounds_used, trainer.trained) == (0, [])


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([np.nan, 0.5], "update-not-finite"),
        ([11.0, 0.5], "update-over-norm"),
        ([0.5], "update-wrong-tensors"),
    ],
)
def test_metrics_pass_the_border_s_check_too(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer,
    values: list[float], code: str,
) -> None:  # fmt: skip
    train, evaluate, _ = calls_of(peer.first_task(approve(agent, STUDY)))
    peer.request(train)
    names = STUDY.file.training.metrics[: len(values)]
    layout = replace(phase_layout(STUDY, "evaluate"), entries=tuple((name, (1,)) for name in names))
    trainer.make = lambda _: pack(layout, np.array(values, np.float32))
    given = peer.request(evaluate)
    assert (given.fields["code"], given.fields["update"]) == (code, "")


def test_who_signs_a_study_without_privacy_is_warned_as_they_sign(
    agent: Agent, lawful: Approve, pki: Pki, settings: SiteSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    lawful(agent, STUDY)
    folder = settings.identity.key.parent
    pki.people.it.save(folder / "it.key")
    words = ("study", "approve", STUDY.digest, "--key", str(folder / "it.key"))
    assert main([*words, "--config", str(folder / "site.toml")]) == 0
    assert "WARNING: this study has NO differential privacy" in capsys.readouterr().err


def test_the_person_who_decides_reads_what_the_calls_tell(
    agent: Agent, approve: Approve, settings: SiteSettings
) -> None:
    approve(agent, STUDY)
    view = study_view(agent.node.store.records.connection, settings, STUDY.digest)
    assert view["leaves"]["metrics"] == ["loss", "accuracy"]
    text = explain_study(view)
    assert "the exact numbers loss, accuracy, as its evaluate and query compute" in text
    assert "no count" not in text


def test_an_encoded_update_leaves_in_its_own_size_and_no_other_form_does(
    agent: Agent, peer: Peer, approve: Approve, pki: Pki, trainer: SmallTrainer
) -> None:
    small = make_study(training__encoding="int8")
    approve(agent, small)
    given = peer.request(peer.first_task(small, 1))
    nbytes = phase_layout(small, "train").nbytes
    receipt = open_signed(Signed.from_bytes(given.receipt), Receipt, pki.signing.public)
    assert receipt.update_bytes == len(peer.uploads[given.fields["update"]]) == nbytes
    trainer.make = lambda study: pack(model_layout(study), np.zeros(5, np.float32))
    wrong = peer.request(peer.first_task(small, 2))
    assert wrong.fields["code"] in {"update-too-large", "update-wrong-tensors"}
    assert len(peer.uploads) == 1
