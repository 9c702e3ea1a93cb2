"""A whole study through the real port: sites of this test, everything else as shipped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Answer, Certificate, Proposal, open_signed, sign
from larrey_protocol.study import Study
from larrey_protocol.v1.larrey_pb2 import AnswerRequest, TakeRequest
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, running, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder.make(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def federation(folder: Folder, tmp_path: Path) -> Iterator[Federation]:
    yield from running(folder, tmp_path / "state")


def serve(federation: Federation, name: str, rounds: int, tiny: Study) -> None:
    """Answer every task of a study, as a site that never fails."""
    with federation.site(name) as site:
        for number in range(rounds):
            assert site.answer(site.work(), tiny, seed=hash((name, number)) % 2**32).accepted


def run_sites(federation: Federation, tiny: Study) -> None:
    rounds = tiny.file.training.rounds
    with ThreadPoolExecutor(len(tiny.file.sites)) as pool:
        list(pool.map(lambda name: serve(federation, name, rounds, tiny), tiny.file.site_names))


def approve_all(federation: Federation, tiny: Study) -> str:
    digest = federation.propose(tiny)
    for name in tiny.file.site_names:
        with federation.site(name) as site:
            assert site.approve(digest).recorded
    return digest


def test_a_study_runs_to_its_certificate(federation: Federation) -> None:
    tiny = study()
    digest = approve_all(federation, tiny)
    with federation.operator() as operator:
        operator.launch("tiny")
        watch = operator.watch(digest[7:19])
        first = next(watch)
        run_sites(federation, tiny)
        events = list(watch)
        certificate = open_signed(
            operator.certificate(digest), Certificate, federation.hub.coordinator.signer.public
        )
    assert first["rounds"] == 3
    assert events[-1]["event"] == "study-ended"
    assert (certificate.outcome, certificate.rounds_applied) == ("COMPLETE", 3)


def test_the_latest_model_is_the_certified_one(federation: Federation, tmp_path: Path) -> None:
    tiny = study(training__rounds=1)
    digest = approve_all(federation, tiny)
    with federation.operator() as operator:
        operator.launch(digest)
        run_sites(federation, tiny)
        until(lambda: operator.list()[0]["state"] == "ended")
        operator.model("tiny", -1, tmp_path / "model.safetensors")
        document = json.loads(operator.certificate("tiny").document)
    assert digest_bytes((tmp_path / "model.safetensors").read_bytes()) == document["model"]


def test_nothing_starts_below_the_quorum(federation: Federation) -> None:
    digest = federation.propose(study())
    with federation.site("alpha") as alpha, federation.operator() as operator:
        alpha.approve(digest)
        with pytest.raises(Refusal, match=r"no answer from beta.*not-enough-approvals"):
            operator.launch("tiny")


def test_a_refusing_site_is_named_with_its_code(federation: Federation) -> None:
    digest = federation.propose(study())
    with federation.site("alpha") as alpha, federation.operator() as operator:
        alpha.approve(digest, "refused", "noise-below-minimum")
        assert operator.list()[0]["refused"] == {"alpha": "noise-below-minimum"}
        with pytest.raises(Refusal, match=r"alpha refused \(noise-below-minimum\)"):
            operator.launch("tiny")


def test_a_study_is_launched_only_once(federation: Federation) -> None:
    approve_all(federation, study())
    with federation.operator() as operator:
        operator.launch("tiny")
        with pytest.raises(Refusal, match="already-launched"):
            operator.launch("tiny")


def test_a_study_with_an_impossible_epsilon_is_refused(federation: Federation) -> None:
    with federation.operator() as operator, pytest.raises(Refusal, match="epsilon-impossible"):
        operator.propose(study(privacy__epsilon=0.1))


def test_a_study_that_invites_a_stranger_is_refused(federation: Federation) -> None:
    stranger = study(sites=[{"name": "alpha", "patients": 9}, {"name": "gamma", "patients": 9}])
    with federation.operator() as operator, pytest.raises(Refusal, match="site-not-on-roster"):
        operator.propose(stranger)


def test_a_proposal_under_another_key_is_refused(federation: Federation) -> None:
    forged = sign(Proposal(study=study(), proposed_at=0.0), SigningKey.generate())
    with pytest.raises(IntegrityError, match="wrong-signer"):
        federation.hub.coordinator.propose(forged)


def test_a_running_study_goes_on_after_a_restart(folder: Folder, tmp_path: Path) -> None:
    tiny, state = study(training__rounds=1), tmp_path / "state"
    first = Federation(folder, Hub(folder.settings(state)))
    digest = approve_all(first, tiny)
    first.launch(digest)
    with first.site("alpha") as alpha:
        alpha.work()
    first.hub.stop()
    second = Federation(folder, Hub(folder.settings(state)))
    try:
        run_sites(second, tiny)
        with second.operator() as operator:
            until(lambda: operator.list()[0]["outcome"] == "COMPLETE")
    finally:
        second.hub.stop()


def test_stopping_takes_less_than_two_seconds_with_sites_waiting(
    folder: Folder, tmp_path: Path
) -> None:
    federation = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    digest = federation.propose(study())
    with federation.site("alpha") as alpha:
        alpha.take()
        waiting = alpha.exchange.Take.future(TakeRequest(studies_seen=alpha.seen))
        begun = time.monotonic()
        federation.hub.stop()
        assert time.monotonic() - begun < 2
        waiting.cancel()
    assert digest.startswith("sha256:")


def test_a_repeated_answer_is_recorded_once(federation: Federation) -> None:
    digest = federation.propose(study())
    journal = federation.hub.coordinator.journal
    with federation.site("alpha") as alpha:
        assert alpha.approve(digest).recorded
        head = journal.head()
        assert alpha.approve(digest).recorded
    assert journal.head() == head


def test_a_refusal_with_free_text_is_not_recorded(federation: Federation) -> None:
    digest = federation.propose(study())
    text = {"study": digest, "site": "alpha", "decision": "refused", "answered_at": 0.0}
    with federation.site("alpha") as alpha:
        answer = Answer.model_construct(**text, code="Mrs Miller's file is broken")
        reply = alpha.studies.Answer(AnswerRequest(answer=sign(answer, alpha.key).to_bytes()))
    assert (reply.recorded, reply.code) == (False, "malformed-document")
