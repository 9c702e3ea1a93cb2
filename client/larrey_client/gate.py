"""The gate: what this hospital lets a study and a request do. Pure; values in, a decision out.

Nothing here reads a file, a clock or a ledger: the caller hands over what it found. A refusal
spends nothing, and only its code leaves the site. The first rule that says no decides.

A study on arrival, before this site's policy (`decide_study`):
     1  site-not-invited       the study does not name this site
     2  not-an-amendment       it names a version known here, and does not follow it
     3  strategy-unknown       this software cannot run the algorithm that it names as it names it
     4  mechanism-none         no epsilon, and no dataset (or not this one) allows that in writing
     5  app-not-listed         a standard Flower app that the policy does not list as unaccounted
     6  app-digest-differs     the installed app is not the one whose digest the policy lists
     7  metrics-not-listed     scalars of its evaluate or query, which no policy lets leave
     8  noise-below-minimum    less noise than the policy's minimum
     9  delta-above-cap        a larger delta than the policy allows
    10  epsilon-above-cap      a larger epsilon than the policy allows to one study
    11  mechanism-unaccounted  the accountant cannot say what the mechanism costs
    12  epsilon-understated    rounds and spare rounds cost more than the study says
  when a dataset is chosen:
    13  dataset-unknown        site.toml has no dataset of that name
    14  dataset-unregistered   this site's officer never placed it in a cohort family
    15  unit-differs           the contract counts other units than the dataset's patients
    16  units-below-minimum    fewer patients than the policy or the contract asks for
    17  budget-exhausted       the dataset's budget does not hold all rounds and spare rounds

A person's signature under a study (`decide_approval`), and again every request:
     1  document-altered       a kept document no longer verifies, or is gone
     2  policy-unsigned        site.toml says what the hospital's people did not sign
     3  clock-set-back         the clock is over five minutes behind this site's own records
     4  ledger-behind          an anchor shows that a tail of the ledger was lost
     5  audit-behind-anchor    an anchor shows that a tail of the audit trail was lost
     6  study-superseded       a later version of the study was approved here
     7  permit-unknown         no permit of the study's reference is known
     8  permit-revoked         the authority took it back
     9  permit-expired         its last day is over
    10  permit-not-yet-valid   its first day is to come
    11  purpose-not-permitted  the study's purpose is not among the permit's
    12  site-not-on-roster     the consortium vouches for no such site
    13  site-not-permitted     the permit covers nothing of this site
    14  dataset-not-permitted  the permit does not cover the dataset
    15  person-not-permitted   the permit does not name who proposed the study, or who launched it
    16  permit-not-countersigned  this site's officer has not signed the permit's newest version
    17  every rule of a study  with the dataset chosen

A request of the coordinator, before anything is fetched (`decide_task`):
     1  rules 1 to 5 above     the node stands on sound ground
     2  study-not-approved     the persons whom the policy asks have not all signed that digest
     3  digest-mismatch        the stored study is not the one that was approved
     4  approval-revoked       a person here took the approval back
     5  rules 6 to 16 above    the permit is in force, and known to this site's officer
     6  permit-changed         the approval was of another version of the permit
     7  roster-changed         the approval was of other sites or keys
     8  not-launched           no person of the consortium ordered the launch
     9  duties-not-separate    who launched it had approved it here
    10  study-halted           a person of the consortium halted it
    11  study-closed           it ended or was closed here, or this site was withdrawn
    12  site-not-ready         this site's people paused or halted it
    13  phase-unknown          not a call that the approved study names
    14  round-out-of-range     not one of the approved rounds
    15  deadline-passed        nobody waits for the answer any more
    16  model-wrong-size       not the size of the study's own model
    17  every rule of a study  the policy may have become stricter since
    18  not-held               the ledger holds nothing for the study on its dataset
  unless its answer is stored and is only sent again:
    19  phase-too-early        a later call on a model that this site has not trained
    20  round-not-increasing   a later round was reserved already
    21  too-many-attempts      other inputs for the same round than the spare rounds pay for
    22  budget-exhausted       every approved round was reserved
The last two concern train alone: the later calls of a round use what it reserved. An ended study
still sends an answer that is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from larrey_client.gate_facts import ALLOW, Decision, Ground, Refuse, StudyCase, TaskCase
from larrey_client.ground_rules import GROUND_RULES, WARRANT_RULES
from larrey_client.study_rules import STUDY_RULES
from larrey_client.task_rules import CONSENT_RULES, LAUNCH_RULES, LEDGER_RULES, TASK_RULES

__all__ = ["decide_approval", "decide_personal", "decide_study", "decide_task"]

_CaseT = TypeVar("_CaseT")


def decide_study(case: StudyCase) -> Decision:
    """Return whether policy, and the dataset if one is chosen, let the study run here."""
    return _first(STUDY_RULES, case)


def decide_approval(case: StudyCase, ground: Ground) -> Decision:
    """Return whether a person may approve the study for the chosen dataset.

    Raises:
        ValueError: there is no warrant.
    """
    for decision in (_first(GROUND_RULES, ground), _first(WARRANT_RULES, case)):
        if isinstance(decision, Refuse):
            return decision
    return decide_study(case)


def decide_task(case: TaskCase) -> Decision:
    """Return whether this request may be answered; an answered one costs nothing more."""
    decision = _consented(case)
    if isinstance(decision, Refuse):
        return decision
    return _first((*LAUNCH_RULES, *TASK_RULES, _still_allowed, *LEDGER_RULES), case)


def decide_personal(case: TaskCase) -> Decision:
    """Return whether the approved study's data may train a model that stays here.

    Rules 1 to 12 and 17 of a request; what concerns rounds and the ledger does not apply, so that
    the case has no hold.
    """
    decision = _consented(case)
    if isinstance(decision, Refuse):
        return decision
    return _first((*LAUNCH_RULES, _still_allowed), case)


def _consented(case: TaskCase) -> Decision:
    decision = _first(GROUND_RULES, case.ground)
    if isinstance(decision, Refuse):
        return decision
    decision = _first(CONSENT_RULES, case)
    if isinstance(decision, Refuse) or case.study is None:
        return decision
    return _first(WARRANT_RULES, case.study)


def _still_allowed(case: TaskCase) -> Refuse | None:
    if case.study is None:
        raise ValueError("rules after the first need a study")
    held = replace(case.study, rounds_free=None)  # its budget is held already
    decision = decide_study(held)
    return decision if isinstance(decision, Refuse) else None


def _first(rules: Sequence[Callable[[_CaseT], Refuse | None]], case: _CaseT) -> Decision:
    for rule in rules:
        refusal = rule(case)
        if refusal is not None:
            return refusal
    return ALLOW
