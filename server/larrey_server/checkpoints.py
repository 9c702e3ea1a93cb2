"""The models of one study, one file a round, and their place in the spool.

``studies/<first 12 digits>/round-0000.safetensors`` is the public starting point, ``round-0003``
the model after round 3. What a strategy keeps between rounds lies beside as ``round-0003.state``,
the last two of them. Where some of that travels with the model, ``round-0003.request`` holds both
and is what sites fetch, by digest: the newest such file, or model, is linked into the spool.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from larrey_protocol.canonical import short
from larrey_protocol.models import initial_parameters, model_layout, request_layout
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server.aggregation import Averaging
from larrey_server.spool import Spool
from larrey_server.tensor_files import sync_folder
from larrey_strategies.contract import Vector
from larrey_strategies.of_study import algorithm_of

__all__ = ["Checkpoints"]


class Checkpoints:
    """Where a study's models lie; written by the aggregation worker, found here."""

    def __init__(self, folder: Path, study: Study) -> None:
        self._folder = folder / short(study.digest)
        self._study = study
        self._algorithm = algorithm_of(study)
        self.layout = model_layout(study)
        self._offered = request_layout(study, self._algorithm.shared)

    @property
    def offered_bytes(self) -> int:
        """Return the size of the file that sites fetch."""
        return self._offered.nbytes

    def model(self, after_round: int) -> Path:
        """Return the file of the model after a round; 0 is the starting point."""
        return self._folder / f"round-{after_round:04d}.safetensors"

    def state(self, after_round: int) -> Path:
        """Return the file of what the strategy keeps after a round."""
        return self._folder / f"round-{after_round:04d}.state"

    def request(self, after_round: int) -> Path | None:
        """Return the file that sites fetch in the model's place, None where that is the model."""
        if not self._algorithm.shared:
            return None
        return self._folder / f"round-{after_round:04d}.request"

    def begin(self) -> str:
        """Write the starting point durably and return its digest; the same on every call."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flat = initial_parameters(self._study)
        request = self.request(0)
        if request is not None:
            state = self._algorithm.init(flat)
            vectors = [state[name] for name in self._algorithm.shared]
            _write(request, self._offered.header, flat, *vectors)
        digest = _write(self.model(0), self.layout.header, flat)
        reached("coordinator.start-written")
        sync_folder(self._folder)
        sync_folder(self._folder.parent)
        return digest

    def first_request(self) -> str:
        """Return the digest of what sites fetch first; empty where it is the starting point."""
        request = self.request(0)
        return _digest(request) if request is not None else ""

    def offer(self, spool: Spool, after_round: int, digest: str) -> None:
        """Let sites fetch the model after a round, with what travels with it, by its digest."""
        spool.adopt(self.request(after_round) or self.model(after_round), digest)

    def holds(self, after_round: int, model: str, memory: str = "", request: str = "") -> bool:
        """Return whether the model after a round, and what the strategy kept, are here and sound.

        Args:
            after_round: how many rounds were applied.
            model: its digest.
            memory: digest of what the strategy kept, empty where it keeps nothing.
            request: digest of what sites fetch in the model's place, empty where it is the model.
        """
        if memory and _digest(self.state(after_round)) != memory:
            return False
        offered = self.request(after_round)
        if request and offered is not None and _digest(offered) != request:
            return False
        return _digest(self.model(after_round)) == model

    def aside(self, order: Averaging, after_round: int) -> Averaging:
        """Return an order whose results lie beside the checkpoint until `accept`."""
        request = self.request(after_round)
        return replace(
            order,
            new_model=_aside(self.model(after_round)),
            new_state=_aside(self.state(after_round)),
            new_request=_aside(request) if request is not None else None,
        )

    def accept(self, after_round: int) -> None:
        """Let what was made aside take the place of the checkpoint after a round, durably."""
        for path in (self.state(after_round), self.request(after_round), self.model(after_round)):
            if path is not None and _aside(path).is_file():
                _aside(path).replace(path)
        sync_folder(self._folder)

    def forget_states(self, before: int) -> None:
        """Remove what the strategy kept, and sent, after earlier rounds than this one."""
        for kind in ("state", "request"):
            for path in self._folder.glob(f"round-*.{kind}"):
                if path.stem < self.state(before).stem:
                    path.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".again")


def _write(path: Path, header: bytes, *vectors: Vector) -> str:
    """Write a file that appears under its name whole; return its digest."""
    part, digest = path.with_name(path.name + ".part"), hashlib.sha256()
    with open(part, "wb") as file:
        file.write(header)
        digest.update(header)
        for vector in vectors:
            values = vector.astype("<f4", copy=False).data.cast("B")
            file.write(values)
            digest.update(values)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return f"sha256:{digest.hexdigest()}"


def _digest(path: Path) -> str:
    """Return the digest of a file, empty where there is none."""
    try:
        with open(path, "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except (FileNotFoundError, NotADirectoryError):
        return ""
