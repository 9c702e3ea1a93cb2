"""What a study will ask of a site's line and patience, before anybody signs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from larrey_protocol.encodings import BLOCK, worst_error
from larrey_protocol.models import phase_layout, request_layout
from larrey_protocol.study import Study
from larrey_strategies.of_study import algorithm_of

__all__ = ["Traffic", "encoding_words", "plan_words", "traffic_of"]

_OWN_SHARE = 20  # of deadline_s, added to each site's own deadline (`larrey_server.round_clock`)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of tensor files between the coordinator and one site; requests and receipts add KiB.

    Attributes:
        down: of the model and what of the strategy's state travels with it, once a round.
        up: of the update, and of a standard app's metrics, once a round.
        attempts: rounds and spare rounds, the most there can be.
    """

    down: int
    up: int
    attempts: int


def traffic_of(study: Study) -> Traffic:
    """Return the bytes of a study."""
    training = study.file.training
    up = sum(phase_layout(study, call).nbytes for call in training.calls)
    down = request_layout(study, algorithm_of(study).shared).nbytes
    return Traffic(down, up, training.rounds_held)


def encoding_words(study: Study) -> str:
    """Return what the encoding of updates costs in precision; it costs no epsilon."""
    encoding = study.file.training.encoding
    if encoding == "float32":
        return "float32, nothing is rounded"
    share = worst_error(encoding)
    return f"{encoding}, off by at most {share:.2g} of the largest of each {BLOCK} values"


def plan_words(study: Study) -> dict[str, str]:
    """Return the plan of a study, a line each, by what it is about."""
    training, rounds, traffic = study.file.training, study.file.rounds, traffic_of(study)
    total = (traffic.down + traffic.up) * training.rounds
    most = (traffic.down + traffic.up) * traffic.attempts
    needed = f" with {', '.join(rounds.required)}" if rounds.required else ""
    own = (
        f"{rounds.patience:g} times what it usually takes and {rounds.deadline_s / _OWN_SHARE:g} s"
    )
    return {
        "rounds": f"{training.rounds}",
        "spare rounds": f"{training.spare_rounds}, each repeats a round that was not applied;"
        " their epsilon is part of the study's",
        "a round is applied": f"with {rounds.quorum} of {len(study.file.sites)} sites{needed}",
        "a round takes": f"{rounds.deadline_s:g} s at most; it closes when all have answered",
        "a site's deadline": f"{own}; {rounds.deadline_s:g} s while it has no history",
        "bytes a round": f"{_size(traffic.down)} to each site, {_size(traffic.up)} back",
        "bytes a site": f"{_size(total)} over all rounds, {_size(most)} with the spare ones",
        "encoding": encoding_words(study),
    }


def _size(count: int) -> str:
    """Return bytes as people read them: powers of ten."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"
