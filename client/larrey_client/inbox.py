"""Requests that wait for this node, and when a newer one makes an older one useless.

Studies take turns: of each only the newest request waits, and a study that was served goes behind
those that wait. So a flood of one study's requests costs another at most one training.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from larrey_client.flower import Incoming
from larrey_client.task import Task
from larrey_protocol.errors import Refusal

__all__ = ["Current", "Inbox", "Waiting", "overtakes"]

_MOST_STUDIES = 64


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request and when it arrived, on the monotonic clock."""

    incoming: Incoming
    arrived: float


class Inbox:
    """The waiting requests of one membership; one thread puts them in, another takes them out."""

    def __init__(self, most: int = _MOST_STUDIES) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()  # by study
        self._is_closed = False

    def put(self, request: Waiting, timeout_s: float) -> bool:
        """Let a request wait in the place of its study; False if there was no room in time.

        An older request of the study is dropped: the coordinator replaced it and expects no answer.
        """
        task = request.incoming.task
        study = task.study if task else ""
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: study in self._waiting or len(self._waiting) < self._most, timeout_s
            )
            if has_room:
                self._waiting[study] = request
                self._changed.notify_all()
            return has_room

    def take(self) -> Waiting | None:
        """Wait for the request of the study that waits longest; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            _, request = self._waiting.popitem(last=False)
            self._changed.notify_all()
            return request

    def close(self) -> None:
        """Wake who waits; what was not taken is dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def overtakes(task: Task, running: Task) -> bool:
    """Return whether a request says that nobody waits any more for the answer to another one.

    A repetition does not, nor does an earlier round: the gate refuses that one anyhow.
    """
    if task.study != running.study or task.round < running.round:
        return False
    return (task.round, task.model) != (running.round, running.model)


class Current:
    """The request that is being worked on; for the thread that works and the one that asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._task: Task | None = None
        self._is_training = False
        self._is_overtaken = False

    def begin(self, task: Task) -> None:
        """Begin to work on a request."""
        with self._lock:
            self._task, self._is_training, self._is_overtaken = task, False, False

    def end(self) -> None:
        """Work on nothing."""
        with self._lock:
            self._task = None

    def may_be_overtaken(self, task: Task) -> bool:
        """Return whether a request that just came would overtake the one that is worked on."""
        with self._lock:
            return self._task is not None and overtakes(task, self._task)

    def overtake(self, task: Task) -> bool:
        """Note that a request came; return whether a training that nobody awaits is to be ended."""
        with self._lock:
            if self._task is None or not overtakes(task, self._task):
                return False
            self._is_overtaken = True
            return self._is_training

    @property
    def is_overtaken(self) -> bool:
        """Return whether a later request of the study came."""
        with self._lock:
            return self._is_overtaken

    def require(self) -> None:
        """Return while the answer is awaited.

        Raises:
            Refusal: ``superseded``.
        """
        with self._lock:
            self._require()

    def start_training(self) -> None:
        """Say that epsilon is about to be reserved; from here on the trainer must be interrupted.

        Raises:
            Refusal: ``superseded``; nothing is spent.
        """
        with self._lock:
            self._require()
            self._is_training = True

    def stop_training(self) -> None:
        """Say that the trainer has given its answer."""
        with self._lock:
            self._is_training = False

    def _require(self) -> None:
        if self._is_overtaken:
            raise Refusal("superseded", "the coordinator asked for a later round of the study")
