"""What a round leaves at the coordinator is counted, and is the same for the last as for the first.

A journal keeps what was signed: it grows by the receipts and one state a round, and by no more.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from larrey_server.aggregator import Aggregator
from tests.server.study_bench import SITES, Bench, make_study

_ROUNDS = 60
_WARM = 25  # paces are kept of the last 20 rounds
_PER_SITE_BYTES = 4096  # a receipt, its cell, its share of state and trail
_MESSAGES = 2 * len(SITES) + 1


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, aggregator: Aggregator) -> list[dict[str, int]]:
    """Return what lies there after each round of a long study."""
    bench = Bench(tmp_path_factory.mktemp("long"), make_study(rounds=_ROUNDS), aggregator)
    bench.launch()
    found = []
    for _ in range(_ROUNDS - 1):
        bench.play(steps=_MESSAGES)
        found.append(measured(bench))
    bench.journal.close()
    return found


def measured(bench: Bench) -> dict[str, int]:
    database = bench.journal._connection
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    return {
        "journal": pages * size,
        "wal": (bench.folder / "coordinator.db-wal").stat().st_size,
        "snapshot": len(json.dumps(bench.journal.snapshot(bench.study.digest))),
        "spool": files(bench.folder / "spool"),
        "models": files(bench.folder / "studies"),
        "held": len(bench.run._updates._held),
    }


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_a_state_does_not_grow_with_the_rounds(grown: list[dict[str, int]]) -> None:
    assert grown[-1]["snapshot"] <= grown[_WARM]["snapshot"] + 64  # numbers have more digits


def test_the_journal_grows_by_a_bounded_number_of_bytes_a_round_and_site(
    grown: list[dict[str, int]],
) -> None:
    early = (grown[_WARM]["journal"] - grown[0]["journal"]) / _WARM
    late = (grown[-1]["journal"] - grown[_WARM]["journal"]) / (len(grown) - 1 - _WARM)
    assert late <= early * 1.5
    assert late <= _PER_SITE_BYTES * len(SITES)


def test_the_write_ahead_log_is_written_back(grown: list[dict[str, int]]) -> None:
    assert max(one["wal"] for one in grown) < 5 << 20  # SQLite does so every 1000 pages


def test_spool_and_memory_hold_two_rounds_at_most(grown: list[dict[str, int]]) -> None:
    assert max(one["spool"] for one in grown) <= 2 * len(SITES) + 1
    assert max(one["held"] for one in grown) <= 2 * len(SITES)
    assert [one["models"] for one in grown][1:] == [2 + 2 + n for n in range(1, _ROUNDS - 1)]
