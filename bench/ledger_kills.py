"""Spent stays spent after kill -9 at any moment.

A real process reserves a round in the ledger, releases its work (one line in a side file, on the
disk before it goes on) and commits; it is killed without warning, opened again, killed again. After
each kill the chain must verify, every line released must be a reservation in it, and the debits
must pay for all of them: a kill may cost one reservation, never release one unpaid.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from larrey_privacy.exclusive import open_exclusive
from larrey_privacy.filter import make_filter
from larrey_privacy.ledger_store import Ledger
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import LarreyError

__all__ = ["KillReport", "begin", "is_paid", "kills"]

_FAMILY, _STUDY = "heart", "sha256:" + "5" * 64
_ROUND = Mechanism(5000.0, 1.0, 1, 14)
_ROUNDS = 20_000
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class KillReport:
    """What the kills left.

    Attributes:
        kills: processes killed.
        survived: kills after which the chain verified and held all released work.
        released: rounds whose work left a process.
        reserved: rounds that the ledger holds as spent, at most ``released + kills``.
        seconds: wall time.
    """

    kills: int
    survived: int
    released: int
    reserved: int
    seconds: float


def kills(n: int, seed: int = 1, folder: Path | None = None) -> KillReport:
    """Return what ``n`` kills at random moments left of one ledger.

    Raises:
        TimeoutError: a process did no work within 30 seconds.
    """
    began, chance = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        begin(place)
        survived = 0
        for number in range(1, n + 1):
            _kill_one(place, chance)
            survived += is_paid(place, kills_so_far=number)
        released = len(_released(place))
        with closing(open_exclusive(place / "site.db")) as connection:
            hold = Ledger.open(connection).held(_FAMILY, _STUDY)
            reserved = hold.rounds_used if hold else 0
    return KillReport(n, survived, released, reserved, time.monotonic() - began)


def begin(place: Path) -> None:
    """Make a ledger with a budget for twenty thousand rounds."""
    with closing(open_exclusive(place / "site.db")) as connection:
        ledger = Ledger.open(connection)
        connection.execute("BEGIN IMMEDIATE")
        ledger.register(_FAMILY, make_filter(8.0, 1e-5), "patient")
        ledger.hold(_FAMILY, _STUDY, _ROUND.over(_ROUNDS), _ROUNDS, spare_rounds=0)
        connection.execute("COMMIT")


def _kill_one(place: Path, chance: random.Random) -> None:
    """Start a process, let it work or only start, and kill it at a random moment."""
    rounds = chance.randint(0, 4)
    target = len(_released(place)) + rounds
    command = [sys.executable, "-m", "bench.ledger_kills", str(place)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as child:
        deadline = time.monotonic() + _PATIENCE_S
        while len(_released(place)) < target:
            if child.poll() is not None or time.monotonic() > deadline:
                child.kill()
                raise TimeoutError(f"the process ended by itself or did no work: {child.poll()}")
        # Within a round a few milliseconds long, or within the start of the process.
        time.sleep(chance.uniform(0, 0.006) if rounds else chance.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)


def is_paid(place: Path, *, kills_so_far: int) -> bool:
    """Return whether the chain verifies and every released round is paid for in it."""
    try:
        with closing(open_exclusive(place / "site.db")) as connection:
            ledger = Ledger.open(connection)
            hold, account = ledger.held(_FAMILY, _STUDY), ledger.account(_FAMILY)
    except LarreyError:
        return False
    if hold is None or account is None:
        return False
    released = _released(place)
    paid = {(one.round, one.entry.seq) for one in hold.reservations}
    has_all = set(released) <= paid and len(set(released)) == len(released)
    is_debited = account.used_units >= len(released) * hold.units_per_round > 0 or not released
    return has_all and is_debited and len(paid) <= len(released) + kills_so_far


def _released(place: Path) -> list[tuple[int, int]]:
    """Return round and entry of all work that left, a torn last line included."""
    path = place / "released"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(number), int(seq)) for number, _, seq in (line.partition(" ") for line in lines)]


def _work(place: Path) -> None:
    """Reserve, release, commit, until killed."""
    connection = open_exclusive(place / "site.db")
    ledger = Ledger.open(connection)
    hold = ledger.held(_FAMILY, _STUDY)
    released = os.open(place / "released", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in range(hold.rounds_used + 1 if hold else 1, _ROUNDS):
        connection.execute("BEGIN IMMEDIATE")
        entry = ledger.reserve(_FAMILY, _STUDY, number, "in", _ROUND)
        connection.execute("COMMIT")
        os.write(released, b"%d %d\n" % (number, entry.seq))
        os.fsync(released)
        connection.execute("BEGIN IMMEDIATE")
        ledger.commit(_FAMILY, _STUDY, number, "in", "out")
        connection.execute("COMMIT")


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
