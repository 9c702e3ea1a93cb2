"""The coordinator's own watch over permits and silence: it goes on, and does not repeat itself."""

from __future__ import annotations

import shutil

import pytest

from larrey_protocol.canonical import short
from tests.protocol.samples import study
from tests.server.peers import Federation, until


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


def test_what_stalled_is_not_halted_again_and_again(federation: Federation) -> None:
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
    before = coordinator.journal.head()
    for _ in range(3):
        coordinator.halt(digest, "permit-expired")
    assert coordinator.journal.head() == before
