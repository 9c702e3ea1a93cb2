"""The participation certificate: site × round, who contributed and why not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from larrey_protocol.signed import Certificate, Contribution, Receipt, Signed, open_signed
from larrey_protocol.study import Study
from larrey_server.journal import ContributionRow
from larrey_server.round_values import Cell, Outcome, State

__all__ = ["make_certificate"]


def make_certificate(
    study: Study,
    state: State,
    rows: Sequence[ContributionRow],
    *,
    declined: Mapping[str, str],
    audit_head: str,
    ended_at: float,
) -> Certificate:
    """Return the certificate of an ended study.

    Args:
        study: as approved.
        state: ended.
        rows: of all attempts; the last attempt of a round is what counts. The flags of a site's
            receipts, such as work without privacy on its dataset, are repeated beside it.
        declined: invited sites that refused before launch, with their code.
        audit_head: of the coordinator's chain with the study's end in it.
        ended_at: seconds since 1970.
    """
    last = {(row.cell.round, row.cell.site): row for row in rows}
    rounds = sorted({number for number, _ in last})
    sites = study.file.site_names
    matrix = [_entry(last, number, site, declined) for number in rounds for site in sites]
    return Certificate.model_validate(
        {
            "study": study.digest,
            "name": study.name,
            "outcome": state.outcome,
            "reason": state.reason,
            "rounds_planned": study.file.training.rounds,
            "rounds_applied": state.applied,
            "sites": sites,
            "matrix": tuple(matrix),
            "model": state.model if state.applied else "",
            "audit_head": audit_head,
            "ended_at": ended_at,
        }
    )


def _entry(
    last: Mapping[tuple[int, str], ContributionRow],
    number: int,
    site: str,
    declined: Mapping[str, str],
) -> Contribution:
    row = last.get((number, site))
    if row is None:  # the site never joined
        outcome: Outcome = "refused" if site in declined else "absent"
        cell = Cell(site, number, 1, outcome, declined.get(site, "") or "not-joined")
        row = ContributionRow(cell)
    cell = row.cell
    return Contribution(
        site=site,
        round=number,
        outcome=cell.outcome,
        code=cell.code,
        epsilon=cell.epsilon,
        bytes=cell.nbytes,
        flags=tuple(dict.fromkeys(flag for one in row.receipts for flag in _flags(one))),
    )


def _flags(receipt: bytes) -> tuple[str, ...]:
    signed = Signed.from_bytes(receipt)
    return open_signed(signed, Receipt, signed.signer).flags
