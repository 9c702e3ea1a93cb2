"""What a training made, on its way out: checked, kept, debited and signed for, durably.

One commit holds the ledger's entry, the audit record and the answer with its receipt, so that what
is sent is on record and what is on record can be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from larrey_client.derived import under_small_cell_rule
from larrey_client.families import family_of
from larrey_client.frames import is_sealed
from larrey_client.gate_facts import StudyCase
from larrey_client.holding import held
from larrey_client.node import Node
from larrey_client.outbox import Outbox
from larrey_client.records import Answered
from larrey_client.task import TRAIN, Task
from larrey_privacy.ledger_view import receipt_flags
from larrey_protocol.envelope import check_update, require_zeros
from larrey_protocol.errors import Refusal
from larrey_protocol.models import phase_layout
from larrey_protocol.signed import Receipt, sign
from larrey_protocol.study import DpSgd
from larrey_protocol.waypoints import reached
from larrey_strategies.drift import update_bound
from larrey_strategies.local_tensors import local_spans

__all__ = ["Release"]


class Release:
    """Turns what the trainer gave into a stored answer; ``software`` is what receipts name."""

    def __init__(self, node: Node, outbox: Outbox, software: str) -> None:
        self._node = node
        self._outbox = outbox
        self._software = software

    def release(
        self,
        task: Task,
        approval: StudyCase,
        update: int,
        *,
        snapshot: str,
        require: Callable[[], object],
    ) -> Answered:
        """Return the answer, stored.

        Args:
            task: what was asked.
            approval: of its study.
            update: sealed memory file with an update or metrics; the caller closes it.
            snapshot: commitment to the rows, for the receipt.
            require: asked inside the commit; raises if the answer may not leave any more.

        Raises:
            Refusal: ``update-…`` or ``small-cell``; as ``require``. Nothing is kept then.
            LarreyError: ``disk-full``.
        """
        with self._leaving(task, approval, update) as leaving:
            reached("agent.checked")
            return self._commit(task, approval, leaving, snapshot, require)

    @contextmanager
    def _leaving(self, task: Task, approval: StudyCase, update: int) -> Iterator[int]:
        """Yield the checked file that may leave: an update, or metrics by the small-cell rule."""
        study, warrant = approval.study, approval.warrant
        if not is_sealed(update):
            raise Refusal("update-malformed", "the update could still be changed")
        layout, bound = (
            phase_layout(study, task.phase),
            update_bound(study, self._node.site, task.phase),
        )
        check_update(update, layout, norm_bound=bound)
        if task.phase == TRAIN:
            require_zeros(update, layout, local_spans(study))
            yield update
            return
        permit = warrant.permit if warrant else None
        threshold = max(approval.policy.small_cell, permit.rules.small_cell if permit else 0)
        with under_small_cell_rule(update, layout, threshold) as told:
            check_update(told, layout, norm_bound=bound)
            yield told

    def _commit(
        self,
        task: Task,
        approval: StudyCase,
        update: int,
        snapshot: str,
        require: Callable[[], object],
    ) -> Answered:
        """Keep what leaves, sign for it, durably."""
        study, store = approval.study, self._node.store
        digest, size = self._outbox.spool(task.study, update)
        reached("agent.update-spooled")
        family, hold = family_of(store, approval.dataset), held(store, approval.dataset, task.study)
        used = hold.rounds_used if hold else 0
        epsilon = self._node.epsilons.at(study, used, ceiling=approval.facts.epsilon)
        with self._outbox.dropped_if_refused(digest), store.transaction():
            require()
            if task.phase == TRAIN:
                store.ledger.commit(
                    family, task.study, task.round, task.model, digest,
                    f"{self._node.now():.3f}",
                )  # fmt: skip
            store.audit(
                "update-released" if task.phase == TRAIN else "metrics-released", self._node.site,
                study=task.study, round=task.round, subject=digest,
            )  # fmt: skip
            draft = self._receipt(task, approval, (digest, size), epsilon)
            receipt = sign(draft.model_copy(update={"snapshot": snapshot}), self._node.key)
            answered = Answered(digest, size, receipt.to_bytes())
            store.add_answer(task.key, answered)
            reached("agent.answer-committing")
        reached("agent.answer-committed")
        self._node.anchors.publish()
        if task.phase == TRAIN:
            self._node.metrics.train_steps.inc(study.file.training.local_steps)
        return answered

    def _receipt(
        self, task: Task, approval: StudyCase, update: tuple[str, int], epsilon: float
    ) -> Receipt:
        privacy, store = approval.study.file.privacy, self._node.store
        account = store.ledger.account(family_of(store, approval.dataset))
        return Receipt(
            study=task.study,
            site=self._node.site,
            round=task.round,
            phase=task.phase,
            model_in=task.model,
            update=update[0],
            update_bytes=update[1],
            epsilon=epsilon,
            delta=privacy.delta if isinstance(privacy, DpSgd) else 0.0,
            accountant="pld" if isinstance(privacy, DpSgd) else "none",
            ledger_head=store.ledger_head,
            audit_head=store.audit_head,
            peer_head=task.peer_head,
            permit=approval.consent.permit,
            flags=receipt_flags(account) if account else (),
            software=self._software,
            actor=self._node.cases.standing(task.study).launched_key,
            at=self._node.now(),
        )
