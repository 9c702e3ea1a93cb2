"""The certificate repeats what each site's receipts say about the budget that was used."""

from __future__ import annotations

from dataclasses import replace

from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Certificate, Flags, sign
from larrey_server.certificate import make_certificate
from larrey_server.journal import ContributionRow
from larrey_server.round_values import Cell, Outcome, plan_of
from larrey_server.rounds import begin
from tests.protocol.samples import study as make_study
from tests.protocol.test_egress_list import RECEIPT

STUDY = make_study()
KEY = SigningKey.generate()


def row(
    site: str, number: int, outcome: Outcome, *flags: Flags, attempt: int = 1
) -> ContributionRow:
    """Return what a site did, with a receipt for each of the budget's flags."""
    receipts = [RECEIPT.model_copy(update={"flags": one}) for one in flags]
    cell = Cell(site, number, attempt, outcome)
    return ContributionRow(cell, tuple(sign(one, KEY).to_bytes() for one in receipts))


def certificate(*rows: ContributionRow) -> Certificate:
    state = replace(begin(plan_of(STUDY), RECEIPT.model_in), outcome="COMPLETE")
    return make_certificate(STUDY, state, rows, declined={}, audit_head="1:", ended_at=1.0)


def told(made: Certificate) -> list[tuple[int, str, Flags]]:
    return [(one.round, one.site, one.flags) for one in made.matrix]


def test_work_without_privacy_on_a_site_s_data_stands_beside_each_of_its_rounds() -> None:
    made = certificate(
        row("alpha", 1, "contributed", ("unbounded",)),
        row("beta", 1, "contributed", ()),
        row("alpha", 2, "contributed", ("unbounded", "family-reset")),
    )
    assert told(made) == [
        (1, "alpha", ("unbounded",)),
        (1, "beta", ()),
        (2, "alpha", ("unbounded", "family-reset")),
        (2, "beta", ()),
    ]


def test_the_flags_of_every_call_of_a_round_are_told_once() -> None:
    made = certificate(row("alpha", 1, "contributed", (), ("unbounded",), ("unbounded", "adopted")))
    assert told(made)[0] == (1, "alpha", ("unbounded", "adopted"))


def test_who_sent_no_receipt_claims_nothing_and_the_last_attempt_counts() -> None:
    made = certificate(
        row("alpha", 1, "contributed", ("unbounded",)), row("alpha", 1, "late", attempt=2)
    )
    assert [(one.outcome, one.flags) for one in made.matrix] == [("late", ()), ("absent", ())]
