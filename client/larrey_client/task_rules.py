"""Rules of the gate about one request of the coordinator; `larrey_client.gate` lists them."""

from __future__ import annotations

from larrey_client.gate_facts import Refuse, StudyCase, TaskCase, Warrant
from larrey_client.remembering import incoming_layout
from larrey_client.task import TRAIN
from larrey_protocol.lawful import is_named

__all__ = ["CONSENT_RULES", "LAUNCH_RULES", "LEDGER_RULES", "TASK_RULES"]


def _approved(case: TaskCase) -> Refuse | None:
    if case.study is not None and case.study.consent.state in {"approved", "revoked"}:
        return None
    return Refuse("study-not-approved", "not everybody who must has approved this study here")


def _digest(case: TaskCase) -> Refuse | None:
    if _study(case).study.digest == case.task.study:
        return None
    return Refuse("digest-mismatch", "the stored study is not the approved one")


def _not_revoked(case: TaskCase) -> Refuse | None:
    if _study(case).consent.state != "revoked":
        return None
    return Refuse("approval-revoked", "a person here took the approval back; that is final")


def _same_permit(case: TaskCase) -> Refuse | None:
    if _study(case).consent.permit == _warrant(case).permit_digest:
        return None
    found = "the approval was of another version of the permit"
    return Refuse("permit-changed", found, "Read what changed, then: larrey-site study approve")


def _same_roster(case: TaskCase) -> Refuse | None:
    if _study(case).consent.seats == _warrant(case).seats:
        return None
    found = "the approval was of other sites or other keys of them"
    return Refuse("roster-changed", found, "Read what changed, then: larrey-site study approve")


def _launched(case: TaskCase) -> Refuse | None:
    if case.standing.launched_key:
        return None
    return Refuse("not-launched", "no person of the consortium ordered the launch")


def _launcher_named(case: TaskCase) -> Refuse | None:
    warrant, key = _warrant(case), case.standing.launched_key
    if warrant.permit and is_named(
        warrant.permit, warrant.roster, key, consortium=warrant.consortium
    ):
        return None
    found = f"the permit does not name {case.standing.launched_by or 'the person'} who launched it"
    return Refuse("person-not-permitted", found)


def _separate(case: TaskCase) -> Refuse | None:
    if case.standing.launched_key not in _study(case).consent.keys:
        return None
    return Refuse("duties-not-separate", "the person who launched the study had approved it here")


def _not_stopped(case: TaskCase) -> Refuse | None:
    refusal = case.standing.refusal
    return None if refusal is None else Refuse(*refusal)


def _open(case: TaskCase) -> Refuse | None:
    if case.is_answered or case.hold is None or not case.hold.is_closed:
        return None
    return Refuse("study-closed", "the study ended at this site")


def _phase(case: TaskCase) -> Refuse | None:
    calls = _study(case).study.file.training.calls
    if case.task.phase in calls:
        return None
    return Refuse("phase-unknown", f"the approved study only calls {', '.join(calls)}")


def _round(case: TaskCase) -> Refuse | None:
    last = _study(case).study.file.training.rounds_held
    if 1 <= case.task.round <= last:
        return None
    return Refuse("round-out-of-range", f"round {case.task.round}, approved are 1 to {last}")


def _deadline(case: TaskCase) -> Refuse | None:
    if case.seconds_left > 0:
        return None
    return Refuse("deadline-passed", "the round's deadline is over")


def _model_size(case: TaskCase) -> Refuse | None:
    expected = incoming_layout(_study(case).study).nbytes
    if case.task.model_bytes == expected:
        return None
    found = f"a model of {case.task.model_bytes} bytes, the study's has {expected}"
    return Refuse("model-wrong-size", found)


def _held(case: TaskCase) -> Refuse | None:
    if case.hold is not None:
        return None
    return Refuse("not-held", "the ledger holds no budget for the study")


def _trained(case: TaskCase) -> Refuse | None:
    if case.is_answered or case.hold is None or case.task.phase == TRAIN:
        return None
    found = case.hold.find(case.task.round, case.task.model)
    if found is not None and found.output_digest:
        return None
    return Refuse("phase-too-early", f"{case.task.phase} was asked before the round's train")


def _increasing(case: TaskCase) -> Refuse | None:
    done = [r.round for r in case.hold.reservations] if case.hold else []
    if case.is_answered or not done or case.task.round >= done[-1]:
        return None
    found = f"round {case.task.round} was asked after round {done[-1]}"
    return Refuse("round-not-increasing", found)


def _attempts(case: TaskCase) -> Refuse | None:
    if case.is_answered or case.hold is None or case.task.phase != TRAIN:
        return None
    attempts = sum(1 for r in case.hold.reservations if r.round == case.task.round)
    if attempts <= case.hold.spare_rounds:
        return None
    return Refuse("too-many-attempts", f"round {case.task.round} was attempted {attempts} times")


def _rounds_left(case: TaskCase) -> Refuse | None:
    if case.is_answered or case.hold is None or case.task.phase != TRAIN:
        return None
    if case.hold.rounds_used < case.hold.rounds_total:
        return None
    return Refuse("budget-exhausted", f"all {case.hold.rounds_total} approved rounds were used")


def _study(case: TaskCase) -> StudyCase:
    if case.study is None:
        raise ValueError("rules after the first need a study")
    return case.study


def _warrant(case: TaskCase) -> Warrant:
    warrant = _study(case).warrant
    if warrant is None:
        raise ValueError("rules of a request need a warrant")
    return warrant


CONSENT_RULES = (_approved, _digest, _not_revoked)
LAUNCH_RULES = (
    _same_permit,
    _same_roster,
    _launched,
    _launcher_named,
    _separate,
    _not_stopped,
    _open,
)
TASK_RULES = (_phase, _round, _deadline, _model_size)
LEDGER_RULES = (_held, _trained, _increasing, _attempts, _rounds_left)
