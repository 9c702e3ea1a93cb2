"""One request of the coordinator, from gate to signed reply.

The order is the guarantee: gate, stored answer, model, data, RESERVE (durable), training, what
would leave is checked, COMMIT (durable), sending. Everything that can refuse comes before RESERVE,
so that a refusal spends nothing; after it nothing is given back. COMMIT and sending ask the gate
once more: what was revoked or halted meanwhile does not leave. Two durable commits a round: that
an answer was delivered (SETTLE) is written with the next RESERVE. A later call of the same round
(evaluate, query) works under what train reserved and makes one durable commit: its answer's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import get_args

from larrey_client.cost import round_mechanism
from larrey_client.derived import snapshot_commitment, under_small_cell_rule
from larrey_client.exchange import Download, is_passing
from larrey_client.families import family_of
from larrey_client.flower import Incoming
from larrey_client.frames import is_sealed
from larrey_client.gate import decide_study, decide_task
from larrey_client.gate_facts import NO_STANDING, Refuse, StudyCase, TaskCase
from larrey_client.holding import held
from larrey_client.loading import load_rows
from larrey_client.node import Node
from larrey_client.outbox import Outbox, patiently
from larrey_client.padding import release_at
from larrey_client.records import Answered
from larrey_client.software import software_digest
from larrey_client.task import TRAIN, Task
from larrey_client.trainer_link import Loaded, TrainTask
from larrey_privacy.ledger_view import receipt_flags
from larrey_protocol.envelope import check_update
from larrey_protocol.errors import (
    DataError,
    LarreyError,
    Refusal,
    TransportError,
)
from larrey_protocol.models import model_layout, phase_layout
from larrey_protocol.norms import norm_bound
from larrey_protocol.refusals import ABOUT_DATA
from larrey_protocol.signed import Receipt, sign
from larrey_protocol.study import Call, DpSgd
from larrey_protocol.tensors import TensorLayout
from larrey_protocol.waypoints import reached

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

_Key = tuple[str, int, str, str]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that has a task; when it came and is due, on the monotonic clock."""

    incoming: Incoming
    task: Task
    arrived: float
    deadline: float


class Worker:
    """Answers requests, one at a time, in one thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._outbox = Outbox(node)
        self._software = software_digest()  # now: files may be replaced while it runs
        self._unsettled: dict[_Key, str] = {}  # delivered work -> the family that paid

    def answer(self, incoming: Incoming, arrived: float) -> None:
        """Answer one request: with an update, or with a code and nothing else.

        Raises:
            TransportError: the reply could not be delivered; a repeated request gets it.
            LarreyError: the node is stopping.
        """
        task = incoming.task
        if task is None:
            self._outbox.send_code(incoming, "request-malformed")
            return
        request = _Request(incoming, task, arrived, arrived + self._patience(task))
        metrics = self._node.metrics
        try:
            with metrics.timed(_kind(task)):
                answered, is_repeat = self._answered(request)
                metrics.enter("sending")
                is_taken = self._outbox.deliver(
                    incoming,
                    answered,
                    deadline=request.deadline,
                    is_repeat=is_repeat,
                    require=lambda: self._still_allowed(task),
                )
            if is_taken:
                self._unsettled[task.key] = self._family(task)
            metrics.tasks.labels(_kind(task), "ok").inc()
        except LarreyError as error:
            is_cut = isinstance(error, TransportError) and is_passing(error)
            if is_cut or self._node.stopping.is_set():
                raise
            self._refuse(request, error)
        finally:
            metrics.enter("idle")

    def report_failure(self, incoming: Incoming) -> None:
        """Tell the coordinator that this node failed, and nothing about how."""
        self._outbox.send_code(incoming, "node-failed")

    def _patience(self, task: Task) -> float:
        """Return the seconds for a request: never more than the approved study says of a round."""
        _, case = self._node.cases.of(task.study)
        return min(task.deadline_s, case.study.file.rounds.deadline_s) if case else task.deadline_s

    def _answered(self, request: _Request) -> tuple[Answered, bool]:
        """Return the answer and whether it was stored before."""
        task, node = request.task, self._node
        with node.store.reading() as records:
            stored, is_ours = records.answer(task.key), records.has_proposal(task.study)
        left = request.deadline - node.monotonic()
        if is_ours:  # no coordinator admits what another one's people stopped
            node.trainer.admit(task.study)  # before the gate is asked, which knows every stop
        approval = self._ask_gate(task, left, is_answered=stored is not None)
        reached("agent.gate-passed")
        if stored is not None:
            return stored, True
        try:
            return self._train(request, approval), False
        finally:
            self._pad(request)

    def _ask_gate(
        self, task: Task, left: float, *, is_answered: bool, is_begun: bool = False
    ) -> StudyCase:
        """Return the approved study if the gate lets the request through.

        Work that is begun is finished although this site paused the study meanwhile.

        Raises:
            Refusal: with the code of the rule that says no.
        """
        node = self._node
        ground, study = node.cases.of(task.study)
        hold = held(node.store, study.dataset, task.study) if study else None
        standing = node.cases.standing(task.study) if study else NO_STANDING
        if is_begun and standing.site_stopped == "paused":
            standing = replace(standing, site_stopped="")
        _enforce(decide_task(TaskCase(task, left, ground, study, standing, hold, is_answered)))
        if study is None:
            raise Refusal("study-not-approved", "no study of that digest was approved here")
        return study

    def _still_allowed(self, task: Task) -> None:
        """Ask the gate again about work that is done; late is no reason, the debit is made.

        Raises:
            Refusal: with the code of the rule that says no.
        """
        self._ask_gate(task, 1.0, is_answered=True, is_begun=True)

    def _family(self, task: Task) -> str:
        """Return the cohort family that pays for a study."""
        with self._node.store.reading() as records:
            decision = records.decision(task.study)
        return family_of(self._node.store, decision.dataset if decision else "")

    def _pad(self, request: _Request) -> None:
        """Wait until the time of the answer says little about the rows; a stop ends the wait."""
        node = self._node
        now, bucket = node.monotonic(), node.settings.policy.completion_bucket_s
        at = release_at(now, arrived=request.arrived, deadline=request.deadline, bucket=bucket)
        node.stopping.wait(at - now)

    def _train(self, request: _Request, approval: StudyCase) -> Answered:
        node, task, study = self._node, request.task, approval.study
        layout = model_layout(study)
        model = self._download(request, layout)
        reached("agent.model-fetched")
        try:
            _check_model(model, layout)
            node.metrics.enter("training")
            with node.trainer_turn:
                loaded = self._load(approval)
                reached("agent.rows-loaded")
                _enforce(decide_study(replace(approval, units=loaded.units)))
                if request.deadline <= node.monotonic():  # fetching and loading take their time
                    raise Refusal("deadline-passed", "the round's deadline is over")
                sequence = self._reserve(task, approval) if task.phase == TRAIN else 0
                left = min(request.deadline - node.monotonic(), node.settings.trainer.timeout_s)
                wish = TrainTask(task.study, task.round, task.phase, node.site, sequence)
                update = node.trainer.train(wish, model, timeout_s=left)
                reached("agent.trained")
        except LarreyError as error:
            if error.code == "trainer-interrupted":  # the gate says by whom, in its own code
                self._ask_gate(task, 1.0, is_answered=True)
            raise
        finally:
            os.close(model)
        snapshot = snapshot_commitment(node.store.secret(), task.study, loaded.content)
        try:
            with self._leaving(task, approval, update) as leaving:
                reached("agent.checked")
                return self._commit(task, approval, leaving, snapshot)
        finally:
            os.close(update)

    def _download(self, request: _Request, layout: TensorLayout) -> int:
        """Return the sealed model file; a cut transfer goes on where it was cut."""
        download = Download(request.task.model, layout.nbytes)

        def attempt(_: int) -> int:
            left = max(request.deadline - self._node.monotonic(), 0.001)
            with self._node.exchange.about(*request.task.key[:3]):
                self._node.exchange.fetch(download, timeout_s=left)
            return download.seal()

        try:
            return patiently(self._node, attempt, deadline=request.deadline)
        except BaseException:
            os.close(download.target)
            raise

    def _load(self, approval: StudyCase) -> Loaded:
        settings, study = self._node.settings, approval.study
        dataset = settings.dataset(approval.dataset)
        if dataset is None:
            raise Refusal("dataset-unknown", f"no dataset '{approval.dataset}' in site.toml")
        return load_rows(self._node, study, dataset)

    def _reserve(self, task: Task, approval: StudyCase) -> int:
        """Debit the round, durably; return the entry's number in the ledger.

        What was delivered before is written down in the same commit.
        """
        store, at = self._node.store, _stamp(self._node.now())
        work = (family_of(store, approval.dataset), task.study, task.round, task.model)
        with store.transaction():
            for (study, number, phase, model), family in self._unsettled.items():
                if phase == TRAIN:
                    store.ledger.settle(family, study, number, model, at)
            earlier = store.ledger.reservation(*work)
            reserve = store.ledger.reserve_again if earlier else store.ledger.reserve
            entry = reserve(*work, round_mechanism(approval.study), at)
            store.audit(
                "round-reserved", self._node.site,
                study=task.study, round=task.round, subject=task.model,
            )  # fmt: skip
            reached("agent.reserving")
        reached("agent.reserved")
        self._forget_settled()
        reached("agent.answers-dropped")
        self._show_budget(approval)
        return entry.seq

    @contextmanager
    def _leaving(self, task: Task, approval: StudyCase, update: int) -> Iterator[int]:
        """Yield the checked file that may leave: an update, or metrics by the small-cell rule."""
        study, warrant = approval.study, approval.warrant
        if not is_sealed(update):
            raise Refusal("update-malformed", "the update could still be changed")
        layout, bound = (
            phase_layout(study, task.phase),
            norm_bound(study, self._node.site, task.phase),
        )
        check_update(update, layout, norm_bound=bound)
        if task.phase == TRAIN:
            yield update
            return
        permit = warrant.permit if warrant else None
        threshold = max(approval.policy.small_cell, permit.rules.small_cell if permit else 0)
        with under_small_cell_rule(update, layout, threshold) as told:
            check_update(told, layout, norm_bound=bound)
            yield told

    def _commit(self, task: Task, approval: StudyCase, update: int, snapshot: str) -> Answered:
        """Keep what leaves, sign for it, durably."""
        study, store = approval.study, self._node.store
        digest, size = self._outbox.spool(update)
        reached("agent.update-spooled")
        family, hold = family_of(store, approval.dataset), held(store, approval.dataset, task.study)
        used = hold.rounds_used if hold else 0
        epsilon = self._node.epsilons.at(study, used, ceiling=approval.facts.epsilon)
        with self._outbox.dropped_if_refused(digest), store.transaction():
            self._still_allowed(task)
            if task.phase == TRAIN:
                store.ledger.commit(
                    family, task.study, task.round, task.model, digest,
                    _stamp(self._node.now()),
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

    def _refuse(self, request: _Request, error: LarreyError) -> None:
        """Record why there is no update and send the code."""
        node, task = self._node, request.task
        code = "site-not-ready" if _is_about_data(error) else error.code
        is_refusal = isinstance(error, Refusal)
        logger.warning("study=%s round=%d %s", task.study[:19], task.round, error)
        node.metrics.tasks.labels(_kind(task), "refused" if is_refusal else "failed").inc()
        if is_refusal:
            node.metrics.refusals.labels(code).inc()
        with node.store.transaction():
            node.store.audit(
                "request-refused" if is_refusal else "request-failed",
                node.site,
                study=task.study,
                round=task.round,
                code=error.code,
            )
        self._outbox.send_code(request.incoming, code)

    def _forget_settled(self) -> None:
        """Drop the blobs of rounds that are over: a later round was asked for."""
        for key in self._unsettled:
            with self._node.store.reading() as records:
                answered = records.answer(key)
            if answered is not None:
                self._outbox.drop(answered)
        self._unsettled.clear()

    def _show_budget(self, approval: StudyCase) -> None:
        with self._node.store.reading():
            family = family_of(self._node.store, approval.dataset)
            account = self._node.store.ledger.account(family)
        if account is not None:
            spent = account.filter.epsilon_of_units(account.used_units)
            self._node.metrics.spent.labels(approval.dataset).set(spent)
        privacy = approval.study.file.privacy
        self._node.metrics.noise.set(
            privacy.noise_multiplier if isinstance(privacy, DpSgd) else 0.0
        )


def _enforce(decision: object) -> None:
    if isinstance(decision, Refuse):
        raise Refusal(decision.code, decision.reason, decision.next_step)


def _check_model(model: int, layout: TensorLayout) -> None:
    """Refuse a model that is not the study's, or not finite; it came from outside."""
    try:
        check_update(model, layout, norm_bound=float("inf"))
    except Refusal as error:
        code = error.code.replace("update-", "model-")
        raise Refusal(code, "the model sent is not one of this study", "") from error


def _is_about_data(error: LarreyError) -> bool:
    """Return whether the code alone would tell something about rows or their number."""
    return isinstance(error, DataError) or error.code in ABOUT_DATA


def _kind(task: Task) -> str:
    """Return the phase as a metric's label; what a coordinator makes up is no label."""
    return task.phase if task.phase in get_args(Call) else "other"


def _stamp(at: float) -> str:
    return f"{at:.3f}"
