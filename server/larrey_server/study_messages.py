"""What a study's run works with and what it hears: surroundings, answers, the worker's results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Receipt, Signed
from larrey_server.aggregator import Aggregator, Outcome
from larrey_server.journal import Journal
from larrey_server.round_values import Courier, Event, TaskKey
from larrey_server.spool import Spool

__all__ = ["Arrived", "Averaged", "Checked", "Late", "Message", "Replayed", "Surroundings", "pace"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything outside the rules that a study's run works with."""

    journal: Journal
    spool: Spool
    aggregator: Aggregator
    courier: Courier
    publish: Callable[[dict[str, Any]], None]  # Any: JSON
    signer: SigningKey
    studies: Path  # folder of checkpoints
    clock: Callable[[], float]  # monotonic seconds
    wall: Callable[[], float] = time.time  # seconds since 1970, for the record only


@dataclass(frozen=True, slots=True)
class Arrived:
    """A site answered; nothing of it is checked yet but the receipt's signature."""

    at: float
    site: str
    key: TaskKey
    update: str
    receipt: Signed | None
    code: str
    transfer_s: float = 0.0  # of the time since the site was asked


@dataclass(frozen=True, slots=True)
class Late:
    """A site answers a request that was taken back; its update was not taken in."""

    at: float
    site: str
    key: TaskKey


@dataclass(frozen=True, slots=True)
class Checked:
    """The worker looked at an update whose receipt fits."""

    arrived: Arrived
    receipt: Receipt
    outcome: Outcome
    trial: int = 1


@dataclass(frozen=True, slots=True)
class Averaged:
    """The worker made, or could not make, the next model of one attempt."""

    outcome: Outcome
    order: tuple[int, int]  # round and attempt


@dataclass(frozen=True, slots=True)
class Replayed:
    """The worker replayed, or could not replay, the last applied round."""

    outcome: Outcome


Message: TypeAlias = Event | Arrived | Late | Checked | Averaged | Replayed


def pace(answer: Arrived, since: float) -> tuple[float, float]:
    """Return the seconds that a site worked, and moved bytes, since it was asked."""
    seconds = max(0.0, answer.at - since)
    transfer = min(seconds, max(0.0, answer.transfer_s))
    return seconds - transfer, transfer
