"""The models of one study, one file a round, and their place in the spool.

``studies/<first 12 digits>/round-0000.safetensors`` is the public starting point, ``round-0003``
the model after round 3. What a strategy keeps between rounds lies beside as ``round-0003.state``,
the last two of them. Sites fetch a model by digest, so the newest one is linked into the spool.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from larrey_protocol.canonical import short
from larrey_protocol.models import initial_parameters, model_layout
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server.aggregation import Averaging, sync_folder
from larrey_server.spool import Spool

__all__ = ["Checkpoints"]


class Checkpoints:
    """Where a study's models lie; written by the aggregation worker, found here."""

    def __init__(self, folder: Path, study: Study) -> None:
        self._folder = folder / short(study.digest)
        self._study = study
        self.layout = model_layout(study)

    def model(self, after_round: int) -> Path:
        """Return the file of the model after a round; 0 is the starting point."""
        return self._folder / f"round-{after_round:04d}.safetensors"

    def state(self, after_round: int) -> Path:
        """Return the file of what the strategy keeps after a round."""
        return self._folder / f"round-{after_round:04d}.state"

    def begin(self) -> str:
        """Write the starting point durably and return its digest; the same on every call."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.model(0)
        part = path.with_name(path.name + ".part")
        flat = initial_parameters(self._study).astype("<f4", copy=False).data.cast("B")
        digest = hashlib.sha256(self.layout.header)
        digest.update(flat)
        with open(part, "wb") as file:
            file.write(self.layout.header)
            file.write(flat)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        reached("coordinator.start-written")
        sync_folder(self._folder)
        sync_folder(self._folder.parent)
        return f"sha256:{digest.hexdigest()}"

    def offer(self, spool: Spool, after_round: int, digest: str) -> None:
        """Let sites fetch the model after a round by its digest."""
        spool.adopt(self.model(after_round), digest)

    def holds(self, after_round: int, model: str, memory: str = "") -> bool:
        """Return whether the model after a round, and what the strategy kept, are here and sound.

        Args:
            after_round: how many rounds were applied.
            model: its digest.
            memory: digest of what the strategy kept, empty where it keeps nothing.
        """
        if memory and _digest(self.state(after_round)) != memory:
            return False
        return _digest(self.model(after_round)) == model

    def aside(self, order: Averaging, after_round: int) -> Averaging:
        """Return an order whose results lie beside the checkpoint until `accept`."""
        model, state = self._aside(after_round)
        return replace(order, new_model=model, new_state=state)

    def accept(self, after_round: int) -> None:
        """Let what was made aside take the place of the checkpoint after a round, durably."""
        model, state = self._aside(after_round)
        if state.is_file():
            state.replace(self.state(after_round))
        model.replace(self.model(after_round))
        sync_folder(self._folder)

    def forget_states(self, before: int) -> None:
        """Remove what the strategy kept after earlier rounds than this one."""
        for path in self._folder.glob("round-*.state"):
            if path.name < self.state(before).name:
                path.unlink(missing_ok=True)

    def _aside(self, after_round: int) -> tuple[Path, Path]:
        model, state = self.model(after_round), self.state(after_round)
        return model.with_name(model.name + ".again"), state.with_name(state.name + ".again")


def _digest(path: Path) -> str:
    """Return the digest of a file, empty where there is none."""
    try:
        with open(path, "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except (FileNotFoundError, NotADirectoryError):
        return ""
