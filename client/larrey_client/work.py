"""One request of the coordinator, from gate to signed reply.

The order is the guarantee: gate, stored answer, model, data, RESERVE (durable), training, what
would leave is checked, COMMIT (durable), sending. Everything that can refuse comes before RESERVE,
so that a refusal spends nothing; after it nothing is given back. COMMIT and sending ask the gate
once more: what was revoked or halted meanwhile does not leave. Two durable commits a round: that
an answer was delivered (SETTLE) is written with the next RESERVE. A later call of the same round
(evaluate, query) works under what train reserved and makes one durable commit: its answer's.

Requests of different studies may be worked on at once, each in a thread: fetching and sending of
one hold no other. Training, from loading the rows to the update, has the trainer's turn.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from dataclasses import replace
from typing import get_args

from larrey_client.cost import round_mechanism
from larrey_client.derived import snapshot_commitment
from larrey_client.exchange import is_passing
from larrey_client.families import family_of
from larrey_client.fetching import fetch_model
from larrey_client.flower import Incoming
from larrey_client.gate import decide_study, decide_task
from larrey_client.gate_facts import NO_STANDING, Refuse, StudyCase, TaskCase
from larrey_client.holding import held
from larrey_client.inbox import Current, Request, overtakes
from larrey_client.loading import load_rows
from larrey_client.model_spool import ModelSpool
from larrey_client.node import Node
from larrey_client.outbox import Outbox
from larrey_client.padding import release_at
from larrey_client.records import Answered
from larrey_client.release import Release
from larrey_client.remembering import incoming_layout
from larrey_client.software import software_digest
from larrey_client.task import TRAIN, Task
from larrey_client.trained import trained
from larrey_client.trainer_link import Loaded
from larrey_protocol.disk import DISK_CODES, disk_code, disk_errors
from larrey_protocol.errors import DataError, LarreyError, Refusal, TransportError
from larrey_protocol.refusals import ABOUT_DATA
from larrey_protocol.study import Call, DpSgd
from larrey_protocol.waypoints import reached

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

_Key = tuple[str, int, str, str]


class Worker:
    """Answers requests; of one study one at a time, in any thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._outbox = Outbox(node)
        # Software: as it is now, since files may be replaced while it runs.
        self._release = Release(node, self._outbox, software_digest())
        self._models = ModelSpool(node.store.folder)
        self._under_way: dict[str, Current] = {}  # by study
        self._unsettled: dict[_Key, str] = {}  # delivered work -> the family that paid
        self._kept: dict[str, list[Answered]] = {}  # by study; absent: what an earlier process left

    @property
    def under_way(self) -> list[Task]:
        """Return what is worked on now, for any thread."""
        return [current.task for current in list(self._under_way.values())]

    def heard(self, task: Task) -> None:
        """Note that a request came, from the thread that asks; it may end a training of its study.

        One that the gate refuses ends nothing.
        """
        current = self._under_way.get(task.study)
        if current is None or not overtakes(task, current.task):
            return
        try:
            self._ask_gate(task, task.deadline_s, is_answered=False)
        except Refusal:
            return
        if current.overtake(task):
            self._node.trainer.interrupt(task.study)

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
        current = Current(task)
        request = Request(incoming, current, arrived, arrived + self._patience(task))
        metrics = self._node.metrics
        self._under_way[task.study] = current
        try:
            with metrics.timed(_kind(task)), disk_errors():
                answered, is_repeat = self._answered(request)
                if task.study in self._kept:
                    self._kept[task.study].append(answered)
                metrics.enter("sending")
                is_taken = self._outbox.deliver(
                    incoming,
                    answered,
                    deadline=self._until(request),
                    is_repeat=is_repeat,
                    require=lambda: self._still_awaited(current),
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
            del self._under_way[task.study]
            metrics.enter("idle")

    def report_failure(self, incoming: Incoming) -> None:
        """Tell the coordinator that this node failed, and nothing about how."""
        self._outbox.send_code(incoming, "node-failed")

    def _patience(self, task: Task) -> float:
        """Return the seconds for a request: never more than the approved study says of a round."""
        study = self._node.cases.study(task.study)
        return min(task.deadline_s, study.file.rounds.deadline_s) if study else task.deadline_s

    def _until(self, request: Request) -> float:
        """Return how long an answer is delivered: it is paid for, and the round may be extended."""
        patience = self._node.settings.trainer.timeout_s
        return max(request.deadline, self._node.monotonic() + patience)

    def _answered(self, request: Request) -> tuple[Answered, bool]:
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
        self._require_hour(task)
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

    def _still_awaited(self, current: Current) -> None:
        """As `_still_allowed`, about an answer that is being sent.

        Raises:
            Refusal: ``superseded`` too.
        """
        current.require()
        self._still_allowed(current.task)

    def _still_wanted(self, request: Request) -> None:
        """Ask the gate again: fetching, and others' turns at the trainer, may take long.

        Raises:
            Refusal: ``superseded``, or the code of the rule that says no; nothing is spent.
        """
        request.current.require()
        left = request.deadline - self._node.monotonic()
        self._ask_gate(request.task, left, is_answered=False, is_begun=True)
        self._require_hour(request.task)

    def _require_hour(self, task: Task) -> None:
        """Return if training may begin now.

        Raises:
            Refusal: ``outside-window``.
        """
        node = self._node
        if task.phase == TRAIN and not node.settings.trainer.hours.admits(node.now()):
            raise Refusal("outside-window", "no training begins at this hour")

    def _family(self, task: Task) -> str:
        """Return the cohort family that pays for a study."""
        with self._node.store.reading() as records:
            decision = records.decision(task.study)
        return family_of(self._node.store, decision.dataset if decision else "")

    def _pad(self, request: Request) -> None:
        """Wait until the time of the answer says little about the rows; a stop ends the wait."""
        node = self._node
        if request.current.is_overtaken:  # when that was is the coordinator's doing
            return
        now, bucket = node.monotonic(), node.settings.policy.completion_bucket_s
        at = release_at(now, arrived=request.arrived, deadline=request.deadline, bucket=bucket)
        node.stopping.wait(at - now)

    def _train(self, request: Request, approval: StudyCase) -> Answered:
        node, task, study = self._node, request.task, approval.study
        layout = incoming_layout(study)
        model = fetch_model(node, self._models, request.current, layout, deadline=request.deadline)
        reached("agent.model-fetched")
        try:
            with node.trainer_turn.awaited(lambda: self._still_wanted(request)):
                node.metrics.enter("training")
                loaded = self._load(approval)
                reached("agent.rows-loaded")
                _enforce(decide_study(replace(approval, units=loaded.units)))
                if request.deadline <= node.monotonic():  # fetching and loading take their time
                    raise Refusal("deadline-passed", "the round's deadline is over")
                update = self._pay_and_train(request, approval, model)
                reached("agent.trained")
        except LarreyError as error:
            if error.code == "trainer-interrupted":  # the gate says by whom, in its own code
                self._ask_gate(task, 1.0, is_answered=True)
                request.current.require()
            raise
        finally:
            os.close(model)
        snapshot = snapshot_commitment(node.store.secret(), task.study, loaded.content)
        try:
            return self._release.release(
                task,
                approval,
                update,
                snapshot=snapshot,
                require=lambda: self._still_allowed(task),
            )
        finally:
            os.close(update)

    def _pay_and_train(self, request: Request, approval: StudyCase, model: int) -> int:
        """Reserve the round and return what the trainer makes of it.

        Once it is paid for it is finished, whatever the deadline: a repetition then gets the
        answer. Only a later round of the study, or a person, ends it.

        Raises:
            Refusal: ``superseded``; nothing is spent.
        """
        node, task = self._node, request.task
        request.current.start_training()
        try:
            sequence = self._reserve(task, approval) if task.phase == TRAIN else 0
            return trained(node, task, approval, model, sequence)
        finally:
            request.current.stop_training()

    def _load(self, approval: StudyCase) -> Loaded:
        settings, study = self._node.settings, approval.study
        dataset = settings.dataset(approval.dataset)
        if dataset is None:
            raise Refusal("dataset-unknown", f"no dataset '{approval.dataset}' in site.toml")
        return load_rows(self._node, study, dataset)

    def _reserve(self, task: Task, approval: StudyCase) -> int:
        """Debit the round, durably; return the entry's number in the ledger.

        What was delivered before is written down in the same commit, whichever study it is of; who
        has the trainer's turn does this alone.
        """
        delivered = list(self._unsettled.items())
        store, at = self._node.store, _stamp(self._node.now())
        work = (family_of(store, approval.dataset), task.study, task.round, task.model)
        with store.transaction():
            for (study, number, phase, model), family in delivered:
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
        for key, _ in delivered:
            del self._unsettled[key]
        self._drop_answers(task)
        reached("agent.answers-dropped")
        self._show_budget(approval)
        return entry.seq

    def _refuse(self, request: Request, error: LarreyError) -> None:
        """Record why there is no update and send the code."""
        node, task = self._node, request.task
        is_own = _is_about_data(error) or error.code in DISK_CODES
        code = "site-not-ready" if is_own else error.code
        is_refusal = isinstance(error, Refusal)
        logger.warning("study=%s round=%d %s", task.study[:19], task.round, error)
        node.metrics.tasks.labels(_kind(task), "refused" if is_refusal else "failed").inc()
        if is_refusal:
            node.metrics.refusals.labels(code).inc()
        try:
            with node.store.transaction():
                node.store.audit(
                    "request-refused" if is_refusal else "request-failed",
                    node.site,
                    study=task.study,
                    round=task.round,
                    code=error.code,
                )
        except sqlite3.Error:  # what leaves is on the log at the border, or does not leave
            logger.exception("not on record code=%s", error.code)
        node.store.failed(disk_code(error))
        self._outbox.send_code(request.incoming, code)

    def _drop_answers(self, task: Task) -> None:
        """Drop the blobs of the study's rounds that are over: a later one was asked for."""
        over = self._kept.pop(task.study, None)
        if over is None:
            with self._node.store.reading() as records:
                over = records.answers(task.study)
        others = list(self._kept.values())  # the same bytes may be another study's answer
        needed = {answered.update for kept in others for answered in kept}
        for answered in over:
            if answered.update not in needed:
                self._outbox.drop(answered)
        self._kept[task.study] = []

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


def _is_about_data(error: LarreyError) -> bool:
    """Return whether the code alone would tell something about rows or their number."""
    return isinstance(error, DataError) or error.code in ABOUT_DATA


def _kind(task: Task) -> str:
    """Return the phase as a metric's label; what a coordinator makes up is no label."""
    return task.phase if task.phase in get_args(Call) else "other"


def _stamp(at: float) -> str:
    return f"{at:.3f}"
