"""Carries tasks to sites as Flower messages and knows at any time what each site was asked.

From this follows what a site may do: fetch the model of its task, upload one update of the size
that the study fixes, answer once. A task that a site took over a connection it has lost is queued
anew, as a new Flower message, because Flower never delivers one twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from flwr.app import RecordDict
from google.protobuf.message import DecodeError

from larrey_protocol.canonical import DIGEST
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.models import phase_layout
from larrey_protocol.study import Study
from larrey_server.flower.engine import Engine
from larrey_server.flower.grid import StudyGrid
from larrey_server.flower.messages import MESSAGE_TYPE, SiteReply, read_reply, task_content
from larrey_server.rounds import Task

__all__ = ["Dispatch", "Errand", "StudyCourier"]

_TTL_MARGIN_S = 3600.0  # Flower drops a message later than any deadline of ours


@dataclass(slots=True)
class Errand:
    """One task that a site was asked and has not answered.

    Times are of the monotonic clock.
    """

    site: str
    task: Task
    courier: StudyCourier
    message_id: str
    since: float  # when it was queued
    carried_over: str = ""  # the connection over which the site took it
    upload: str = ""  # digest of the update that the site is uploading
    transfer_s: float = 0.0  # how long its model and its update travelled so far


class StudyCourier:
    """The courier of one study: a Flower run with its Grid."""

    def __init__(self, dispatch: Dispatch, engine: Engine, study: Study) -> None:
        self.study = study
        calls: tuple[str, ...] = study.file.training.calls
        self._sizes = {call: phase_layout(study, call).nbytes for call in calls}
        self._dispatch = dispatch
        self._engine = engine
        self._last: tuple[Task, RecordDict] | None = None
        self._begin()

    def _begin(self) -> None:
        self._run = self._engine.start_run(self.study.name)
        self.grid = StudyGrid(self._engine, self._run)
        self._engine.on_reply(self._run, self._dispatch.fleet_reply)
        self._engine.on_loss(self._run, lambda: self._dispatch.renew(self))

    def update_bytes(self, phase: str) -> int:
        """Return the size of an answer in a phase of the study."""
        return self._sizes[phase]

    def restart(self) -> None:
        """Go on in a new Flower run; messages of the one before are gone."""
        self._engine.finish_run(self._run)
        self._begin()

    def send(self, site: str, task: Task) -> None:
        """Queue one task for one site; an earlier task of this study is withdrawn."""
        self._dispatch.send(self, site, task)

    def cancel(self, site: str, task: Task) -> None:
        """Withdraw a task; an answer to it is no longer expected."""
        self._dispatch.cancel(self, site, task)

    def close(self) -> None:
        """Withdraw all tasks and end the Flower run."""
        self._dispatch.forget(self)
        self._engine.finish_run(self._run)

    def push(self, site: str, task: Task) -> str:
        """Return the id of a new message that carries ``task``, empty if Flower refused it."""
        message = self.grid.create_message(
            self._content(task),
            MESSAGE_TYPE,
            self._engine.node_of(site),
            str(task.round),
            task.deadline_s + _TTL_MARGIN_S,
        )
        return self.grid.push_messages([message])[0]

    def read(self, message_id: str) -> SiteReply:
        """Return the complete answer to a message and free both.

        Raises:
            Refusal: ``malformed-reply``.
        """
        try:
            (message,) = self.grid.pull_messages([message_id])
        except (KeyError, ValueError, TypeError, AttributeError, DecodeError) as error:
            self.grid.withdraw(message_id)  # a hostile object tree fails in Flower's own words
            raise Refusal("malformed-reply", "the reply cannot be read") from error
        return read_reply(message)

    def _content(self, task: Task) -> RecordDict:
        """Return the task's record; the sites of one round share it to the tenth of a second."""
        if self._last is not None:
            last, content = self._last
            is_near = abs(last.deadline_s - task.deadline_s) < 0.1
            if is_near and replace(last, deadline_s=task.deadline_s) == task:
                return content
        self._last = (task, task_content(task))
        return self._last[1]


class Dispatch:
    """All errands of all studies."""

    def __init__(
        self,
        engine: Engine,
        *,
        bare_reply: Callable[[Errand], None],
        abandoned: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what to do with certain things.

        Args:
            engine: Flower's state.
            bare_reply: takes an answer that came over Flower's own path, without a receipt.
            abandoned: takes the digest of an upload that no task awaits any more.
            clock: monotonic seconds.
        """
        self._engine = engine
        self._clock = clock
        self._bare_reply = bare_reply
        self._abandoned = abandoned
        self._lock = threading.RLock()
        self._errands: dict[tuple[str, str], Errand] = {}  # by site and study digest
        # Uploads of withdrawn tasks, with the phase and model they answer; one a site and study.
        self._begun: dict[tuple[str, str], tuple[tuple[str, str], str]] = {}
        self._missed: dict[tuple[str, str], Errand] = {}  # the last that each site let pass

    def courier(self, study: Study) -> StudyCourier:
        """Return a courier in a new Flower run."""
        return StudyCourier(self, self._engine, study)

    def send(self, courier: StudyCourier, site: str, task: Task) -> None:
        """Queue a task in place of the study's earlier one."""
        with self._lock:
            key = (site, task.study)
            self._withdraw(key)
            work, upload = self._begun.pop(key, (("", ""), ""))
            if work != (task.phase, task.model):
                self._abandon(upload)
                upload = ""
            since, message_id = self._clock(), courier.push(site, task)
            errand = Errand(site, task, courier, message_id, since, upload=upload)
            self._errands[key] = errand

    def cancel(self, courier: StudyCourier, site: str, task: Task) -> None:
        """Withdraw a task if it is still the current one; its upload may go on in the next."""
        with self._lock:
            errand = self._errands.get((site, courier.study.digest))
            if errand is not None and errand.task.key == task.key:
                self._withdraw((site, courier.study.digest))
                self._missed[site, courier.study.digest] = errand

    def forget(self, courier: StudyCourier) -> None:
        """Withdraw all tasks of a study and abandon their uploads."""
        with self._lock:
            for key in [k for k, e in self._errands.items() if e.courier is courier]:
                self._withdraw(key)
            for key in [k for k in self._begun if k[1] == courier.study.digest]:
                self._abandon(self._begun.pop(key)[1])
            for key in [k for k in self._missed if k[1] == courier.study.digest]:
                del self._missed[key]

    def renew(self, courier: StudyCourier) -> None:
        """Queue a study's open tasks anew, because Flower ended its run.

        It does when this process stood still for longer than the run's lease.
        """
        with self._lock:
            courier.restart()
            for errand in [e for e in self._errands.values() if e.courier is courier]:
                errand.message_id = courier.push(errand.site, errand.task)
                errand.carried_over = ""

    def carried(self, site: str, message_id: str, connection: str) -> bool:
        """Note that a site took a message; False if it was withdrawn meanwhile."""
        with self._lock:
            errand = self._find(site, message_id)
            if errand is not None:
                errand.carried_over = connection
            return errand is not None

    def send_again(self, site: str, connection: str) -> None:
        """Queue anew what the site took over another connection and never answered."""
        with self._lock:
            for errand in self._of(site):
                if errand.carried_over not in ("", connection):
                    errand.courier.grid.withdraw(errand.message_id)
                    errand.message_id = errand.courier.push(site, errand.task)
                    errand.carried_over = ""

    def find(self, site: str, message_id: str) -> Errand | None:
        """Return the open errand that a message belongs to."""
        with self._lock:
            return self._find(site, message_id)

    def close(self, errand: Errand) -> bool:
        """Take an answered errand off the list; False if it is no longer the current one."""
        with self._lock:
            key = (errand.site, errand.task.study)
            if self._errands.get(key) is not errand:
                return False
            del self._errands[key]
            return True

    def missed(self, site: str, fits: Callable[[Errand], bool]) -> Errand | None:
        """Return the one withdrawn task to which an answer comes too late; each is told once."""
        with self._lock:
            found = [k for k, e in self._missed.items() if k[0] == site and fits(e)]
            return self._missed.pop(found[0]) if len(found) == 1 else None

    def is_offered(self, site: str, digest: str) -> bool:
        """Return whether a blob is the model of a task of this site."""
        with self._lock:
            return any(errand.task.model == digest for errand in self._of(site))

    def claim_upload(self, site: str, digest: str, total_bytes: int) -> None:
        """Let a site upload the update of one of its tasks; another one for it is abandoned.

        Raises:
            Refusal: ``not-expected`` when no task of the site awaits an update of this size.
            IntegrityError: ``bad-digest``.
        """
        with self._lock:
            fitting = [
                e for e in self._of(site) if e.courier.update_bytes(e.task.phase) == total_bytes
            ]
            for errand in fitting:
                if errand.upload == digest:
                    return
            if not fitting:
                raise Refusal("not-expected", f"no update of {total_bytes} bytes is awaited")
            if not DIGEST.fullmatch(digest):
                raise IntegrityError("bad-digest", "expected sha256: and 64 hexadecimal digits")
            errand = next((e for e in fitting if not e.upload), fitting[0])
            replaced, errand.upload = errand.upload, digest
            self._abandon(replaced)

    def assign(self, errand: Errand, digest: str) -> bool:
        """Let an upload be that of this errand; False if the site did not claim it.

        Uploads do not say which study they are of: where a site has tasks of two studies whose
        updates are of one size, the answer tells.
        """
        with self._lock:
            if errand.upload == digest:
                return True
            size = errand.courier.update_bytes(errand.task.phase)
            for other in self._of(errand.site):
                is_alike = other.courier.update_bytes(other.task.phase) == size
                if other.upload == digest and is_alike:
                    errand.upload, other.upload = other.upload, errand.upload
                    return True
            for key, (work, begun) in self._begun.items():
                if key[0] == errand.site and begun == digest:
                    self._begun[key] = (work, errand.upload)
                    errand.upload = digest
                    return True
            return False

    def transferred(self, site: str, digest: str, begun: float) -> None:
        """Note that a model or an update of a site's tasks travelled from ``begun`` until now.

        A task is told no more than it is old, however many streams a site opens at once.
        """
        with self._lock:
            now = self._clock()
            for errand in self._of(site):
                if digest in (errand.task.model, errand.upload):
                    spent = errand.transfer_s + now - begun
                    errand.transfer_s = min(now - errand.since, spent)

    def reject(self, errand: Errand) -> None:
        """Abandon what the site uploaded for an errand that is closed."""
        with self._lock:
            self._abandon(errand.upload)

    def fleet_reply(self, message_id: str) -> None:
        """Take an answer that came over Flower's own path."""
        with self._lock:
            errand = next((e for e in self._errands.values() if e.message_id == message_id), None)
        if errand is not None and self.close(errand):
            errand.courier.grid.withdraw(message_id)
            self.reject(errand)
            self._bare_reply(errand)

    def _of(self, site: str) -> Iterator[Errand]:
        return iter([errand for errand in self._errands.values() if errand.site == site])

    def _find(self, site: str, message_id: str) -> Errand | None:
        return next((e for e in self._of(site) if e.message_id == message_id), None)

    def _abandon(self, upload: str) -> None:
        wanted = {errand.upload for errand in self._errands.values()}
        wanted |= {begun for _, begun in self._begun.values()}
        if upload and upload not in wanted:
            self._abandoned(upload)

    def _withdraw(self, key: tuple[str, str]) -> None:
        errand = self._errands.pop(key, None)
        if errand is None:
            return
        if errand.message_id:
            errand.courier.grid.withdraw(errand.message_id)
        if errand.upload:
            self._begun[key] = ((errand.task.phase, errand.task.model), errand.upload)
