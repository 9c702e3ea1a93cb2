"""Carries out what the rules of rounds decide for one study: journal, worker, courier, checkpoints.

Single-threaded: `handle` takes one message after the other (`larrey_server.conductor` feeds it
from an inbox; tests feed it directly). A commit always comes before what it announces. The worker
answers through ``post``, as a message like any other. What a kill interrupts is done again after
the restart: sites answer from their store, aggregation is deterministic.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from larrey_protocol.errors import IntegrityError
from larrey_protocol.models import phase_layout
from larrey_protocol.norms import norm_bound
from larrey_protocol.signed import Receipt, sign
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server.certificate import make_certificate
from larrey_server.checkpoints import Checkpoints
from larrey_server.contributions import averaging, mean_metrics
from larrey_server.journal import ContributionRow, Transition
from larrey_server.late_answers import is_too_late
from larrey_server.receipt_check import matching_receipt
from larrey_server.round_values import (
    Action,
    Aggregate,
    Aggregated,
    Cancel,
    Cell,
    Commit,
    Event,
    Launched,
    Replied,
    Reply,
    Resumed,
    Send,
    State,
    Task,
    Ticked,
    plan_of,
    restore,
    snapshot,
)
from larrey_server.rounds import advance, begin, deadline, expects, next_wake, task_key
from larrey_server.step_record import late_record, step_record
from larrey_server.study_messages import Arrived, Averaged, Checked, Late, Message, Surroundings
from larrey_server.watching import changes, describe

__all__ = ["Arrived", "Averaged", "Checked", "Message", "StudyRun", "Surroundings"]

_CODE = re.compile(r"[a-z][a-z0-9-]{2,47}")  # as `larrey_protocol.errors` has it

logger = logging.getLogger(__name__)


class StudyRun:
    """One study; `state` is what the journal holds plus the answers of the open attempt."""

    def __init__(self, study: Study, around: Surroundings, post: Callable[[Message], None]) -> None:
        self._study = study
        self._around = around
        self._post = post
        self._checkpoints = Checkpoints(around.studies, study)
        self._checking: dict[str, Arrived] = {}
        self._signed: dict[str, dict[str, bytes]] = {}  # receipts of the open attempt, by phase
        self._uploads: set[str] = set()  # updates that counted in some attempt of the open round
        self._kept: set[str] = set()  # updates that nobody else may drop from the spool
        self._sent: dict[str, Task] = {}
        self._late: set[tuple[str, int, str]] = set()  # answers that came too late, as told
        self._offered = ""  # digest of the model that sites may fetch
        self._epsilon: dict[str, float] = {}
        self.state = self._recall()

    def handle(self, message: Message) -> None:
        """Take one message; all consequences are carried out when it returns."""
        match message:
            case Arrived():
                self._arrived(message)
            case Late():
                self._ignore(Arrived(message.at, message.site, message.key, "", None, ""))
            case Checked():
                self._checked(message)
            case Averaged():
                self._averaged(message)
            case Launched():
                self._launched(message)
            case Resumed():
                self._resumed(message)
            case Ticked() if self._checking:
                pass  # an answer that came in time is still being checked
            case _:
                self._feed(message)

    def wake(self) -> float | None:
        """Return when `Ticked` is due next, None while only messages matter."""
        return None if self._checking else next_wake(self.state, self._around.clock())

    def status(self) -> dict[str, Any]:  # Any: JSON
        """Return the facts a person watches; safe to call from any thread."""
        return describe(
            self._study,
            self.state,
            at=self._around.clock(),
            checking=tuple(self._checking),
            epsilon=dict(self._epsilon),
            wall=self._around.wall(),
        )

    def _recall(self) -> State:
        """Return the journal's last state, or the one before launch."""
        journal, plan = self._around.journal, plan_of(self._study)
        kept = journal.snapshot(self._study.digest)
        for row in journal.contributions(self._study.digest):
            self._keep_epsilon(row.cell.site, row.cell.epsilon)
        return restore(plan, kept) if kept else begin(plan, "")

    def _keep_epsilon(self, site: str, epsilon: float) -> None:
        if epsilon >= 0:
            self._epsilon[site] = epsilon

    def _launched(self, event: Launched) -> None:
        if self.state.status == "waiting":
            self.state = replace(self.state, model=self._checkpoints.begin())
            self._feed(event)

    def _resumed(self, event: Resumed) -> None:
        """Go on where the journal ends, with a model that is still what it was."""
        state = self.state
        if state.status in {"waiting", "ended"}:
            return
        if not self._checkpoints.holds(state.applied, state.model):
            raise IntegrityError(
                "checkpoint-broken",
                f"the model after round {state.applied} is missing or is not the recorded one",
                "Restore the studies folder from a backup, then start again.",
            )
        self._offer()
        self._feed(event)

    def _arrived(self, answer: Arrived) -> None:
        """Judge an answer: its receipt here, its update in the worker."""
        is_owed = expects(self.state, answer.site, answer.key, answer.code)
        if not is_owed or self._is_checking(answer.site):
            self._ignore(answer)
            return
        if answer.code:
            self._take(answer, answer.code if _CODE.fullmatch(answer.code) else "malformed-code")
            return
        key, layout = answer.key, phase_layout(self._study, answer.key.phase)
        try:
            receipt = matching_receipt(
                answer.receipt, key, site=answer.site, update=answer.update, nbytes=layout.nbytes
            )
        except IntegrityError as error:
            self._take(answer, error.code)
            return
        self._keep(answer.update)
        reached("coordinator.update-kept")
        if not self._around.spool.complete(answer.update):
            self._take(answer, "update-missing")
            return
        self._checking[answer.site] = answer
        self._around.aggregator.check(
            self._around.spool.path(answer.update),
            layout,
            norm_bound(self._study, answer.site, key.phase),
            lambda outcome: self._post(Checked(answer, receipt, outcome)),
        )
        reached("coordinator.check-asked")

    def _checked(self, message: Checked) -> None:
        answer, code = message.arrived, message.outcome.code
        if self._checking.get(answer.site) is answer:
            del self._checking[answer.site]
        if code == "aggregator-stopped":  # the coordinator ends; the answer comes again
            return
        if expects(self.state, answer.site, answer.key, ""):
            self._take(answer, code, message.receipt)
        else:
            self._ignore(answer)  # its round closed meanwhile

    def _is_checking(self, site: str) -> bool:
        """Return whether the site's answer to the present request is with the worker."""
        answer = self._checking.get(site)
        return answer is not None and expects(self.state, site, answer.key, "")

    def _take(self, answer: Arrived, code: str, receipt: Receipt | None = None) -> None:
        """Hand a judged answer to the rules; one with a code does not count."""
        phase = answer.key.phase
        work, transfer = self._pace(answer)
        reply = Reply(answer.site, phase, code=code)
        if not code and receipt is not None:
            self._keep_epsilon(answer.site, receipt.epsilon)
            self._uploads.add(answer.update)
            if answer.receipt:
                self._signed.setdefault(answer.site, {})[phase] = answer.receipt.to_bytes()
            nbytes, spent = receipt.update_bytes, receipt.epsilon
            reply = Reply(answer.site, phase, answer.update, "", spent, nbytes, work, transfer)
        elif answer.update:
            self._drop(answer.update)
        key = answer.key if answer.code else replace(answer.key, attempt=self.state.attempt)
        if code:
            logger.warning("refused study=%s site=%s code=%s", self._name, answer.site, code)
        self._feed(Replied(answer.at, key, reply))
        reached("coordinator.answer-counted")

    def _pace(self, answer: Arrived) -> tuple[float, float]:
        """Return how long a site worked and moved bytes since it was asked."""
        seconds = max(0.0, answer.at - self.state.asked.get(answer.site, answer.at))
        transfer = min(seconds, max(0.0, answer.transfer_s))
        return seconds - transfer, transfer

    def _ignore(self, answer: Arrived) -> None:
        """Drop an answer that nobody waits for: too late, which goes on record, or a repetition."""
        logger.info("ignored study=%s site=%s round=%s", self._name, answer.site, answer.key.round)
        self._drop(answer.update)
        is_late = self._is_news(answer)
        if is_late:
            self._around.journal.note(late_record(answer.site, answer.key, self._around.wall()))
        kind = "answer-late" if is_late else "answer-ignored"
        self._publish([{"event": kind, "site": answer.site, "round": answer.key.round}])

    def _is_news(self, answer: Arrived) -> bool:
        """Return whether an answer is late and was not told before."""
        place = (answer.site, answer.key.round, answer.key.phase)
        if answer.code or place in self._late:
            return False
        rows = self._around.journal.contributions(self._study.digest)
        if not is_too_late(self.state, [row.cell for row in rows], answer.site, answer.key):
            return False
        self._late.add(place)
        return True

    def _keep(self, update: str) -> None:
        """Hold an update here, whatever other sites and studies do with the same bytes."""
        if update not in self._kept:
            self._kept.add(update)
            self._around.spool.keep(update)

    def _drop(self, update: str) -> None:
        """Forget an update unless an answer that counts, or may yet count, names it."""
        needed = self._uploads | {answer.update for answer in self._checking.values()}
        if update in self._kept - needed:
            self._kept.remove(update)
            self._around.spool.release(update)
        elif update and update not in needed:
            self._around.spool.drop(update)

    def _averaged(self, message: Averaged) -> None:
        """Go on with the next model, unless its attempt was halted meanwhile.

        Raises:
            IntegrityError: the coordinator could not make it. That is no site's fault and has to
                be mended here, so the round stays open in the journal.
        """
        outcome, state = message.outcome, self.state
        is_current = message.order == (state.round, state.attempt) and state.status == "closing"
        if outcome.code == "aggregator-stopped" or not is_current:
            return
        if outcome.code:
            text = f"round {self.state.round} of {self._name} could not be aggregated"
            raise IntegrityError(outcome.code, text, "Mend it, then start the coordinator again.")
        reached("coordinator.model-made")
        metrics = mean_metrics(self._study, self.state, self._around.spool.path)
        self._feed(Aggregated(self._around.clock(), outcome.digest, metrics=metrics))

    def _feed(self, event: Event) -> None:
        """Let the rules decide, make it durable, then carry it out and tell those who watch."""
        before = self.state
        after, actions = advance(before, event)
        cells = tuple(cell for a in actions if isinstance(a, Commit) for cell in a.cells)
        if any(isinstance(action, Commit) for action in actions):
            rows = tuple(ContributionRow(cell, self._receipts_of(cell)) for cell in cells)
            self._around.journal.commit(self._transition(before, after, rows))
            reached("coordinator.journal-committed")
        self.state = after
        for action in actions:
            self._carry_out(action, before)
        self._publish(changes(before, after, cells))

    def _carry_out(self, action: Action, before: State) -> None:
        match action:
            case Commit():
                self._forget(action.cells, before)
            case Send() if self._is_checking(action.site):
                pass  # its answer is here already
            case Send():
                task = self._sent[action.site] = self._task()
                self._around.courier.send(action.site, task)
                reached("coordinator.task-sent")
            case Cancel() if action.site in self._sent:
                self._around.courier.cancel(action.site, self._sent.pop(action.site))
            case Cancel():
                pass  # it was away all the time
            case Aggregate():
                order = averaging(
                    self._study,
                    self.state.round,
                    action.updates,
                    checkpoints=self._checkpoints,
                    path=self._around.spool.path,
                )
                attempt = self.state.round, self.state.attempt
                self._around.aggregator.aggregate(
                    order, lambda outcome: self._post(Averaged(outcome, attempt))
                )
                reached("coordinator.aggregate-asked")

    def _task(self) -> Task:
        key, layout = task_key(self.state), self._checkpoints.layout
        left = max(0.0, deadline(self.state) - self._around.clock())
        head = self._around.journal.head()
        return Task(
            key.study, key.round, key.phase, key.attempt, key.model, layout.nbytes, left, head
        )

    def _forget(self, cells: tuple[Cell, ...], before: State) -> None:
        """Let go of what the step that is now durable no longer needs, and offer its model."""
        ended = self.state.status == "ended"
        if cells:
            self._signed.clear()
        if ended:
            self._checking.clear()  # nobody will hear what the worker finds
        if self.state.round != before.round or ended:
            self._uploads.clear()
            for update in tuple(self._kept):
                self._drop(update)
            self._checkpoints.forget_state(self.state.applied - 1)
            reached("coordinator.updates-dropped")
        self._offer()

    def _receipts_of(self, cell: Cell) -> tuple[bytes, ...]:
        kept = self._signed.get(cell.site, {}) if cell.update else {}
        return tuple(kept[phase] for phase in self.state.plan.phases if phase in kept)

    def _transition(
        self, before: State, state: State, rows: tuple[ContributionRow, ...]
    ) -> Transition:
        record = step_record(before, state, self._around.wall())
        ended = state.status == "ended"
        certify = (lambda head: self._certificate(state, head, rows)) if ended else None
        return Transition(state.plan.study, snapshot(state), record, rows, certify)

    def _certificate(self, state: State, head: str, rows: tuple[ContributionRow, ...]) -> bytes:
        """Return the signed certificate; ``rows`` are in the same commit."""
        digest, journal = self._study.digest, self._around.journal
        answers = journal.answers(digest)
        certificate = make_certificate(
            self._study,
            state,
            (*journal.contributions(digest), *rows),
            declined={a.site: a.code for a in answers if a.decision == "refused"},
            audit_head=head,
            ended_at=self._around.wall(),
        )
        signed = sign(certificate, self._around.signer)
        reached("coordinator.certificate-signed")
        return signed.to_bytes()

    def _offer(self) -> None:
        """Let sites fetch the newest model, no older one, and none after the end."""
        state, spool = self.state, self._around.spool
        model = "" if state.status == "ended" else state.model
        if model == self._offered:
            return
        if model:
            self._checkpoints.offer(spool, state.applied, model)
            reached("coordinator.model-offered")
        if self._offered:
            spool.release(self._offered)
        self._offered = model

    def _publish(self, facts: list[dict[str, Any]]) -> None:  # Any: JSON
        common = {"at": self._around.wall(), "study": self._study.digest, "name": self._name}
        for fact in facts:
            self._around.publish({**fact, **common, "status": self.status()})

    @property
    def _name(self) -> str:
        return self._study.name
