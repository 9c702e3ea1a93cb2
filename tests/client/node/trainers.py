"""Trainers in this process, with the interface of `larrey_client.trainer_link.TrainerLink`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from larrey_client.confinement.barriers import BARRIERS, Isolation
from larrey_client.data.reading import PLAIN, Reading
from larrey_client.frames import memory_file, seal
from larrey_client.trainer_link import Loaded, TrainTask
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import phase_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack


class SmallTrainer:
    """Answers each request with another small update; tests replace single steps."""

    def __init__(self) -> None:
        self.units = 100
        self.patients = b""
        self.reading = PLAIN
        self.loads: list[tuple[str, Path]] = []
        self.trained: list[TrainTask] = []
        self.timeouts: list[float] = []
        self.fail: LarreyError | None = None
        self.load_fail: LarreyError | None = None
        self.load_s = 0.0
        self.make: Callable[[Study], bytes] | None = None
        self.is_sealed = True
        self.interrupted: list[str] = []
        self._barred: set[str] = set()
        self.entered, self.release = threading.Event(), threading.Event()
        self.release.set()
        self._study: Study | None = None

    def load(
        self,
        study: Study,
        *,
        site: str,
        data: Path,
        app: str | None = None,
        reading: Reading = PLAIN,
    ) -> Loaded:
        self.loads.append((study.digest, data))
        if self.load_fail:
            raise self.load_fail
        threading.Event().wait(self.load_s)
        self._study = study
        self.reading = reading
        return Loaded(self.units, "sha256:" + "0" * 64, len(reading.excluded))

    def scan(self, source: Path, unit: str, salt: bytes) -> bytes:
        return self.patients

    def train(self, task: TrainTask, model: int, *, timeout_s: float) -> int:
        self.trained.append(task)
        self.timeouts.append(timeout_s)
        self.entered.set()
        self.release.wait(10)
        if self._barred & {"", task.study}:
            raise LarreyError("trainer-interrupted", "a person stopped the study meanwhile")
        if self.fail:
            raise self.fail
        if self._study is None:
            raise LarreyError("study-not-loaded", "nothing loaded")
        data = self.make(self._study) if self.make else self._update(self._study)
        file = memory_file("update", [data])
        return seal(file) if self.is_sealed else file

    def interrupt(self, study: str = "") -> None:
        self.interrupted.append(study)
        self._barred.add(study)
        if not study or (self._study and study == self._study.digest):
            self.release.set()

    def admit(self, study: str) -> None:
        self._barred -= {"", study}

    def stop(self) -> None:
        self.release.set()

    @property
    def isolation(self) -> Isolation:
        return Isolation(dict.fromkeys(BARRIERS, "") | {"landlock": "the kernel says no"})

    def _update(self, study: Study) -> bytes:
        layout = phase_layout(study, self.trained[-1].phase)
        flat = np.full(layout.size, 0.001 * len(self.trained), np.float32)
        return pack(layout, flat)
