"""Machines that go wrong under a study: clocks that jump by an hour.

Scenarios of `field.toml`, played by `tests.chaos.field` on its stand. How a program's clock is
misled, and what is not, says `visitor/sitecustomize.py`.
"""

from __future__ import annotations

from tests.chaos import proofs
from tests.chaos.field_stand import SITES, Field
from tests.chaos.stand import Program
from tests.system.hospitals import until

_HOUR_S = 3600.0


def coordinator_clock_forward(field: Field) -> None:
    """K1: an hour forward between two answers of a round."""
    _jumps(field, field.stand.coordinator, _HOUR_S)


def coordinator_clock_back(field: Field) -> None:
    """K2: an hour back between two answers of a round."""
    _jumps(field, field.stand.coordinator, -_HOUR_S)


MACHINES = (coordinator_clock_forward, coordinator_clock_back)


def _jumps(field: Field, program: Program, seconds: float) -> None:
    """Play a study of two rounds; the clock of a program jumps while gamma trains."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study())
    _trains(field, digest)
    program.set_clock(seconds)
    field.order("gamma")
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome == "COMPLETE"
    for site in SITES:
        assert field.outcomes(certificate, site) == ["contributed"] * 2
        assert proofs.spent(field.stand.workspace, site, digest).reserved == {1: 1, 2: 1}
    _is_whole(field, digest, 2)


def _is_whole(field: Field, study: str, rounds: int) -> None:
    """Check trail, ledgers and receipts; no round twice, no spare used, nothing undebited."""
    assert proofs.times_applied(field.stand.workspace, study) == list(range(1, rounds + 1))
    assert field.hospitals.status(study)["spares_left"] == 2
    for site in SITES:
        assert proofs.spent(field.stand.workspace, site, study).without_debit == 0


def _trains(field: Field, study: str) -> None:
    until(lambda: field.state(study, "gamma") == "working")
    until(lambda: field.hospitals.rounds_used("gamma", study) == 1)


__all__ = ["MACHINES"]
