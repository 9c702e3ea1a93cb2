"""Requests that wait for this node, and when a newer one makes an older one useless.

Studies take turns: of each only the newest request waits, none is worked on twice at once, and a
study that was served goes behind those that wait. So a flood of one study's requests costs another
at most one training, and what is slow for one study holds that study alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from larrey_client.flower import Incoming
from larrey_client.task import Task
from larrey_protocol.errors import Refusal

__all__ = ["Current", "Inbox", "Request", "Waiting", "overtakes"]

_MOST_STUDIES = 64


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request and when it arrived, on the monotonic clock."""

    incoming: Incoming
    arrived: float


class Inbox:
    """The waiting requests of one membership; one thread puts them in, others take them out."""

    def __init__(self, most: int = _MOST_STUDIES) -> None:
        self._most = most
        lock = threading.Lock()
        self._has_room = threading.Condition(lock)
        self._has_work = threading.Condition(lock)
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()  # by study
        self._under_way: set[str] = set()  # studies whose request was taken and is not done
        self._is_closed = False

    def put(self, request: Waiting, timeout_s: float) -> bool:
        """Let a request wait in the place of its study; False if there was no room in time.

        An older request of the study is dropped: the coordinator replaced it and expects no answer.
        """
        study = _study_of(request)
        with self._has_room:
            has_room = self._has_room.wait_for(
                lambda: study in self._waiting or len(self._waiting) < self._most, timeout_s
            )
            if has_room:
                self._waiting[study] = request
                if study not in self._under_way:
                    self._has_work.notify()
            return has_room

    def take(self) -> Waiting | None:
        """Wait for the request of the study that waits longest and is not under way.

        Its study is under way until `done`. None once closed.
        """
        with self._has_work:
            self._has_work.wait_for(lambda: self._is_closed or self._next() is not None)
            study = self._next()
            if self._is_closed or study is None:
                return None
            self._under_way.add(study)
            self._has_room.notify()
            return self._waiting.pop(study)

    def done(self, request: Waiting) -> None:
        """Say that a request that was taken is worked on no more."""
        study = _study_of(request)
        with self._has_work:
            self._under_way.discard(study)
            if study in self._waiting:
                self._has_work.notify()

    def close(self) -> None:
        """Wake who waits; what was not taken is dropped."""
        with self._has_work:
            self._is_closed = True
            self._has_work.notify_all()

    def _next(self) -> str | None:
        return next((study for study in self._waiting if study not in self._under_way), None)


def _study_of(request: Waiting) -> str:
    return request.incoming.task.study if request.incoming.task else ""


def overtakes(task: Task, running: Task) -> bool:
    """Return whether a request says that nobody waits any more for the answer to another one.

    A repetition does not, nor does an earlier round: the gate refuses that one anyhow.
    """
    if task.study != running.study or task.round < running.round:
        return False
    return (task.round, task.model) != (running.round, running.model)


class Current:
    """A request that is being worked on; for the thread that works and the one that asks."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._lock = threading.Lock()
        self._is_training = False
        self._is_overtaken = False

    def overtake(self, task: Task) -> bool:
        """Note that a request came; return whether a training that nobody awaits is to be ended."""
        with self._lock:
            if not overtakes(task, self.task):
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


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has a task; when it came and is due, on the monotonic clock."""

    incoming: Incoming
    current: Current
    arrived: float
    deadline: float

    @property
    def task(self) -> Task:
        """Return what is asked."""
        return self.current.task
