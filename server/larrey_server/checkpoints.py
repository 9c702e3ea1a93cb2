"""The models of one study, one file a round, and their place in the spool.

``studies/<first 12 digits>/round-0000.safetensors`` is the public starting point, ``round-0003``
the model after round 3. What a strategy keeps between rounds lies beside as ``round-0003.state``.
Sites fetch a model by digest, so the newest one is linked into the spool.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from larrey_protocol.canonical import short
from larrey_protocol.models import initial_parameters, model_layout
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server.aggregation import sync_folder
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

    def holds(self, after_round: int, digest: str) -> bool:
        """Return whether the model after a round is here and sound."""
        path = self.model(after_round)
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == digest

    def forget_state(self, after_round: int) -> None:
        """Remove what the strategy kept after a round that no redo can need."""
        self.state(after_round).unlink(missing_ok=True)
