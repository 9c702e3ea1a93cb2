"""What the journal keeps of one step of a study: record, state, and at the end the certificate."""

from __future__ import annotations

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.signed import sign
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server.certificate import make_certificate
from larrey_server.journal import ContributionRow, Journal, Transition
from larrey_server.round_snapshots import restore, snapshot
from larrey_server.round_values import State, plan_of
from larrey_server.rounds import begin
from larrey_server.step_record import step_record
from larrey_server.study_messages import Surroundings

__all__ = ["decisions", "recall", "transition"]


def decisions(journal: Journal, study: str) -> dict[str, str]:
    """Return the digest of each site's newest signed decision about a study."""
    return {row.site: digest_bytes(row.answer) for row in journal.answers(study)}


def recall(study: Study, journal: Journal) -> tuple[State, dict[str, float]]:
    """Return the journal's last state, or the one before launch, and each site's epsilon so far."""
    plan, kept = plan_of(study), journal.snapshot(study.digest)
    told = {
        row.cell.site: row.cell.epsilon
        for row in journal.contributions(study.digest)
        if row.cell.epsilon >= 0
    }
    return restore(plan, kept) if kept else begin(plan, ""), told


def transition(
    study: Study,
    around: Surroundings,
    *,
    before: State,
    after: State,
    rows: tuple[ContributionRow, ...],
) -> Transition:
    """Return a step for the journal; one that ends the study makes the signed certificate.

    Args:
        study: as approved.
        around: its surroundings; the journal is read when the certificate is made.
        before: the state that the journal has.
        after: the state that follows.
        rows: of the attempt that ended with this step.
    """

    def certify(head: str) -> bytes:
        answers = around.journal.answers(study.digest)
        certificate = make_certificate(
            study,
            after,
            (*around.journal.contributions(study.digest), *rows),
            declined={a.site: a.code for a in answers if a.decision == "refused"},
            audit_head=head,
            ended_at=around.wall(),
        )
        signed = sign(certificate, around.signer)
        reached("coordinator.certificate-signed")
        return signed.to_bytes()

    record = step_record(before, after, around.wall())
    is_end = after.status == "ended"
    return Transition(study.digest, snapshot(after), record, rows, certify if is_end else None)
