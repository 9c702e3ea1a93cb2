"""Epsilon after each round, computed beside the node by a process of lower priority.

One figure takes the accountant up to half a second, a round a few hundredths; so a child process
computes all of a study's figures once the policy lets its proposal through. Until one is there, a
receipt states that of the next larger number of rounds that is known: an upper bound, never less.
Figures are per patient at this site, add/remove neighbours, by PLD, at the study's own delta.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress

from larrey_client.cost import round_mechanism
from larrey_privacy.mechanism import Mechanism, spend_from_record, spend_record
from larrey_protocol.study import DpSgd, Study

__all__ = ["EpsilonTable"]

logger = logging.getLogger(__name__)

_NICENESS = 5  # below training, yet not starved by it: at 19 it took half a minute


class EpsilonTable:
    """Cumulative epsilon per study and number of rounds."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, float]] = {}
        self._wanted: queue.SimpleQueue[Study | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[str] | None = None
        self._is_stopped = False
        self._done = 0  # studies whose child has ended
        self._thread = threading.Thread(target=self._work, name="epsilons", daemon=True)
        self._thread.start()

    def prepare(self, study: Study) -> None:
        """Start computing a study's figures, unless they are there."""
        if study.digest not in self._known and isinstance(study.file.privacy, DpSgd):
            self._known[study.digest] = {}
            self._wanted.put(study)

    def at(self, study: Study, rounds: int, *, ceiling: float) -> float:
        """Return epsilon of that many rounds, or the best known bound on it.

        Args:
            study: approved; without privacy the answer is the ceiling, -1.
            rounds: how many were reserved.
            ceiling: epsilon of all rounds and spare rounds, known since the approval.
        """
        figures = self._known.get(study.digest, {})
        if rounds in figures:
            return figures[rounds]
        return min((figures[n] for n in list(figures) if n >= rounds), default=ceiling)

    def is_complete(self, study: Study) -> bool:
        """Return whether every figure of the study is there."""
        return len(self._known.get(study.digest, {})) == study.file.training.rounds_held

    @property
    def is_idle(self) -> bool:
        """Return whether every figure that was asked for is there, or will never be."""
        return self._done == len(self._known)

    def stop(self) -> None:
        """End the child and the thread."""
        self._is_stopped = True
        self._wanted.put(None)
        if self._child is not None:
            self._child.kill()

    def _work(self) -> None:
        while (study := self._wanted.get()) is not None and not self._is_stopped:
            privacy = study.file.privacy
            if isinstance(privacy, DpSgd):
                self._fill(study, privacy.delta)
                self._done += 1

    def _fill(self, study: Study, delta: float) -> None:
        task = {
            "round": spend_record(round_mechanism(study)),
            "rounds": study.file.training.rounds_held,
            "delta": delta,
        }
        command = [sys.executable, "-P", "-m", "larrey_client.epsilons", json.dumps(task)]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as child:
            self._child = child
            if self._is_stopped:
                child.kill()
            for line in child.stdout or ():
                rounds, _, epsilon = line.partition(" ")
                self._known[study.digest][int(rounds)] = float(epsilon)
        if child.returncode and not self._is_stopped:
            logger.warning("study=%s epsilon stays at its upper bound", study.name)


def _main() -> None:
    from larrey_privacy.accounting import epsilon_pld

    os.nice(_NICENESS)
    task = json.loads(sys.argv[1])
    one = spend_from_record(task["round"])
    if not isinstance(one, Mechanism):
        raise SystemExit(1)
    with suppress(BrokenPipeError):  # the node ended
        for rounds in range(1, task["rounds"] + 1):
            sys.stdout.write(f"{rounds} {epsilon_pld(one.over(rounds), task['delta'])!r}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main()
