"""Carries out what the rules of rounds decide for one study: journal, worker, courier, checkpoints.

Single-threaded: `handle` takes one message after the other (`larrey_server.conductor` feeds it
from an inbox; tests feed it directly). A commit always comes before what it announces. The worker
answers through ``post``, as a message like any other. What a kill interrupts is done again after
the restart: sites answer from their store, aggregation is deterministic. What a failure interrupts
(a full disk, a worker that could not be started) is taken up by `go_on` where it stopped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from larrey_protocol.errors import IntegrityError
from larrey_protocol.models import phase_layout
from larrey_protocol.refusals import STANDING_REFUSALS
from larrey_protocol.signed import Receipt
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server.checkpoints import Checkpoints
from larrey_server.contributions import averaging, mean_metrics
from larrey_server.held_updates import HeldUpdates
from larrey_server.journal import ContributionRow
from larrey_server.late_answers import LateAnswers
from larrey_server.rebuilding import Mender, rebuilt_record
from larrey_server.receipt_check import matching_receipt
from larrey_server.requests import Requests
from larrey_server.round_cells import updates
from larrey_server.round_keys import offered
from larrey_server.round_values import (
    Action,
    Aggregate,
    Aggregated,
    AnsweredLate,
    Cancel,
    Cell,
    Commit,
    Event,
    Launched,
    Ordered,
    Replied,
    Reply,
    Resumed,
    Send,
    State,
    Ticked,
)  # fmt: skip
from larrey_server.rounds import advance, expects, next_wake
from larrey_server.step_record import late_record
from larrey_server.study_messages import (
    Arrived,
    Averaged,
    Checked,
    Late,
    Message,
    Replayed,
    Surroundings,
    pace,
)  # fmt: skip
from larrey_server.transitions import decisions, recall, transition
from larrey_server.update_checks import ask, own_failure, told
from larrey_server.watching import changes, describe
from larrey_server.work_queue import Work, WorkQueue, failing_once

__all__ = ["Arrived", "Averaged", "Checked", "Message", "StudyRun", "Surroundings"]

_CODE = re.compile(r"[a-z][a-z0-9-]{2,47}")  # as `larrey_protocol.errors` has it

logger = logging.getLogger(__name__)


class StudyRun:
    """One study; `state` is what the journal holds plus the answers of the open attempt."""

    def __init__(self, study: Study, around: Surroundings, post: Callable[[Message], None]) -> None:
        self._study = study
        self._around = around
        self._name = study.name
        self._post = post
        self._ask = partial(ask, study, around, post)
        self._checkpoints = Checkpoints(around.studies, study)
        self._checking: dict[str, Arrived] = {}
        self._signed: dict[str, dict[str, bytes]] = {}  # receipts of the open attempt, by phase
        self._late = LateAnswers(around.journal)
        self._offered = ""  # digest of the model that sites may fetch
        self._due = WorkQueue()
        self._looked_at = around.clock()  # what falls due since then is due, late or not
        self._mender = Mender(study, around, self._checkpoints, lambda how: post(Replayed(how)))
        self.state, self._epsilon = recall(study, around.journal)
        self._requests = Requests(study, around, self._checkpoints, self.state.applied)
        last = self._mender.last_updates(self.state)
        self._updates = HeldUpdates(around.spool, [update for _, update in last])

    def handle(self, message: Message) -> None:
        """Take one message; all consequences are carried out when it returns.

        Raises:
            Exception: something failed; it and what comes after wait for `go_on`.
        """
        self.take(message)
        self.go_on()

    def take(self, message: Message | Work) -> None:
        """Put a message, or a call, behind what is due; to end or halt the study comes first."""
        if isinstance(message, Replayed):
            self._due.is_waiting = False
            self._due.first(partial(self._heard, message))
        elif isinstance(message, Ordered) and message.verb in {"close", "halt"}:
            self._due.urgent(partial(self._feed, message))
        else:
            self._due.last(message if callable(message) else partial(self._heard, message))

    def go_on(self) -> None:
        """Do what is due; after a failure, what failed comes first.

        Raises:
            Exception: as `handle`.
        """
        self._due.go_on()

    @property
    def has_urgent(self) -> bool:
        """Return whether an order is due that no standstill holds up."""
        return self._due.has_urgent

    @property
    def is_over(self) -> bool:
        """Return whether the study has ended and all that follows from it is done."""
        return self.state.status == "ended" and self._due.is_empty

    def _heard(self, message: Message) -> None:  # noqa: C901 - one case a message
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
            case Replayed():
                self._replayed(message)
            case Ticked() if self._checking:
                pass  # an answer that came in time is still being checked
            case _:
                self._feed(message)

    def wake(self) -> float | None:
        """Return when `Ticked` is due next, None while only messages matter."""
        if self._checking or self._due.is_waiting:
            return None
        return next_wake(self.state, self._looked_at)

    def status(self) -> dict[str, Any]:  # Any: JSON
        """Return the facts a person watches; safe to call from any thread."""
        at, wall = self._around.clock(), self._around.wall()
        checking, epsilon = tuple(self._checking), dict(self._epsilon)
        return describe(
            self._study, self.state, at=at, checking=checking, epsilon=epsilon, wall=wall
        )

    def _launched(self, event: Launched) -> None:
        if self.state.status == "waiting":
            model, request = self._checkpoints.begin(), self._checkpoints.first_request()
            self.state = replace(self.state, model=model, request=request)
            self._feed(event)

    def _resumed(self, event: Resumed) -> None:
        """Go on where the journal ends, with a model that is still what it was."""
        if self.state.status not in {"waiting", "ended"}:
            self._due.first(self._mend, self._offer, partial(self._feed, event))

    def _mend(self) -> None:
        """See that the newest model is what the journal says; have it made again if it is not."""
        if self.state.status == "ended":
            return
        found = self._mender.look(self.state)
        if found == "rebuilt":
            self._due.first(self._tell_rebuilt)
        self._due.is_waiting = found == "asked"

    def _replayed(self, message: Replayed) -> None:
        if message.outcome.code == "aggregator-stopped":
            self._due.first(self._mend)  # the coordinator ends; the next one looks again
            self._due.is_waiting = True
            return
        try:
            self._mender.accept(self.state, message.outcome)
        except IntegrityError as error:
            self._due.first(failing_once(error), self._mend)
        else:
            self._due.first(self._tell_rebuilt)

    def _tell_rebuilt(self) -> None:
        state = self.state
        self._around.journal.note(rebuilt_record(state, self._around.wall()))
        logger.warning("checkpoint rebuilt study=%s round=%d", self._name, state.applied)
        if self._offered:  # in the bytes that were there before
            self._around.spool.release(self._offered)
            self._offered = ""
            self._offer()
        self._publish([{"event": "checkpoint-rebuilt", "round": state.applied}])

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
        self._updates.hold(answer.update)
        reached("coordinator.update-kept")
        if not self._around.spool.complete(answer.update):
            self._take(answer, "update-missing")
            return
        self._checking[answer.site] = answer
        self._ask(answer, receipt)
        reached("coordinator.check-asked")

    def _checked(self, message: Checked) -> None:
        answer, code = message.arrived, message.outcome.code
        if self._is_checking(answer.site) and (failure := own_failure(message)):
            again = partial(self._ask, answer, message.receipt, message.trial + 1)
            self._due.first(failing_once(failure), again)
            return
        if self._checking.get(answer.site) is answer:
            del self._checking[answer.site]
        if code == "aggregator-stopped":  # the coordinator ends; the answer comes again
            return
        if expects(self.state, answer.site, answer.key, ""):
            self._take(answer, told(code), message.receipt)
        else:
            self._ignore(answer)  # its round closed meanwhile

    def _is_checking(self, site: str) -> bool:
        """Return whether the site's answer to the present request is with the worker."""
        answer = self._checking.get(site)
        return answer is not None and expects(self.state, site, answer.key, "")

    def _take(self, answer: Arrived, code: str, receipt: Receipt | None = None) -> None:
        """Hand a judged answer to the rules; one with a code does not count."""
        phase, reply = answer.key.phase, Reply(answer.site, answer.key.phase, code=code)
        work, transfer = pace(answer, self.state.asked.get(answer.site, answer.at))
        if not code and receipt is not None:
            if receipt.epsilon >= 0:
                self._epsilon[answer.site] = receipt.epsilon
            self._updates.count(answer.update)
            if answer.receipt:
                self._signed.setdefault(answer.site, {})[phase] = answer.receipt.to_bytes()
            nbytes, spent = receipt.update_bytes, receipt.epsilon
            reply = Reply(answer.site, phase, answer.update, "", spent, nbytes, work, transfer)
        elif answer.update:
            self._drop(answer.update)
        key = answer.key if answer.code else replace(answer.key, attempt=self.state.attempt)
        if code:
            logger.warning("refused study=%s site=%s code=%s", self._name, answer.site, code)
        given = decisions(self._around.journal, key.study) if code in STANDING_REFUSALS else {}
        self._feed(Replied(answer.at, key, reply, given.get(answer.site, "")))
        reached("coordinator.answer-counted")

    def _ignore(self, answer: Arrived) -> None:
        """Drop an answer that nobody waits for: too late, which goes on record, or a repetition."""
        logger.info("ignored study=%s site=%s round=%s", self._name, answer.site, answer.key.round)
        self._drop(answer.update)
        is_late = not answer.code and self._late.is_news(self.state, answer.site, answer.key)
        if is_late:
            self._around.journal.note(late_record(answer.site, answer.key, self._around.wall()))
            self._late.told(answer.site, answer.key)
            self._feed(AnsweredLate(answer.at, answer.site, answer.key.round))
        kind = "answer-late" if is_late else "answer-ignored"
        self._publish([{"event": kind, "site": answer.site, "round": answer.key.round}])

    def _drop(self, update: str) -> None:
        """Forget an update unless an answer that counts, or may yet count, names it."""
        self._updates.drop(update, [answer.update for answer in self._checking.values()])

    def _averaged(self, message: Averaged) -> None:
        """Go on with the next model, unless its attempt was halted meanwhile.

        That the coordinator could not make it is no site's fault; it is tried again.
        """
        outcome, state = message.outcome, self.state
        is_current = message.order == (state.round, state.attempt) and state.status == "closing"
        if outcome.code == "aggregator-stopped" or not is_current:
            return
        if outcome.code:
            text = f"round {self.state.round} of {self._name} could not be aggregated"
            failure = IntegrityError(outcome.code, text, "See the coordinator's log.")
            self._due.first(failing_once(failure), self._mend, self._aggregate)
            return
        reached("coordinator.model-made")
        metrics = mean_metrics(self._study, self.state, self._around.spool.path)
        now = self._around.clock()
        memory, request = outcome.memory, outcome.request
        self._feed(Aggregated(now, outcome.digest, "", metrics, memory, request))

    def _aggregate(self) -> None:
        """Have the next model made of the closing round's updates."""
        if self.state.status != "closing":  # an order came before
            return
        order = averaging(
            self._study,
            self.state.round,
            updates(self.state),
            checkpoints=self._checkpoints,
            path=self._around.spool.path,
        )
        attempt = self.state.round, self.state.attempt
        self._around.aggregator.aggregate(
            order, lambda outcome: self._post(Averaged(outcome, attempt))
        )
        reached("coordinator.aggregate-asked")

    def _feed(self, event: Event) -> None:
        """Let the rules decide, make it durable; next, carry it out and tell those who watch."""
        before, self._looked_at = self.state, event.at
        after, actions = advance(before, event)
        cells = tuple(cell for a in actions if isinstance(a, Commit) for cell in a.cells)
        if any(isinstance(action, Commit) for action in actions):
            rows = tuple(ContributionRow(cell, self._receipts_of(cell)) for cell in cells)
            step = transition(self._study, self._around, before=before, after=after, rows=rows)
            self._around.journal.commit(step)
            reached("coordinator.journal-committed")
        self.state = after
        consequences = [partial(self._carry_out, action, before) for action in actions]
        self._due.first(*consequences, lambda: self._publish(changes(before, after, cells)))

    def _carry_out(self, action: Action, before: State) -> None:
        match action:
            case Commit():
                self._forget(action.cells, before)
            case Send() if self._is_checking(action.site) or action.site not in self.state.pending:
                pass  # its answer is here already, or an order came before
            case Send():
                self._requests.send(self.state, action.site)
                reached("coordinator.task-sent")
            case Cancel():
                self._requests.cancel(action.site)
            case Aggregate():
                self._aggregate()

    def _forget(self, cells: tuple[Cell, ...], before: State) -> None:
        """Let go of what the step that is now durable no longer needs, and offer its model."""
        ended = self.state.status == "ended"
        if cells:
            self._signed.clear()
        if ended:
            self._checking.clear()  # nobody will hear what the worker finds
        self._requests.applied(cells, self.state.applied)
        if self.state.round != before.round or ended:
            applied = [] if ended else [c.update for c in cells if c.outcome == "contributed"]
            self._updates.close_round(applied, [a.update for a in self._checking.values()])
            self._checkpoints.forget_states(self.state.applied - (0 if ended else 1))
            reached("coordinator.updates-dropped")
        self._offer()

    def _receipts_of(self, cell: Cell) -> tuple[bytes, ...]:
        kept = self._signed.get(cell.site, {}) if cell.update else {}
        return tuple(kept[phase] for phase in self.state.plan.phases if phase in kept)

    def _offer(self) -> None:
        """Let sites fetch the newest model, no older one, and none after the end."""
        state, spool = self.state, self._around.spool
        model = "" if state.status == "ended" else offered(state)
        if model == self._offered or (state.status == "halted" and not self._offered):
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
