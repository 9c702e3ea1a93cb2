"""The coordinator's own watch over permits and silence: it goes on, and does not repeat itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from larrey_protocol.canonical import short
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, until


def launched(federation: Federation) -> str:
    digest = federation.propose(study())
    for name in ("alpha", "beta"):
        with federation.site(name) as site:
            assert site.approve(digest).recorded
    federation.launch(digest)
    return digest


def test_one_failure_does_not_end_the_watch(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    launched(federation)
    coordinator = federation.hub.coordinator
    database = coordinator.journal._connection
    database.execute("ALTER TABLE answers RENAME TO away")  # as if the disk failed for a moment
    until(lambda: "look failed" in caplog.text)
    database.execute("ALTER TABLE away RENAME TO answers")
    assert coordinator._watch.is_alive()


def stalled(federation: Federation) -> str:
    """Return a study that stands still: a file is in the way of its checkpoints."""
    digest = launched(federation)
    coordinator = federation.hub.coordinator
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        work = [(site, site.work()) for site in (alpha, beta)]
        for site, task in work[:1]:
            assert site.answer(task, study()).accepted
        shutil.rmtree(coordinator.state / "studies" / short(digest))
        (coordinator.state / "studies" / short(digest)).touch()  # in the way of what would mend it
        for site, task in work[1:]:
            assert site.fetch(str(task.fields["model"]))
            assert site.answer(task, study()).accepted
    conductor = coordinator.conductor(digest)
    assert conductor is not None
    until(lambda: bool(conductor.status()["stalled"]))
    return digest


def test_a_study_that_stands_still_is_halted_when_its_permit_ends_and_once(
    federation: Federation,
) -> None:
    digest = stalled(federation)
    coordinator = federation.hub.coordinator
    conductor = coordinator.conductor(digest)
    assert conductor is not None
    for _ in range(3):
        coordinator.halt(digest, "permit-expired")
    until(lambda: conductor.status()["stop"] == "halt")
    assert conductor.status()["stop_code"] == "permit-expired"
    before = coordinator.journal.head()
    coordinator.halt(digest, "permit-expired")
    assert conductor.settle(5)
    assert coordinator.journal.head() == before
    noted = [row.action for row in coordinator.journal.audit() if row.code == "permit-expired"]
    assert noted.count("study-halted") == 1


@pytest.mark.parametrize("verb", ["exclude", "withdraw"])
def test_what_a_halt_overtook_in_a_standstill_holds_after_a_kill(
    folder: Folder, tmp_path: Path, verb: str
) -> None:
    first = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    digest = stalled(first)
    with first.operator() as operator:
        operator.command(digest, verb, "beta", "it lies")
        operator.command(digest, "halt")
        assert operator.find(digest)["stop"] == "halt"
    first.hub.stop()  # as a kill: what waited is lost
    shown = {"exclude": "excluded", "withdraw": "declined"}[verb]
    kept = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    conductor = kept.hub.coordinator.conductor(digest)
    assert conductor is not None
    (kept.hub.coordinator.state / "studies" / short(digest)).unlink()
    until(lambda: conductor.status()["sites"][1]["state"] == shown, 20)
    assert conductor.status()["stop"] == "halt"
    kept.hub.stop()
