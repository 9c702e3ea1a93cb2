"""The gate's rules, one by one and both ways."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client import gate
from larrey_client.approvals import NO_CONSENT, Consent
from larrey_client.gate import decide_approval, decide_study, decide_task
from larrey_client.gate_facts import (
    ALLOW,
    Decision,
    Ground,
    Refuse,
    StudyCase,
    StudyFacts,
    TaskCase,
    Warrant,
)
from larrey_client.orders import Standing
from larrey_client.settings import AppRule, Policy
from larrey_client.task import Task
from larrey_privacy.ledger import Entry, Hold, Kind, Reservation
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.people import Person
from larrey_protocol.permit import Permit
from larrey_protocol.refusals import MAY_LEAVE
from larrey_protocol.roster import Roster
from tests.client.node.people import make_permit, make_roster
from tests.protocol.samples import study as make_study

STUDY = make_study()
DIGEST = digest_bytes(b"app")
NO_DP = {"mechanism": "none"}
ROOT, ADA, BEN, DPO = (SigningKey.generate().public for _ in range(4))
TODAY = dt.date(2026, 6, 15)  # what is asked is a given day, whatever the clock says
permit_of = partial(make_permit, today=TODAY)
ROSTER = make_roster(
    SigningKey.generate().public,
    Person(name="ada", role="lead", key=ADA),
    Person(name="ben", role="member", key=BEN),
)
SEATS = ROSTER.seats_digest(STUDY.file.site_names)
PERMIT = digest_bytes(b"permit")
GROUND = Ground(is_policy_signed=True, clock_lag_s=0.0, anchors_code="", altered="")
CONSENT = Consent("approved", PERMIT, SEATS, "heart", (DPO,))
LAUNCHED = Standing(launched_by="ada", launched_key=ADA)


def warrant(**changes: Any) -> Warrant:
    start = Warrant(ADA, ROOT, ROSTER, permit_of(), PERMIT, SEATS, True, TODAY)
    return replace(start, **changes)


def case(**changes: Any) -> StudyCase:
    start = StudyCase(
        "alpha", Policy(), STUDY, StudyFacts(2.9), ("heart",), "heart", 100, 4,
        is_registered=True, warrant=warrant(), consent=CONSENT,
    )  # fmt: skip
    return replace(start, **changes)


def code(decision: Decision) -> str:
    return decision.code if isinstance(decision, Refuse) else ""


def dp(**changes: Any) -> dict[str, Any]:
    return {f"privacy__{key}": value for key, value in changes.items()}


def app_study(**changes: Any) -> Any:
    return make_study(privacy=NO_DP, training__app="std", **changes)


def revoked() -> Permit:
    permit = permit_of()
    head = permit.permit.model_copy(update={"state": "REVOKED", "version": 2, "previous": PERMIT})
    return permit.model_copy(update={"permit": head})


def _of(site: str, dataset: str) -> dict[str, str]:
    return {"site": site, "dataset": dataset}


def apps(*, unaccounted: bool = True, metrics: bool = False, digest: str = DIGEST) -> Policy:
    rule = AppRule(
        name="std", module="a.b:c", digest=digest, unaccounted=unaccounted, metrics=metrics
    )
    return Policy(apps=(rule,), allow_without_dp=("heart",))


TELLING: dict[str, Any] = {
    "training__calls": ["train", "evaluate"], "training__metrics": ["accuracy"]
}  # fmt: skip
INSTALLED = StudyFacts(-1, app_digest=DIGEST)
STUDY_RULES = [
    ("site-not-invited", {"site": "gamma"}, {"site": "beta"}),
    (
        "not-an-amendment",
        {"study": make_study(study__version=3, study__parent=STUDY.digest), "parent": STUDY},
        {"study": make_study(study__version=2, study__parent=STUDY.digest), "parent": STUDY},
    ),
    ("strategy-unknown", {"facts": StudyFacts(1, strategy_code="unknown-strategy")}, {}),
    (
        "mechanism-none",
        {"study": make_study(privacy=NO_DP)},
        {"study": make_study(privacy=NO_DP), "policy": Policy(allow_without_dp=("heart",))},
    ),
    (
        "mechanism-none",  # allowed for another dataset only
        {"study": make_study(privacy=NO_DP), "policy": Policy(allow_without_dp=("lung",))},
        {
            "study": make_study(privacy=NO_DP),
            "policy": Policy(allow_without_dp=("lung",)),
            "dataset": "",
        },
    ),
    (
        "app-not-listed",
        {"study": app_study(), "policy": apps(unaccounted=False)},
        {"study": app_study(), "policy": apps(), "facts": StudyFacts(-1, app_digest=DIGEST)},
    ),
    (
        "app-digest-differs",
        {"study": app_study(), "policy": apps(), "facts": StudyFacts(-1, app_digest="")},
        {"study": app_study(), "policy": apps(), "facts": StudyFacts(-1, app_digest=DIGEST)},
    ),
    (
        "metrics-not-listed",
        {"study": app_study(**TELLING), "policy": apps(), "facts": INSTALLED},
        {"study": app_study(**TELLING), "policy": apps(metrics=True), "facts": INSTALLED},
    ),
    (
        "noise-below-minimum",
        {"study": make_study(**dp(noise_multiplier=0.49))},
        {"study": make_study(**dp(noise_multiplier=0.5))},
    ),
    (
        "delta-above-cap",
        {"study": make_study(**dp(delta=1.01e-4))},
        {"study": make_study(**dp(delta=1e-4))},
    ),
    (
        "epsilon-above-cap",
        {"study": make_study(**dp(epsilon=3.01))},
        {"study": make_study(**dp(epsilon=3.0))},
    ),
    ("mechanism-unaccounted", {"facts": StudyFacts(-1, mechanism_code="no-accountant")}, {}),
    ("epsilon-understated", {"facts": StudyFacts(3.00001)}, {"facts": StudyFacts(3.000001)}),
    ("dataset-unknown", {"dataset": "lung"}, {"dataset": ""}),
    ("dataset-unregistered", {"is_registered": False}, {"is_registered": False, "dataset": ""}),
    ("unit-differs", {"unit": "patient_id"}, {"unit": "pid"}),
    ("units-below-minimum", {"units": 19}, {"units": 20}),
    ("units-below-minimum", {"units": 1, "policy": Policy(min_units=1)}, {"units": None}),
    ("budget-exhausted", {"rounds_free": 3}, {"rounds_free": None}),
]


@pytest.mark.parametrize(("expected", "bad", "good"), STUDY_RULES)
def test_a_study_is_refused_by_one_rule_and_passes_beside_it(
    expected: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    assert code(decide_study(case(**bad))) == expected
    assert decide_study(case(**good)) == ALLOW


def hold(*rounds: int, spare: int = 1, total: int = 4, is_closed: bool = False) -> Hold:
    entry = Entry(1, Kind.HOLD, "heart", {}, "", "", "")
    done = tuple(Reservation(entry, number, f"in-{i}", 1) for i, number in enumerate(rounds))
    return Hold(entry, Mechanism(4.0, 1.0, 1), total, spare, 1, is_closed, done)


CALLS = make_study(
    privacy=NO_DP, training__app="std", training__calls=["train", "evaluate"],
    training__metrics=["loss"],
)  # fmt: skip


TASK = Task(
    STUDY.digest, 2, "train", 1, digest_bytes(b"model"), model_layout(STUDY).nbytes, 30.0, ""
)


def task_case(**changes: Any) -> TaskCase:
    task = replace(TASK, **changes.pop("task", {}))
    study = changes.pop("study", case(rounds_free=None, units=None))
    start = TaskCase(task, 30.0, GROUND, study, LAUNCHED, hold(1))
    return replace(start, **changes)


def called(phase: str, *rounds: int, trained: int = 0, later: int = 0) -> dict[str, Any]:
    """Return a request of an app's handler after those rounds, one of which has its answer."""
    before = hold(*rounds, *([trained] if trained else []), total=4)
    done = list(before.reservations)
    if trained:
        done[-1] = replace(done[-1], input_digest=TASK.model, output_digest="out")
    if later:
        done.append(replace(done[-1], round=later))
    return {
        "study": case(
            study=CALLS, policy=apps(metrics=True), facts=INSTALLED, units=None,
            rounds_free=None,
        ),
        "hold": replace(before, reservations=tuple(done)),
        "task": {"study": CALLS.digest, "phase": phase},
    }  # fmt: skip


TASK_RULES = [
    ("study-not-approved", {"study": None}, {}),
    ("study-not-approved", {"study": case(consent=NO_CONSENT)}, {}),
    ("study-not-approved", {"study": case(consent=Consent("partial"))}, {}),
    ("study-not-approved", {"study": case(consent=Consent("refused"))}, {}),
    ("digest-mismatch", {"study": case(study=make_study(training__rounds=4))}, {}),
    ("approval-revoked", {"study": case(consent=replace(CONSENT, state="revoked"))}, {}),
    ("permit-changed", {"study": case(warrant=warrant(permit_digest=DIGEST))}, {}),
    ("roster-changed", {"study": case(warrant=warrant(seats=DIGEST))}, {}),
    ("not-launched", {"standing": Standing()}, {}),
    (
        "person-not-permitted",  # a member may launch, but the permit names ada alone
        {"standing": Standing(launched_by="ben", launched_key=BEN)},
        {"standing": Standing(launched_by="the consortium", launched_key=ROOT)},
    ),
    (
        "duties-not-separate",
        {"study": case(consent=replace(CONSENT, keys=(DPO, ADA)))},
        {"study": case(consent=replace(CONSENT, keys=(DPO, BEN)))},
    ),
    ("study-halted", {"standing": replace(LAUNCHED, stopped="halted")}, {}),
    ("study-closed", {"standing": replace(LAUNCHED, stopped="closed")}, {}),
    (
        "study-closed",
        {"standing": replace(LAUNCHED, stopped="withdrawn")},
        {"standing": replace(LAUNCHED, stopped="paused")},  # the open round is finished
    ),
    ("site-not-ready", {"standing": replace(LAUNCHED, site_stopped="paused")}, {}),
    ("site-not-ready", {"standing": replace(LAUNCHED, site_stopped="halted")}, {}),
    ("phase-unknown", {"task": {"phase": "unmask"}}, {}),
    ("round-out-of-range", {"task": {"round": 5}}, {"task": {"round": 4}}),
    ("round-out-of-range", {"task": {"round": 0}}, {"task": {"round": 1}}),
    ("deadline-passed", {"seconds_left": 0.0}, {"seconds_left": 0.1}),
    ("model-wrong-size", {"task": {"model_bytes": TASK.model_bytes + 1}}, {}),
    (
        "noise-below-minimum",
        {"study": case(policy=Policy(min_noise_multiplier=5.0))},
        {"study": case(policy=Policy(min_noise_multiplier=4.0))},
    ),
    ("dataset-unknown", {"study": case(datasets=("lung",))}, {}),
    ("dataset-unregistered", {"study": case(is_registered=False)}, {}),
    ("not-held", {"hold": None}, {}),
    ("study-closed", {"hold": hold(is_closed=True)}, {}),
    (
        "study-closed",
        {"hold": hold(is_closed=True)},
        {"hold": hold(is_closed=True), "is_answered": True},
    ),
    ("round-not-increasing", {"hold": hold(3)}, {"hold": hold(3), "is_answered": True}),
    ("too-many-attempts", {"hold": hold(2, 2)}, {"hold": hold(2)}),
    ("too-many-attempts", {"hold": hold(2, 2)}, {"hold": hold(2, 2), "is_answered": True}),
    ("budget-exhausted", {"hold": hold(1, 1, 1, 1)}, {"hold": hold(1, 1, 1)}),
    ("phase-unknown", called("query", 1), called("train", 1)),
    ("phase-unknown", {"task": {"phase": "evaluate"}}, {}),  # nor in a study of train alone
    ("phase-too-early", called("evaluate", 1), called("evaluate", 1, trained=2)),
    ("phase-too-early", called("evaluate", 2), called("evaluate", 1, 1, 1, trained=2)),
    ("round-not-increasing", called("evaluate", 3, trained=2, later=3), {}),
]  # fmt: skip


GROUND_RULES = [
    ("policy-unsigned", {"is_policy_signed": False}, {}),
    ("clock-set-back", {"clock_lag_s": 300.1}, {"clock_lag_s": 300.0}),
    ("ledger-behind", {"anchors_code": "ledger-behind"}, {}),
    ("audit-behind-anchor", {"anchors_code": "audit-behind-anchor"}, {}),
    ("document-altered", {"altered": "a permit"}, {}),
]
LATE, EARLY = TODAY + dt.timedelta(days=30), TODAY - dt.timedelta(days=1)
WARRANT_RULES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("permit-unknown", {"permit": None}, {}),
    ("permit-unknown", {"permit": permit_of(permit__reference="test/2")}, {}),
    ("permit-revoked", {"permit": revoked()}, {}),
    ("permit-expired", {"day": LATE + dt.timedelta(days=1)}, {"day": LATE}),
    ("permit-not-yet-valid", {"day": EARLY - dt.timedelta(days=1)}, {"day": EARLY}),
    ("purpose-not-permitted", {"permit": permit_of(use__purposes=["education"])}, {}),
    ("site-not-on-roster", {"roster": Roster(version=2, issued_at=0.0)}, {}),
    ("site-not-permitted", {"permit": permit_of(datasets=[_of("beta", "heart")])}, {}),
    ("dataset-not-permitted", {"permit": permit_of(datasets=[_of("alpha", "lung")])}, {}),
    ("person-not-permitted", {"signer": BEN}, {"signer": ROOT}),
    ("permit-not-countersigned", {"is_countersigned": False}, {}),
]


@pytest.mark.parametrize(("expected", "bad", "good"), GROUND_RULES)
def test_unsound_ground_refuses_every_signature_and_every_request(
    expected: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    for facts, code_ in ((bad, expected), (good, "")):
        ground = replace(GROUND, **facts)
        assert code(decide_approval(case(), ground)) == code_
        assert code(decide_task(task_case(ground=ground))) == code_
        assert code(decide_task(task_case(ground=ground, is_answered=True))) == code_


@pytest.mark.parametrize(("expected", "bad", "good"), WARRANT_RULES)
def test_a_permit_that_does_not_allow_it_refuses_approval_and_work(
    expected: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    for facts, code_ in ((bad, expected), (good, "")):
        study = case(warrant=warrant(**facts))
        assert code(decide_approval(study, GROUND)) == code_
        assert code(decide_task(task_case(study=study))) == code_
        assert code(decide_task(task_case(study=study, is_answered=True))) == code_


def test_a_superseded_study_is_neither_approved_nor_run() -> None:
    old = case(is_superseded=True)
    assert code(decide_approval(old, GROUND)) == "study-superseded"
    assert code(decide_task(task_case(study=old))) == "study-superseded"


def test_an_approval_asks_policy_and_budget_too() -> None:
    assert code(decide_approval(case(rounds_free=3), GROUND)) == "budget-exhausted"
    assert decide_approval(case(consent=NO_CONSENT), GROUND) == ALLOW
    with pytest.raises(ValueError, match="warrant"):
        decide_approval(case(warrant=None), GROUND)


@pytest.mark.parametrize(("expected", "bad", "good"), TASK_RULES)
def test_a_request_is_refused_by_one_rule_and_passes_beside_it(
    expected: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    assert code(decide_task(task_case(**bad))) == expected
    assert decide_task(task_case(**good)) == ALLOW


def test_the_docstring_lists_every_code_that_the_rules_can_give() -> None:
    written = set(re.findall(r"^ +\d+  ([a-z]+-[a-z-]+) ", gate.__doc__ or "", re.MULTILINE))
    rows = [*STUDY_RULES, *GROUND_RULES, *WARRANT_RULES, *TASK_RULES]
    assert written == {row[0] for row in rows} | {"study-superseded"}


def test_every_code_of_the_gate_but_those_about_data_may_leave() -> None:
    written = set(re.findall(r"^ +\d+  ([a-z]+-[a-z-]+) ", gate.__doc__ or "", re.MULTILINE))
    assert written - {"units-below-minimum"} <= MAY_LEAVE
    assert "units-below-minimum" not in MAY_LEAVE  # it tells a count: site-not-ready leaves


@given(
    sigma=st.floats(0.11, 20), minimum=st.floats(0, 20), epsilon=st.floats(0.01, 50),
    cap=st.floats(0.01, 50),
)  # fmt: skip
def test_no_study_passes_that_breaks_the_written_policy(
    sigma: float, minimum: float, epsilon: float, cap: float
) -> None:
    policy = Policy(min_noise_multiplier=minimum, max_epsilon_per_study=cap)
    asked = make_study(**dp(noise_multiplier=sigma, epsilon=epsilon))
    decision = decide_study(case(policy=policy, study=asked, facts=StudyFacts(epsilon)))
    assert (decision == ALLOW) == (sigma >= minimum and epsilon <= cap)


@given(rounds=st.lists(st.integers(1, 4), max_size=6), number=st.integers(-1, 6))
def test_no_request_passes_that_the_ledger_would_refuse(rounds: list[int], number: int) -> None:
    held = hold(*sorted(rounds))
    decision = decide_task(task_case(task={"round": number}, hold=held))
    is_next = not rounds or number >= max(rounds)
    has_room = len(rounds) < 4 and rounds.count(number) <= 1
    assert (decision == ALLOW) == (1 <= number <= 4 and is_next and has_room)
