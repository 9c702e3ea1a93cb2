"""One request of the coordinator, as plain values; no Flower types, no trust in the numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TRAIN", "Task"]

TRAIN = "train"  # the first phase of a round, the one that is paid for; phases are data


@dataclass(frozen=True, slots=True)
class Task:
    """What the coordinator asks this site to do.

    Attributes:
        study: digest of the study.
        round: from 1.
        phase: which handler of the app, ``train`` first (`larrey_protocol.study.Call`).
        attempt: the coordinator's own count; it decides nothing here.
        model: digest of the model file to start from.
        model_bytes: its size as announced; the study's own layout is what counts.
        deadline_s: seconds the coordinator will wait, counted from arrival.
        peer_head: the coordinator's audit head, ``seq:hash``, recorded in the receipt.
        applied: the last round whose update of this site was applied, 0 for none; only which of
            this site's own states of an algorithm is in force follows from it.
    """

    study: str
    round: int
    phase: str
    attempt: int
    model: str
    model_bytes: int
    deadline_s: float
    peer_head: str = ""
    applied: int = 0

    @property
    def key(self) -> tuple[str, int, str, str]:
        """Return what makes two requests the same work: study, round, phase, input digest."""
        return self.study, self.round, self.phase, self.model
