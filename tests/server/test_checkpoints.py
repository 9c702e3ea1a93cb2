"""A checkpoint that is lost or altered is made again from its round's updates, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from larrey_protocol.errors import IntegrityError
from larrey_server.aggregator import Aggregator
from tests.server.round_play import order
from tests.server.study_bench import SITES, Bench, certificate, make_study, oracle

_ROUND = 2 * len(SITES) + 1  # messages of a round: answers, checks, the model


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x40
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def checkpoint(bench: Bench, name: str) -> Path:
    (folder,) = (bench.folder / "studies").iterdir()
    return folder / name


def played(bench: Bench, rounds: int) -> Bench:
    """Return a bench whose study has applied so many rounds."""
    bench.launch()
    bench.play(steps=rounds * _ROUND)
    assert bench.run.state.applied == rounds
    return bench


def restart_and_replay(bench: Bench) -> None:
    bench.kill_and_restart()
    bench.work()


@pytest.mark.parametrize("harm", [flip, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", ["round-0002.safetensors", "round-0002.state"])
def test_a_harmed_checkpoint_is_made_again_and_the_model_has_the_same_bits(
    bench: Bench, name: str, harm: Callable[[Path], None]
) -> None:
    path = checkpoint(played(bench, 2), name)
    before = path.read_bytes()
    harm(path)
    bench.kill_and_restart()
    assert not bench.errands.waiting  # nothing is sent before the model is there
    bench.work()
    assert path.read_bytes() == before
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"
    assert bench.model() == oracle(bench.study)


def test_that_a_checkpoint_was_made_again_is_on_the_trail_told_and_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    flip(checkpoint(played(bench, 1), "round-0001.safetensors"))
    bench.kill_and_restart()
    bench.work()
    record = next(r for r in bench.audit() if r.action == "checkpoint-rebuilt")
    assert (record.round, record.subject) == (1, bench.run.state.model)
    assert [e["round"] for e in bench.events if e["event"] == "checkpoint-rebuilt"] == [1]
    assert "checkpoint rebuilt" in caplog.text


def test_a_harmed_starting_point_is_made_again(bench: Bench) -> None:
    flip(checkpoint(played(bench, 0), "round-0000.safetensors"))
    bench.kill_and_restart()
    bench.play()
    assert bench.model() == oracle(bench.study)


def test_sites_fetch_the_sound_model_after_a_harm_that_the_spool_shared(bench: Bench) -> None:
    path = checkpoint(played(bench, 1), "round-0001.safetensors")
    sound, spooled = path.read_bytes(), bench.spool.path(bench.run.state.model)
    assert path.samefile(spooled)
    with path.open("r+b") as file:  # in place, as a failing disk does
        file.write(b"\xff" * 8)
    bench.kill_and_restart()
    bench.work()
    assert spooled.read_bytes() == sound


@pytest.mark.parametrize("lost", ["model", "update", "state"])
def test_what_cannot_be_made_again_stands_still_until_it_is_restored(
    bench: Bench, lost: str
) -> None:
    path = checkpoint(played(bench, 2), "round-0002.safetensors")
    before = path.read_bytes()
    path.unlink()
    (row, *_) = (r for r in bench.journal.contributions(bench.study.digest) if r.cell.round == 2)
    flip(
        {
            "model": checkpoint(bench, "round-0001.safetensors"),
            "state": checkpoint(bench, "round-0001.state"),
            "update": bench.spool.path(row.cell.update),
        }[lost]
    )
    with pytest.raises(IntegrityError, match="checkpoint-broken"):
        restart_and_replay(bench)
    assert not path.exists()
    assert not bench.errands.waiting
    path.write_bytes(before)
    bench.run.go_on()
    bench.connect()
    if lost != "model":
        bench.play()
        assert bench.model() == oracle(bench.study)


@pytest.mark.parametrize("verb", ["close", "halt"])
def test_a_study_whose_checkpoint_is_broken_can_still_be_stopped(bench: Bench, verb: str) -> None:
    path = checkpoint(played(bench, 2), "round-0002.safetensors")
    flip(path)
    flip(checkpoint(bench, "round-0001.safetensors"))
    with pytest.raises(IntegrityError, match="checkpoint-broken"):
        restart_and_replay(bench)
    bench.run.take(order(verb, 2, bench.now))
    with contextlib.suppress(IntegrityError):  # halted, it still lacks its model
        bench.run.go_on()
    assert bench.run.state.status == {"close": "ended", "halt": "halted"}[verb]
    assert bench.run.is_over == (verb == "close")
    assert not bench.errands.waiting
    if verb == "close":
        assert certificate(bench).outcome == "PARTIAL"


def test_a_checkpoint_that_goes_while_the_study_runs_is_made_again(bench: Bench) -> None:
    path = checkpoint(played(bench, 1), "round-0001.safetensors")
    path.unlink()
    bench.play(steps=_ROUND - 1)
    with pytest.raises(IntegrityError, match="aggregation-failed"):
        bench.work()
    bench.run.go_on()
    bench.work()
    bench.play()
    assert bench.model() == oracle(bench.study)


def test_the_spool_holds_two_rounds_at_most_and_none_after_the_end(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    bench = Bench(tmp_path, make_study(rounds=8), aggregator)
    bench.launch()
    sizes, states = [], []
    for _ in range(8 * _ROUND):
        bench.play(steps=1)
        sizes.append(len(list(bench.spool.folder.iterdir())))
        states.append(len(list((tmp_path / "studies").rglob("*.state"))))
    assert max(sizes) == 2 * len(SITES) + 1  # and the model
    assert max(states) <= 3  # one of them is being made
    assert list(bench.spool.folder.iterdir()) == []
    bench.journal.close()


def test_a_restart_keeps_the_updates_of_the_last_applied_round(bench: Bench) -> None:
    played(bench, 2)
    bench.kill_and_restart()
    bench.spool.sweep(before=4e9)
    assert len(list(bench.spool.folder.iterdir())) == len(SITES) + 1
