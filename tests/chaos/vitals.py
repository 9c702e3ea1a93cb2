"""What a running program holds: memory of its own, open files, threads; and what lies on its disk.

Linux tells: ``/proc/PID/smaps_rollup`` (proc_pid_smaps_rollup(5)), ``fd`` and ``task``. Memory is
what no other process shares, so that a neighbour's start or end changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.system.hospitals import descendants

# Of a state folder, what is dropped once nobody may ask for it again. Not what is kept on purpose:
# the coordinator's model of each round, a site's copy of what left it (for `policy.egress_days`).
_SPOOLS = ("spool", "models", "scratch")
_OWN = ("Private_Clean:", "Private_Dirty:")


@dataclass(frozen=True)
class Vitals:
    """One look at a program.

    Attributes:
        round: how many rounds were applied.
        pids: the processes counted, the program's own first; equal in looks that may be compared.
        memory_of: private bytes of each of them.
        files: open files of all of them.
        threads: of all of them.
        spool: bytes of blobs kept for others or for a repeat.
        journal: bytes of its database and the log of writes beside it.
    """

    round: int
    pids: tuple[int, ...]
    memory_of: tuple[int, ...]
    files: int
    threads: int
    spool: int
    journal: int

    @property
    def memory(self) -> int:
        """Return the private bytes of all of them."""
        return sum(self.memory_of)


def look(number: int, pid: int, state: Path, *, beside: str = "") -> Vitals:
    """Return the vitals of a program whose state lies in ``state``, after so many rounds.

    Args:
        number: rounds applied so far.
        pid: of the program; with its children, or without those whose command has ``beside``.
        state: its folder.
        beside: part of the command line of children that are not counted.

    Raises:
        OSError: a process ended meanwhile.
    """
    children = [one for one in descendants(pid) if not (beside and beside in _command(one))]
    pids = (pid, *sorted(children))
    return Vitals(
        number,
        pids,
        tuple(map(_memory, pids)),
        sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in pids),
        sum(len(list(Path(f"/proc/{one}/task").iterdir())) for one in pids),
        spool_bytes(state),
        sum(_size(path) for path in state.glob("*.db*")),
    )


def spool_bytes(state: Path) -> int:
    """Return the bytes in the spools of a state folder."""
    return sum(
        _size(path) for name in _SPOOLS for path in (state / name).rglob("*") if path.is_file()
    )


def alike(looks: Sequence[Vitals], since: int) -> list[Vitals]:
    """Return the looks from a round on at the very processes that run at the end."""
    return [one for one in looks if one.round >= since and one.pids == looks[-1].pids]


def first_and_last(
    looks: Sequence[Vitals], of: Callable[[Vitals], float], share: float = 0.2
) -> tuple[float, float]:
    """Return the median over the first and over the last share of looks, of one at least."""
    count = max(1, int(share * len(looks)))
    return median(map(of, looks[:count])), median(map(of, looks[-count:]))


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_OWN))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
