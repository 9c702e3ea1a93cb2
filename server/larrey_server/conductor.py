"""Conducts one study: a thread, an inbox and the clock; `larrey_server.study_run` does the rest.

Whatever happens outside is put into the inbox with the time at which it happened and handled in
that order. A failure that the rules do not know (a full disk, a broken checkpoint) stalls the study
and says so; nothing was announced that the journal does not hold. It is tried again after pauses
that grow, and the study goes on by itself; orders to
close or halt it wait for none of that. Its clock stands still meanwhile: no site is late
because the coordinator could not write.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from larrey_protocol.disk import DISK_CODES, disk_code
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed
from larrey_protocol.study import Study
from larrey_server.aggregator import Aggregator
from larrey_server.journal import Journal
from larrey_server.round_values import (
    Courier,
    Launched,
    Ordered,
    Resumed,
    SiteDown,
    SiteJoined,
    SiteStopped,
    SiteUp,
    SiteWindow,
    TaskKey,
    Ticked,
)
from larrey_server.spool import Spool
from larrey_server.standstill import Standstill
from larrey_server.storage import Storage
from larrey_server.study_messages import Arrived, Late, Message, Surroundings
from larrey_server.study_run import StudyRun

__all__ = ["Conductor"]

logger = logging.getLogger(__name__)
_GLANCE_S = 0.02  # how often a caller who waits looks whether the loop still runs
_GLANCE_AT_DISK_S = 1.0  # how often a study that waits for the disk looks whether it is there


class Conductor:
    """One study's loop; all methods are thread-safe and none blocks but `join` and `stop`."""

    def __init__(  # noqa: PLR0913 - the study's whole surroundings, named
        self,
        study: Study,
        *,
        journal: Journal,
        spool: Spool,
        aggregator: Aggregator,
        courier: Courier,
        clock: Callable[[], float],  # monotonic seconds; deadlines are measured with it
        publish: Callable[[dict[str, Any]], None],  # Any: JSON
        signer: SigningKey,
        wall: Callable[[], float] = time.time,  # seconds since 1970
        storage: Storage | None = None,
    ) -> None:
        self._study = study
        self._standstill = Standstill(clock)
        self._clock = self._standstill.now
        self._storage = storage or Storage()
        self._wall = wall
        self._publish = publish
        self._inbox: queue.SimpleQueue[Message | threading.Event | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        around = Surroundings(
            journal=journal,
            spool=spool,
            aggregator=aggregator,
            courier=courier,
            publish=publish,
            signer=signer,
            studies=spool.folder.parent / "studies",
            clock=self._clock,
            wall=wall,
        )
        self._run = StudyRun(study, around, self._inbox.put)
        self._thread = threading.Thread(target=self._loop, name=f"study-{study.name}", daemon=True)
        self._begun = threading.Lock()
        if self._run.state.status == "ended":
            self._ended.set()

    def launch(self, sites: Sequence[str], number: int = 1) -> None:
        """Start round 1 with the sites that approved; a launched study is not launched again.

        Args:
            sites: that approved.
            number: of the order to launch.
        """
        self._inbox.put(Launched(self._clock(), tuple(sites), number))
        self._begin()

    def order(  # noqa: PLR0913 - an order, named
        self,
        verb: Literal["pause", "halt", "resume", "close", "exclude", "include", "extend", "retry"],
        number: int,
        *,
        by: str,
        on: float,
        code: str = "",
        subject: str = "",
        reason: str = "",
    ) -> None:
        """Stop the study, go on, or change who is waited for; see `larrey_server.rounds`.

        Args:
            verb: what was ordered.
            number: of the signed order; 0 where the coordinator stops the study on its own.
            by: the person's name.
            on: seconds since 1970, as the order says.
            code: why, where the coordinator stops the study on its own.
            subject: the site to exclude or include, the seconds by which to extend.
            reason: in the person's words.
        """
        self._inbox.put(Ordered(self._clock(), verb, number, by, on, code, subject, reason))
        self._begin()

    def settle(self, timeout_s: float) -> bool:
        """Wait until all that was put in so far is handled; False if that took longer."""
        reached = threading.Event()
        self._inbox.put(reached)
        end = time.monotonic() + timeout_s
        while not reached.wait(_GLANCE_S):
            if not self._thread.is_alive() or time.monotonic() > end:
                return False
        return True

    def resume(self) -> None:
        """Go on from the journal after a restart; sites are reported by `site_up` as they come."""
        self._inbox.put(Resumed(self._clock()))
        self._begin()

    def reply(
        self,
        site: str,
        task_key: TaskKey,
        *,
        update: str,
        receipt: Signed | None,
        code: str,
        transfer_s: float = 0.0,
    ) -> None:
        """Take a site's answer: an update that lies in the spool with its receipt, or a code.

        The receipt's signature is the caller's to check; ``transfer_s`` is how many of the seconds
        since the site was asked went into moving bytes.
        """
        now = self._clock()
        self._inbox.put(Arrived(now, site, task_key, update, receipt, code, transfer_s))

    def late(self, site: str, task_key: TaskKey) -> None:
        """Say that a site answers a request that was taken back; it counts no more."""
        self._inbox.put(Late(self._clock(), site, task_key))

    def site_up(self, site: str) -> None:
        """Say that a site is connected; saying it again changes nothing."""
        self._inbox.put(SiteUp(self._clock(), site))

    def site_down(self, site: str) -> None:
        """Say that a site's connection ended; saying it again changes nothing."""
        self._inbox.put(SiteDown(self._clock(), site))

    def site_joined(self, site: str) -> None:
        """Say that an invited site approved after the launch; saying it again changes nothing."""
        self._inbox.put(SiteJoined(self._clock(), site))

    def site_window(self, site: str, opens_at: float) -> None:
        """Say when a site's next training window opens, in seconds since 1970; 0: it is open."""
        now = self._clock()
        later = max(0.0, opens_at - self._wall()) if opens_at else 0.0
        self._inbox.put(SiteWindow(now, site, now + later if later else 0.0))

    def site_stopped(self, site: str, code: str, number: int = 0) -> None:
        """Say that a site is out for good: it revoked, or order ``number`` withdrew it."""
        self._inbox.put(SiteStopped(self._clock(), site, code, number))

    def tick(self) -> None:
        """Look at the clock now; needed only where the clock is not real time."""
        self._inbox.put(Ticked(self._clock()))

    def status(self) -> dict[str, Any]:  # Any: JSON
        """Return the facts that a person watches; ``stalled`` says why the study stands still."""
        return {**self._run.status(), "stalled": self._standstill.code}

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the study's end; False if it has not ended."""
        return self._ended.wait(timeout_s)

    def stop(self) -> None:
        """End the loop without ending the study; it goes on from the journal."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _begin(self) -> None:
        if self._begun.acquire(blocking=False):
            self._thread.start()

    def _loop(self) -> None:
        """Handle messages until the study ends."""
        while not self._run.is_over:
            try:
                message = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                if not self._standstill.code:
                    self._run.take(Ticked(self._clock()))
            else:
                if message is None:
                    return
                self._take(message)
            if self._run.has_urgent or not self._standstill.left():
                self._go_on()
        self._ended.set()

    def _take(self, message: Message | threading.Event) -> None:
        if not isinstance(message, threading.Event):
            self._run.take(message)
        elif self._standstill.code:
            message.set()  # what could be done was; the rest waits for the mending
        else:
            self._run.take(message.set)

    def _patience(self) -> float | None:
        """Return for how many seconds nothing is due."""
        if self._standstill.code:
            return self._standstill.left()
        wake = self._run.wake()
        return None if wake is None else max(0.0, wake - self._clock())

    def _go_on(self) -> None:
        """Do what is due; the guard of this thread."""
        if fault := self._storage.fault:  # whose end somebody else looks for
            self._stall(fault, _GLANCE_AT_DISK_S)
            return
        try:
            self._run.go_on()
        except LarreyError as error:
            self._stall(error.code)
        except Exception as error:
            if not self._standstill.code:
                logger.exception("failed study=%s", self._study.name)
            self._stall(disk_code(error) or "internal-error")
        else:
            if self._standstill.end():
                logger.warning("goes on study=%s", self._study.name)
                self._tell("study-went-on", "")

    def _stall(self, code: str, pause_s: float = 0.0) -> None:
        if code in DISK_CODES:
            self._storage.failed(code)
        if self._standstill.begin(code, pause_s):
            logger.error("stalled study=%s code=%s", self._study.name, code)
            self._tell("study-stalled", code)

    def _tell(self, event: str, code: str) -> None:
        facts = {"event": event, "code": code, "at": self._wall(), "study": self._study.digest}
        self._publish({**facts, "name": self._study.name, "status": self.status()})
