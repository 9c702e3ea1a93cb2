"""A version that only runs its rounds more patiently goes on under its parent's approval.

What counts as patience is `larrey_protocol.amendments`. All versions together never take more
rounds than persons approved: the new one holds what its parent had left, in the same commit in
which the parent gives it back. Nothing is carried over from a version that is stopped: who stopped
it stopped what follows it, too, until persons here sign.
"""

from __future__ import annotations

from dataclasses import replace

from larrey_client.approving import make_decision
from larrey_client.cases import parent_in
from larrey_client.cost import study_facts
from larrey_client.gate import decide_approval
from larrey_client.gate_facts import Refuse, StudyCase
from larrey_client.holding import held, hold, release, rounds_left
from larrey_client.node import Node
from larrey_client.records import Decision
from larrey_protocol.study import Study

__all__ = ["POLICY", "carry"]

POLICY = "policy"  # the actor of what the node does by itself


def carry(node: Node, study: Study) -> Decision | None:
    """Return the approval carried over from the parent, None where persons must sign."""
    ground, case = node.cases.of(study.digest)
    if case is None or case.consent.state != "approved" or not case.consent.carried_from:
        return None
    with node.store.reading() as records:
        parent = parent_in(records, node.cases.dossier, study)
        before = records.decision(parent.digest) if parent else None
        has_ended = parent is not None and records.has_ended(parent.digest)
    if parent is None or before is None or before.decision != "approved" or has_ended:
        return None
    facts = study_facts(study, node.settings.app(study.file.training.app or ""))
    case = replace(case, facts=facts)
    if not _is_current(case) or isinstance(decide_approval(case, ground), Refuse):
        return None
    return _carried(node, case, before)


def _carried(node: Node, case: StudyCase, before: Decision) -> Decision | None:
    store, study, dataset = node.store, case.study, node.settings.dataset(before.dataset)
    if dataset is None:
        return None
    made = make_decision(
        node, study, "approved", actor=before.actor, epsilon=case.facts.epsilon,
        dataset=dataset.name, permit=case.consent.permit, seats=case.consent.seats,
    )  # fmt: skip
    at = f"{made.at:.3f}"
    with store.transaction():
        rounds = _rounds_free(node, before)  # here: a request may be worked on at this moment
        if rounds < 1:
            return None
        release(store, dataset.name, before.study, at)
        hold(store, dataset, study, at, rounds=min(rounds, study.file.training.rounds_held))
        store.add_decision(made)
        store.audit("approval-carried", POLICY, study=study.digest, subject=before.study)
    node.epsilons.prepare(study)
    return made


def _rounds_free(node: Node, before: Decision) -> int:
    """Return how many rounds the parent can give to its child; none once a person decided anew."""
    store, parent = node.store, before.study
    if store.records.decision(parent) != before or node.cases.standing(parent).refusal is not None:
        return 0
    found = held(store, before.dataset, parent)
    return rounds_left(found) if found else 0


def _is_current(case: StudyCase) -> bool:
    warrant, consent = case.warrant, case.consent
    if warrant is None:
        return False
    return (consent.permit, consent.seats) == (warrant.permit_digest, warrant.seats)
