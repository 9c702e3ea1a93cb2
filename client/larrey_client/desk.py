"""Proposals and this site's answers to them: verify, refuse what policy forbids, let people decide.

Only what the pinned consortium key signed is kept. A decision is final for its digest, is stored
with the budget it holds in one durable commit, and only then sent; what could not be sent is sent
again when the coordinator answers next.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from larrey_client.cost import round_mechanism, study_facts, total_mechanism, unit_of
from larrey_client.gate import Refuse, StudyCase, decide_study
from larrey_client.loading import load_rows
from larrey_client.node import Node
from larrey_client.records import Decision, Known
from larrey_client.settings import Dataset
from larrey_privacy.accounting import spend_cost
from larrey_privacy.filter import make_filter
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import IntegrityError, Refusal, UsageError
from larrey_protocol.signed import Answer, Proposal, Signed, open_signed, sign
from larrey_protocol.study import Study

__all__ = ["Desk"]

logger = logging.getLogger(__name__)

POLICY = "policy"  # the actor of an automatic refusal
REFUSED_BY_PERSON = "refused-by-site"
_TRAINER_PATIENCE_S = 5.0


class Desk:
    """Where proposals arrive and decisions leave."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sending = threading.Lock()
        self._rejected: set[str] = set()  # digests of documents that did not verify

    def sync(self) -> int:
        """Take in what is proposed, refuse what policy forbids; return the list's revision.

        Raises:
            TransportError: the coordinator cannot be asked.
        """
        reply = self._node.exchange.studies()
        for data in reply.proposals:
            self._receive(bytes(data))
        for study in reply.ended:
            self._end(study)
        self.send_decisions()
        return reply.revision

    def prepare(self) -> None:
        """Compute ahead what running studies will need, after a restart."""
        store = self._node.store
        with store.reading() as records:
            running = [known for known in records.known() if known.state == "approved"]
        for known in running:
            self._node.epsilons.prepare(known.study)

    def send_decisions(self) -> None:
        """Send every decision that the coordinator does not have yet.

        Raises:
            TransportError: the coordinator cannot be reached.
        """
        node = self._node
        with self._sending:
            with node.store.reading() as records:
                waiting = records.undelivered()
            for decision in waiting:
                reply = node.exchange.answer(decision.signed)
                with node.store.transaction():
                    node.store.add_delivery(decision.number, reply.code)
                if not reply.recorded:
                    # %r: the code is the coordinator's own text
                    logger.warning("study=%s answer not taken code=%r", decision.study, reply.code)

    def approve(self, reference: str, dataset: str | None, actor: str) -> Decision:
        """Approve a study for a dataset and hold its budget.

        Raises:
            UsageError: ``study-unknown``, ``study-ambiguous`` or ``dataset-required``.
            Refusal: ``already-decided``, ``study-ended``, or the code of the rule that says no.
            DataError: the data do not meet the contract.
        """
        node, known = self._node, self._undecided(reference)
        if known.has_ended:
            raise Refusal("study-ended", "the coordinator ended this study; nothing would run")
        chosen = self._choose(dataset)
        case = replace(self._case(known.study), dataset=chosen.name, unit=chosen.unit)
        case = replace(case, rounds_free=self._rounds_free(chosen, known.study))
        _enforce(case)
        self._require_unit(chosen, known.study)
        _enforce(replace(case, units=self._units(known.study, chosen)))
        made = self._decision(known.study, "approved", actor, case.facts.epsilon, chosen.name)
        with node.store.transaction():
            self._still_undecided(known.study)
            self._hold(chosen, known.study)
            node.store.add_decision(made)
            node.store.audit("study-approved", actor, study=made.study, subject=made.study)
        node.epsilons.prepare(known.study)
        self._show_budget(chosen)
        logger.info("study=%s approved dataset=%s actor=%s", known.study.name, chosen.name, actor)
        return made

    def refuse(self, reference: str, actor: str) -> Decision:
        """Refuse a study on a person's word.

        Raises:
            UsageError: ``study-unknown`` or ``study-ambiguous``.
            Refusal: ``already-decided``.
        """
        known = self._undecided(reference)
        made = self._decision(known.study, "refused", actor, -1.0, code=REFUSED_BY_PERSON)
        self._record_refusal(known.study, made)
        return made

    def _receive(self, data: bytes) -> None:
        """Keep one proposal if the consortium signed it and it is new."""
        node = self._node
        try:
            signed = Signed.from_bytes(data)
            if signed.digest in self._rejected:
                return
            study = open_signed(signed, Proposal, node.settings.consortium.key).study
        except IntegrityError as error:
            self._reject(data, error)
            return
        with node.store.reading() as records:
            if records.has_proposal(study.digest):
                return
        with node.store.transaction():
            node.store.add_proposal(study.digest, signed)
            node.store.audit(
                "study-proposed", signed.signer, study=study.digest, subject=signed.digest
            )
        decision = decide_study(self._case(study))
        if isinstance(decision, Refuse):
            made = self._decision(study, "refused", POLICY, -1.0, code=decision.code)
            self._record_refusal(study, made)
            node.metrics.refusals.labels(decision.code).inc()
            logger.warning("study=%s refused by policy code=%s", study.name, decision.code)
        else:
            node.epsilons.prepare(study)  # ready by the time a person has read it
            logger.info("study=%s proposed; waits for `larrey-site study approve`", study.name)

    def _reject(self, data: bytes, error: IntegrityError) -> None:
        try:
            digest = Signed.from_bytes(data).digest
        except IntegrityError:
            digest = ""
        if digest in self._rejected:
            return
        self._rejected.add(digest)
        logger.error("a proposal was rejected: %s", error)
        with self._node.store.transaction():
            self._node.store.audit(
                "proposal-rejected", "coordinator", subject=digest, code=error.code
            )

    def _record_refusal(self, study: Study, made: Decision) -> None:
        with self._node.store.transaction():
            self._still_undecided(study)
            self._node.store.add_decision(made)
            self._node.store.audit("study-refused", made.actor, study=made.study, code=made.code)

    def _end(self, study: str) -> None:
        """Give back what a finished study no longer needs; what it used stays used."""
        store, at = self._node.store, f"{self._node.now():.3f}"
        with store.reading() as records:
            decision = records.decision(study)
            if not records.has_proposal(study) or records.has_ended(study):
                return
        with store.transaction():
            store.add_ending(study)
            store.audit("study-ended", "coordinator", study=study)
            if decision is not None and decision.decision == "approved":
                store.ledger.release(decision.dataset, study, at)

    def _undecided(self, reference: str) -> Known:
        with self._node.store.reading() as records:
            known = records.find(reference)
        if known.decision is not None:
            raise _decided(known.decision)
        return known

    def _still_undecided(self, study: Study) -> None:
        with self._node.store.reading() as records:
            decision = records.decision(study.digest)
        if decision is not None:
            raise _decided(decision)

    def _choose(self, name: str | None) -> Dataset:
        datasets = self._node.settings.datasets
        if name is None and len(datasets) == 1:
            return datasets[0]
        names = ", ".join(dataset.name for dataset in datasets)
        if name is None:
            raise UsageError("dataset-required", f"this site has {names}", "Add: --dataset NAME")
        found = self._node.settings.dataset(name)
        if found is None:
            raise Refusal("dataset-unknown", f"no dataset '{name}' here", f"There is: {names}.")
        return found

    def _case(self, study: Study) -> StudyCase:
        settings = self._node.settings
        rule = settings.app(study.file.training.app or "")
        names = tuple(dataset.name for dataset in settings.datasets)
        facts = study_facts(study, rule)
        return StudyCase(self._node.site, settings.policy, study, facts, names)

    def _rounds_free(self, dataset: Dataset, study: Study) -> int | None:
        one = round_mechanism(study)
        if not isinstance(one, Mechanism):
            return None
        with self._node.store.reading():
            account = self._node.store.ledger.account(dataset.name)
        if account is not None:
            return account.free_units // spend_cost(one, account.filter)
        budget = make_filter(dataset.epsilon, dataset.delta)
        return budget.capacity_units // spend_cost(one, budget)

    def _units(self, study: Study, dataset: Dataset) -> int | None:
        """Return how many patients the data hold, None while the trainer is busy."""
        node = self._node
        if not node.trainer_turn.acquire(timeout=_TRAINER_PATIENCE_S):
            logger.warning("study=%s data are checked at the first round", study.name)
            return None
        try:
            return load_rows(node, study, dataset).units
        finally:
            node.trainer_turn.release()

    def _require_unit(self, dataset: Dataset, study: Study) -> None:
        """Refuse a study that protects other units than the dataset's budget was made for."""
        with self._node.store.reading():
            account = self._node.store.ledger.account(dataset.name)
        if account is not None and account.unit != unit_of(study):
            raise Refusal(
                "unit-differs",
                f"the study protects one {unit_of(study)}, the budget of '{dataset.name}' one"
                f" {account.unit}",
                "Ask for a contract with the same unit.",
            )

    def _hold(self, dataset: Dataset, study: Study) -> None:
        ledger, at = self._node.store.ledger, f"{self._node.now():.3f}"
        budget = make_filter(dataset.epsilon, dataset.delta)
        ledger.register(dataset.name, budget, unit_of(study), at)
        training = study.file.training
        ledger.hold(
            dataset.name,
            study.digest,
            total_mechanism(study),
            training.rounds_held,
            at,
            spare_rounds=training.spare_rounds,
        )

    def _decision(
        self,
        study: Study,
        decision: str,
        actor: str,
        epsilon: float,
        dataset: str = "",
        *,
        code: str = "",
    ) -> Decision:
        at = self._node.now()
        answer = Answer.model_validate(
            {
                "study": study.digest,
                "site": self._node.site,
                "decision": decision,
                "code": code,
                "answered_at": at,
            }
        )
        signed = sign(answer, self._node.key).to_bytes()
        return Decision(study.digest, decision, dataset, code, actor, epsilon, signed, at)

    def _show_budget(self, dataset: Dataset) -> None:
        self._node.metrics.budget.labels(dataset.name).set(dataset.epsilon)


def _enforce(case: StudyCase) -> None:
    decision = decide_study(case)
    if isinstance(decision, Refuse):
        raise Refusal(decision.code, decision.reason, decision.next_step)


def _decided(decision: Decision) -> Refusal:
    return Refusal(
        "already-decided",
        f"this study was {decision.decision} by {decision.actor}; that is final for its digest",
        "Ask the consortium to propose a new version.",
    )
