"""Three studies of the same sites at once: what befalls one changes no byte of the others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.study import Study
from larrey_server.round_values import TaskKey
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, SitePeer, Work, running, until

_SITES = ("alpha", "beta", "gamma")
_ROUNDS = 3
_SEATS = [{"name": name, "patients": 100} for name in _SITES]
STUDIES = {
    name: study(study__name=name, training__rounds=_ROUNDS, sites=_SEATS)
    for name in ("first", "second", "third")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder.make(tmp_path_factory.mktemp("federation"), _SITES)


@pytest.fixture(scope="module")
def alone(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the last model of each study in a coordinator of its own."""
    found = {}
    for name in STUDIES:
        with coordinator(folder, tmp_path_factory.mktemp(name)) as federation:
            found |= run(federation, [name])
    return found


@contextmanager
def coordinator(folder: Folder, state: Path) -> Iterator[Federation]:
    yield from running(folder, state)


def honest(site: SitePeer, work: Work) -> None:
    facts = work.fields
    text = f"{site.name} {facts['study']} {facts['round']}"
    seed = int(digest_bytes(text.encode())[7:15], 16)
    site.answer(work, next(s for s in STUDIES.values() if s.digest == facts["study"]), seed)


Answer = Callable[[SitePeer, Work], None]


class Nodes:
    """A thread a site that answers whatever comes, until all studies ended."""

    def __init__(self, federation: Federation, answer: Answer) -> None:
        self._federation, self._answer = federation, answer
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._serve, args=(name,)) for name in _SITES]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        coordinator = self._federation.hub.coordinator
        coordinator.book.changed(_SITES)  # so that no poll waits any longer
        coordinator.wake(_SITES)
        for thread in self._threads:
            thread.join()

    def _serve(self, name: str) -> None:
        with self._federation.site(name) as site:
            while not self._over.is_set():
                if (work := site.take(30)) is not None:
                    self._answer(site, work)


def run(
    federation: Federation,
    names: list[str],
    disturb: Callable[[Federation], None] = lambda _: None,
    answer: Answer = honest,
) -> dict[str, str]:
    """Return the last model of each study."""
    for name in names:
        digest = federation.propose(STUDIES[name])
        for site in _SITES:
            with federation.site(site) as peer:
                assert peer.approve(digest).recorded
    for name in names:
        federation.launch(STUDIES[name].digest)
    nodes = Nodes(federation, answer)
    try:
        disturb(federation)
        until(lambda: all(state(federation, STUDIES[name]) == "ended" for name in names), 30)
    finally:
        nodes.end()
    progress = federation.hub.coordinator.progress
    return {name: progress(STUDIES[name])["model"] for name in names}


def state(federation: Federation, one: Study) -> str:
    return str(federation.hub.coordinator.progress(one)["state"])


def worker_killed(federation: Federation) -> None:
    aggregator = federation.hub.coordinator._aggregator
    for _ in range(3):
        pid = aggregator.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: aggregator.pid != pid or done(federation))  # type: ignore[misc]


def done(federation: Federation) -> bool:
    return all(state(federation, one) == "ended" for one in STUDIES.values())


def first_paused_and_halted(federation: Federation) -> None:
    conductor = federation.hub.coordinator.conductor(STUDIES["first"].digest)
    assert conductor is not None
    for verb, number in (("pause", 10), ("resume", 11), ("halt", 12)):
        conductor.order(verb, number, by="ada", on=0.0)  # type: ignore[arg-type]
    until(lambda: state(federation, STUDIES["second"]) == "ended", 30)
    conductor.order("resume", 13, by="ada", on=0.0)


def first_flooded(federation: Federation) -> None:
    one = STUDIES["first"]
    conductor = federation.hub.coordinator.conductor(one.digest)
    assert conductor is not None
    for number in range(2000):
        key = TaskKey(one.digest, number % 5, "train", 1, f"sha256:{number:064x}")
        update = f"sha256:{number:064x}"
        conductor.reply("alpha", key, update=update, receipt=None, code="")


@pytest.mark.parametrize("disturb", [worker_killed, first_paused_and_halted, first_flooded])
def test_what_befalls_one_study_changes_no_byte_of_any(
    folder: Folder, tmp_path: Path, alone: dict[str, str], disturb: Callable[[Federation], None]
) -> None:
    with coordinator(folder, tmp_path) as federation:
        assert run(federation, list(STUDIES), disturb) == alone


def test_malformed_answers_to_one_study_change_no_byte_of_the_others(
    folder: Folder, tmp_path: Path, alone: dict[str, str]
) -> None:
    def bad_to_first(site: SitePeer, work: Work) -> None:
        if site.name != "gamma" or work.fields["study"] != STUDIES["first"].digest:
            honest(site, work)
            return
        for _ in range(5):
            site.give(work, "sha256:" + "0" * 64, receipt=b"{}")

    with coordinator(folder, tmp_path) as federation:
        found = run(federation, list(STUDIES), answer=bad_to_first)
    assert (found["second"], found["third"]) == (alone["second"], alone["third"])
    assert found["first"] != alone["first"]
