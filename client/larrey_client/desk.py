"""What arrives from the consortium and what this site answers: verify, keep, refuse, send.

Only what is signed under the pinned consortium key is kept. Policy refuses by itself; persons
decide in `larrey_client.approving`. A decision is stored before it is sent; what could not be sent
is sent again when the coordinator answers next.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from larrey_client.apart import apart
from larrey_client.approving import make_decision
from larrey_client.carrying import POLICY, carry
from larrey_client.cases import parent_in
from larrey_client.consortium import Intake
from larrey_client.cost import study_facts
from larrey_client.exchange import code_of
from larrey_client.gate import decide_study
from larrey_client.gate_facts import Refuse, StudyCase
from larrey_client.holding import release
from larrey_client.memberships import require_free
from larrey_client.node import Node
from larrey_client.order_intake import OrderIntake
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import IntegrityError, LarreyError
from larrey_protocol.roster import open_under
from larrey_protocol.signed import Proposal, Signed
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached

__all__ = ["Desk"]

logger = logging.getLogger(__name__)

_MAX_REJECTED = 100  # put on record in one run of the node; each is a durable commit


class Desk:
    """Where proposals arrive and decisions leave."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sending = threading.Lock()
        self._intake = Intake(node.store, node.membership.consortium.key)
        self._orders = OrderIntake(node.store, node.site)
        self._rejected: set[str] = set()  # digests of documents that did not verify
        self._has_seen = False

    @property
    def has_seen_anchors(self) -> bool:
        """Return whether the coordinator told this process what it knows of the site's ledger."""
        return self._has_seen

    def sync(self) -> int:
        """Take in what is proposed, refuse what policy forbids; return the list's revision.

        Raises:
            TransportError: the coordinator cannot be asked.
        """
        reply = self._node.exchange.studies()
        self._node.anchors.seen(reply.anchors)
        self._has_seen = True
        self._intake.take(map(bytes, reply.rosters), map(bytes, reply.permits))
        for data in reply.proposals:
            with apart("a proposal"):
                self._receive(bytes(data))
        for study in self._orders.take(map(bytes, reply.orders), self._node.cases.dossier):
            self._node.trainer.interrupt(study)
        for study in reply.ended:
            with apart("the end of a study"):
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
                    node.store.add_delivery(decision.number, code_of(reply))
                if not reply.recorded:
                    # %r: the code is the coordinator's own text
                    logger.warning(
                        "study=%s answer not taken code=%r", decision.study, code_of(reply)
                    )

    def _receive(self, data: bytes) -> None:
        """Keep one proposal if it is signed under the consortium's key and new; then judge it."""
        node = self._node
        if digest_bytes(data) in self._rejected:
            return
        try:
            signed = Signed.from_bytes(data)
            with node.store.reading() as records:
                if records.is_kept_proposal(signed):
                    return  # perhaps of an earlier consortium key, which signs nothing new
            dossier = node.cases.dossier
            study = open_under(
                signed, Proposal, "propose", consortium=dossier.keys[-1], roster=dossier.roster
            ).study
            with node.store.reading() as records:
                if records.has_proposal(study.digest):
                    return
                require_free(records, study.digest)
        except LarreyError as error:
            self._reject(data, error)
            return
        with node.store.transaction():
            node.store.add_proposal(study.digest, signed)
            node.store.audit(
                "study-proposed", signed.signer, study=study.digest, subject=signed.digest
            )
        self._judge(study)

    def _judge(self, study: Study) -> None:
        """Refuse what policy forbids, carry over what persons approved already, else wait."""
        node = self._node
        refusal = self._refusal(study)
        if refusal is not None:
            made = make_decision(node, study, "refused", actor=POLICY, code=refusal.code)
            with node.store.transaction():
                node.store.add_decision(made)
                node.store.audit("study-refused", POLICY, study=made.study, code=made.code)
            node.metrics.refusals.labels(refusal.code).inc()
            logger.warning("study=%s refused by policy code=%s", study.name, refusal.code)
        elif carry(node, study) is not None:
            logger.info("study=%s goes on under its parent's approval", study.name)
        else:
            node.epsilons.prepare(study)  # ready by the time a person has read it
            logger.info("study=%s proposed; waits for `larrey-site study approve`", study.name)

    def _refusal(self, study: Study) -> Refuse | None:
        """Return what policy says no with; a policy that nobody signed says nothing."""
        node = self._node
        if not node.cases.ground().is_policy_signed:
            return None
        decision = decide_study(self._case(study))
        return decision if isinstance(decision, Refuse) else None

    def _reject(self, data: bytes, error: LarreyError) -> None:
        digest = digest_bytes(data)  # with its signature: a forged copy shuts out no true one
        if len(self._rejected) >= _MAX_REJECTED:
            return
        self._rejected.add(digest)
        logger.error("a proposal was rejected: %s", error)
        with self._node.store.transaction():
            self._node.store.audit(
                "proposal-rejected", self._node.store.coordinator, subject=digest, code=error.code
            )

    def _end(self, study: str) -> None:
        """Give back what a finished study no longer needs; what it used stays used."""
        store, at = self._node.store, f"{self._node.now():.3f}"
        with store.reading() as records:
            decision = records.decision(study)
            if not records.has_proposal(study) or records.has_ended(study):
                return
        with store.transaction():
            store.add_ending(study)
            store.audit("study-ended", store.coordinator, study=study)
            if decision is not None and decision.decision == "approved":
                release(store, decision.dataset, study, at)
        reached("agent.study-ended")

    def _case(self, study: Study) -> StudyCase:
        node, settings = self._node, self._node.settings
        facts = study_facts(study, settings.app(study.file.training.app or ""))
        names = tuple(dataset.name for dataset in settings.datasets)
        parent = None
        with node.store.reading() as records, suppress(IntegrityError):  # the gate will say so
            parent = parent_in(records, node.cases.dossier, study)
        return StudyCase(node.site, settings.policy, study, facts, names, parent=parent)
