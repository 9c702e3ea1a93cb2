"""Persons decide about studies: each signature verified, kept, and acted upon once all are there.

The node never sees a personal key: a person's command signs, the node checks who signed and that
what was signed is what holds now. The last signature that the policy asks for has the data checked
and the budget held, in one durable commit with the signature and the site's `Answer`. What cannot
be carried out is not kept. Refusing and revoking take one person; both are final for that digest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from larrey_client.approvals import GivenApproval, signatures_on
from larrey_client.cost import study_facts
from larrey_client.families import is_registered
from larrey_client.gate import decide_approval
from larrey_client.gate_facts import Refuse, StudyCase, Warrant
from larrey_client.holding import (
    hold,
    release,
    require_unit,
    rounds_free,
    units_found,
)
from larrey_client.node import Node
from larrey_client.records import Decision
from larrey_client.settings import Dataset
from larrey_protocol.decisions import Approval
from larrey_protocol.errors import LarreyError, Refusal, UsageError
from larrey_protocol.people import Person, find_person, require_right
from larrey_protocol.signed import Answer, Signed, open_signed, sign
from larrey_protocol.study import Study

__all__ = ["REFUSED_BY_PERSON", "Approving", "make_decision"]

logger = logging.getLogger(__name__)

REFUSED_BY_PERSON = "refused-by-site"


@dataclass(frozen=True, slots=True)
class _Word:
    """A verified approval that may count here."""

    signed: Signed
    approval: Approval
    person: Person


class _SignedMeanwhileError(Exception):
    """Another person signed the same study while this signature was being judged."""


class Approving:
    """Where personal signatures about studies are handed in."""

    def __init__(self, node: Node, stop_work: Callable[[str], None] = lambda _: None) -> None:
        """Use ``stop_work`` to end what is running for a study whose approval is revoked."""
        self._node = node
        self._stop_work = stop_work

    def terms(self, reference: str, dataset: str | None) -> dict[str, Any]:  # Any: JSON
        """Return what a person would sign now: study, permit, seats and dataset.

        An empty ``dataset`` is none, for a refusal or a revocation; None is the only one there is.
        Of several versions of a name the newest is approved; to revoke one takes its digest.

        Raises:
            UsageError: ``study-unknown``, ``study-ambiguous`` or ``dataset-required``.
            Refusal: ``dataset-unknown``; IntegrityError: ``document-altered``.
        """
        node = self._node
        with node.store.reading() as records:
            known = records.find(reference) if dataset == "" else records.newest(reference)
        case = self._case(known.study.digest)
        kept = known.decision.dataset if known.decision else ""
        warrant = _warrant(case)
        permit = warrant.permit
        return {
            "study": known.study.digest,
            "name": known.study.name,
            "version": known.study.file.study.version,
            "site": node.site,
            "permit": warrant.permit_digest,
            "permit_reference": known.study.file.study.permit,
            "permit_version": permit.permit.version if permit else 0,
            "seats": warrant.seats,
            "is_unbounded": known.study.file.privacy.mechanism == "none",
            "dataset": "" if dataset == "" else self._choose(dataset or kept or None).name,
        }

    def decide(self, signed: Signed) -> dict[str, Any]:  # Any: JSON
        """Take in one person's approval, refusal or revocation; return what it amounts to.

        Raises:
            IntegrityError: the signature does not verify, or something kept here does not.
            Refusal: ``person-unknown``, ``role-not-allowed``, ``duties-not-separate``,
                ``approval-differs``,
                ``approval-outdated``, ``already-decided``, ``study-ended``, ``dataset-differs``,
                ``not-approved``, or the code of the gate's rule that says no.
            DataError: the data do not meet the contract.
        """
        word = self._open(signed)
        act = {"approved": self._approve, "refused": self._refuse, "revoked": self._revoke}
        made = act[word.approval.decision](word)
        if made is not None:
            return {
                "study": made.study,
                "decision": made.decision,
                "dataset": made.dataset,
                "code": made.code,
                "by": made.actor,
                "missing": [],
            }
        terms = (word.approval.permit, word.approval.seats, word.approval.dataset)
        dossier = self._node.cases.dossier
        given = dossier.approvals.get(word.approval.study, ())
        return {
            "study": word.approval.study,
            "decision": "waiting",
            "dataset": word.approval.dataset,
            "code": "",
            "by": word.person.name,
            "missing": list(signatures_on(given, terms, dossier.approvers)[1]),
        }

    def _open(self, signed: Signed) -> _Word:
        node = self._node
        dossier = node.cases.dossier
        word = open_signed(signed, Approval, signed.signer)
        person = require_right(dossier.people, signed.signer, "approve")
        if (word.site, word.person) != (node.site, person.name):
            raise Refusal(
                "approval-differs", "the approval names another site or another person", ""
            )
        return _Word(signed, word, person)

    def _approve(self, word: _Word) -> Decision | None:
        """Keep an approval; return the decision if it was the last that was missing.

        Who signs while another person's signature is being kept is judged again with it: whoever
        comes second completes the approval.
        """
        while True:
            with suppress(_SignedMeanwhileError):
                return self._approve_now(word)

    def _approve_now(self, word: _Word) -> Decision | None:
        node, store, digest = self._node, self._node.store, word.approval.study
        self._require_apart(word)
        ground, case = node.cases.of(digest)
        case = case or self._case(digest)
        dataset = self._dataset(word.approval.dataset)
        before = self._open_for_approval(case, word)
        facts = study_facts(case.study, node.settings.app(case.study.file.training.app or ""))
        is_placed = is_registered(store, dataset.name)
        case = replace(
            case, facts=facts, dataset=dataset.name, unit=dataset.unit, is_registered=is_placed
        )
        if before is None:
            parent = self._parent(case.study)
            free = rounds_free(store, dataset, case.study, parent)
            case = replace(case, rounds_free=free)
        _enforce(decide_approval(case, ground))
        if before is None:
            require_unit(store, dataset, case.study)
        missing = self._missing_after(word)
        if not missing:
            units = units_found(node, case.study, dataset)
            _enforce(decide_approval(replace(case, units=units), ground))
        actor = ", ".join(self._signers(word))
        made = None if missing else self._made(case, "approved", actor, facts.epsilon)
        with store.transaction():
            self._require_unchanged(digest, before)
            self._require_running(digest)  # reading the rows takes its time
            if self._missing_after(word) != missing:
                raise _SignedMeanwhileError
            self._keep(word)
            if made is not None:
                if before is None:
                    self._hold(case.study, dataset)
                store.add_decision(made)
                store.audit("study-approved", made.actor, study=digest, subject=digest)
        if made is not None:
            node.epsilons.prepare(case.study)
            node.metrics.budget.labels(dataset.name).set(dataset.epsilon)
            logger.info("study=%s approved dataset=%s", case.study.name, dataset.name)
        return made

    def _refuse(self, word: _Word) -> Decision:
        case, before = self._case(word.approval.study), self._decision(word.approval.study)
        if before is not None:
            raise _decided(before)
        name = word.person.name
        made = make_decision(self._node, case.study, "refused", actor=name, code=REFUSED_BY_PERSON)
        with self._node.store.transaction():
            self._require_unchanged(made.study, None)
            self._keep(word)
            self._node.store.add_decision(made)
            self._node.store.audit("study-refused", name, study=made.study, code=made.code)
        return made

    def _revoke(self, word: _Word) -> Decision:
        node, store = self._node, self._node.store
        case, before = self._case(word.approval.study), self._decision(word.approval.study)
        if before is None or before.decision != "approved":
            raise Refusal(
                "not-approved",
                "this study is not approved here, so that nothing can be revoked",
                "To say no before it is approved: larrey-site study refuse",
            )
        name = word.person.name
        made = make_decision(
            node, case.study, "revoked", actor=name, code="approval-revoked",
            dataset=before.dataset, epsilon=before.epsilon,
        )  # fmt: skip
        with store.transaction():
            self._require_unchanged(made.study, before)
            self._keep(word)
            store.add_decision(made)
            release(store, before.dataset, made.study, _stamp(node.now()))
            store.audit("approval-revoked", name, study=made.study, subject=word.signed.digest)
        self._stop_work(made.study)
        logger.warning("study=%s approval revoked by %s", case.study.name, name)
        return made

    def _open_for_approval(self, case: StudyCase, word: _Word) -> Decision | None:
        """Return the decision so far, if this approval may still change something."""
        warrant, before = _warrant(case), self._decision(case.study.digest)
        self._require_running(case.study.digest)
        if before is not None and before.decision != "approved":
            raise _decided(before)
        signed = (word.approval.permit, word.approval.seats)
        if signed != (warrant.permit_digest, warrant.seats):
            raise Refusal(
                "approval-outdated",
                "the permit or the roster is not the one that was signed",
                "Read it again: larrey-site study show",
            )
        if before is not None and (before.permit, before.seats) == signed:
            raise _decided(before)
        if before is not None and before.dataset != word.approval.dataset:
            raise Refusal("dataset-differs", f"this study was approved for {before.dataset}", "")
        return before

    def _hold(self, study: Study, dataset: Dataset) -> None:
        """Hold the study's budget; a version that it amends gives its own back."""
        store, at = self._node.store, _stamp(self._node.now())
        parent = self._parent(study)
        before = store.records.decision(parent) if parent else None
        if before is not None and before.decision == "approved":
            release(store, before.dataset, parent, at)
        hold(store, dataset, study, at)

    def _require_apart(self, word: _Word) -> None:
        """Refuse who could also launch or release: nobody outside knows who approved here."""
        if find_person(self._node.cases.dossier.roster.people, word.signed.signer) is not None:
            raise Refusal(
                "duties-not-separate",
                f"{word.person.name} is on the consortium's roster too; who may launch or release"
                " studies does not approve them",
                "Have another person of this hospital sign.",
            )

    def _parent(self, study: Study) -> str:
        """Return the version that a study amends; what another consortium proposed is none."""
        parent = study.file.study.parent
        with self._node.store.reading() as records:
            return parent if records.has_proposal(parent) else ""

    def _missing_after(self, word: _Word) -> tuple[str, ...]:
        dossier = self._node.cases.dossier
        new = GivenApproval(word.approval, word.signed.signer, word.person.role)
        given = (*dossier.approvals.get(word.approval.study, ()), new)
        terms = (word.approval.permit, word.approval.seats, word.approval.dataset)
        return signatures_on(given, terms, dossier.approvers)[1]

    def _signers(self, word: _Word) -> list[str]:
        given = self._node.cases.dossier.approvals.get(word.approval.study, ())
        names = [
            one.approval.person for one in given if one.approval.permit == word.approval.permit
        ]
        return list(dict.fromkeys([*names, word.person.name]))

    def _keep(self, word: _Word) -> None:
        store, study = self._node.store, word.approval.study
        number = len(store.records.documents("approval", study)) + 1
        store.add_document(word.signed, subject=study, number=number)
        store.audit("approval-signed", word.person.name, study=study, subject=word.signed.digest)

    def _require_unchanged(self, study: str, before: Decision | None) -> None:
        """Refuse if somebody decided meanwhile; called inside the transaction."""
        now = self._node.store.records.decision(study)
        if now is not None and now != before:
            raise _decided(now)

    def _require_running(self, study: str) -> None:
        """Refuse if the study ended or was closed: nothing would give back what it holds."""
        with self._node.store.reading() as records:
            has_ended, has_left = records.has_ended(study), bool(records.documents("departure"))
        if has_left:
            raise Refusal("site-left", "this site left the study's coordinator")
        if has_ended:
            raise Refusal("study-ended", "this study ended; nothing would run")

    def _decision(self, study: str) -> Decision | None:
        with self._node.store.reading() as records:
            return records.decision(study)

    def _case(self, digest: str) -> StudyCase:
        ground, case = self._node.cases.of(digest)
        if ground.altered:
            raise LarreyError("document-altered", ground.altered, "Open an incident.")
        if case is None:
            raise UsageError("study-unknown", "no such study here", "See: larrey-site study list")
        return case

    def _choose(self, name: str | None) -> Dataset:
        datasets = self._node.settings.datasets
        if name is None and len(datasets) == 1:
            return datasets[0]
        if name is None:
            names = ", ".join(dataset.name for dataset in datasets)
            raise UsageError("dataset-required", f"this site has {names}", "Add: --dataset NAME")
        return self._dataset(name)

    def _dataset(self, name: str) -> Dataset:
        found = self._node.settings.dataset(name)
        if found is None:
            names = ", ".join(dataset.name for dataset in self._node.settings.datasets)
            raise Refusal("dataset-unknown", f"no dataset '{name}' here", f"There is: {names}.")
        return found

    def _made(self, case: StudyCase, decision: str, actor: str, epsilon: float) -> Decision:
        warrant = _warrant(case)
        return make_decision(
            self._node, case.study, decision, actor=actor, epsilon=epsilon, dataset=case.dataset,
            permit=warrant.permit_digest, seats=warrant.seats,
        )  # fmt: skip


def make_decision(  # noqa: PLR0913  # the fields of one decision, by name
    node: Node,
    study: Study,
    decision: str,
    *,
    actor: str,
    code: str = "",
    dataset: str = "",
    epsilon: float = -1.0,
    permit: str = "",
    seats: str = "",
) -> Decision:
    """Return a decision with the site's signed answer."""
    at = node.now()
    answer = Answer.model_validate(
        {
            "study": study.digest,
            "permit": permit,
            "seats": seats,
            "site": node.site,
            "decision": decision,
            "code": code,
            "answered_at": at,
        }
    )
    signed = sign(answer, node.key).to_bytes()
    return Decision(
        study.digest, decision, dataset, code, actor, epsilon, signed, at, permit, seats
    )


def _enforce(decision: object) -> None:
    if isinstance(decision, Refuse):
        raise Refusal(decision.code, decision.reason, decision.next_step)


def _warrant(case: StudyCase) -> Warrant:
    if case.warrant is None:
        raise ValueError("a case of this site's own records has a warrant")
    return case.warrant


def _decided(decision: Decision) -> Refusal:
    return Refusal(
        "already-decided",
        f"this study was {decision.decision} by {decision.actor}; that is final for its digest",
        "Ask the consortium to propose a new version.",
    )


def _stamp(at: float) -> str:
    return f"{at:.3f}"
