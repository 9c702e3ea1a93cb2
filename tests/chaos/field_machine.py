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
    """K1: an hour forward between two answers of a round; right again afterwards."""
    _jumps(field, field.stand.coordinator, _HOUR_S)


def coordinator_clock_back(field: Field) -> None:
    """K2: an hour back; a round's deadline is no second longer for it."""
    _jumps(field, field.stand.coordinator, -_HOUR_S)
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study(rounds=1, deadline_s=4.0))
    trains(field, digest)
    field.stand.coordinator.set_clock(-_HOUR_S)
    certificate = field.hospitals.finish(digest)
    assert field.outcomes(certificate, "gamma") == ["late"]
    assert certificate.outcome == "PARTIAL"


def site_clock_back(field: Field) -> None:
    """K3: gamma's goes an hour back: it answers nothing more, and names the reason, till right."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study(rounds=3))
    trains(field, digest)
    until(lambda: field.state(digest, "alpha") == "answered")
    field.order("alpha", "hold")  # else the next rounds are over before anybody looks
    field.gamma.set_clock(-_HOUR_S)
    field.order("gamma")
    until(lambda: field.state(digest, "gamma") == "refused")
    field.gamma.set_clock(0.0)
    field.order("alpha")
    certificate = field.hospitals.finish(digest)
    outcomes = field.outcomes(certificate, "gamma")
    assert set(outcomes) <= {"contributed", "clock-set-back"}
    assert outcomes[-1] == "contributed"
    for site in SITES[:2]:
        assert field.outcomes(certificate, site) == ["contributed"] * 3
    assert certificate.rounds_applied == 3
    is_whole(field, digest, 3)


def site_clock_forward(field: Field) -> None:
    """K4: gamma's goes an hour forward, and stays there: to go back needs an hour."""
    _jumps(field, field.gamma, _HOUR_S)


MACHINES = (
    coordinator_clock_forward,
    coordinator_clock_back,
    site_clock_back,
)
# Whoever sets that clock right again waits until its records are in the past: nothing comes after.
LAST_MACHINES = (site_clock_forward,)


def _jumps(field: Field, program: Program, seconds: float) -> None:
    """Play a study of two rounds; the clock of a program jumps while gamma trains."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study())
    trains(field, digest)
    program.set_clock(seconds)
    field.order("gamma")
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome == "COMPLETE"
    for site in SITES:
        assert field.outcomes(certificate, site) == ["contributed"] * 2
        assert proofs.spent(field.stand.workspace, site, digest).reserved == {1: 1, 2: 1}
    is_whole(field, digest, 2)


def is_whole(field: Field, study: str, rounds: int) -> None:
    """Check trail, ledgers and receipts; no round twice, no spare used, nothing undebited."""
    assert proofs.times_applied(field.stand.workspace, study) == list(range(1, rounds + 1))
    assert field.hospitals.status(study)["spares_left"] == 2
    for site in SITES:
        assert proofs.spent(field.stand.workspace, site, study).without_debit == 0


def trains(field: Field, study: str) -> None:
    until(lambda: field.state(study, "gamma") == "working")
    until(lambda: field.hospitals.rounds_used("gamma", study) == 1)


__all__ = ["LAST_MACHINES", "MACHINES", "is_whole", "trains"]
