"""One membership of the running node: a thread asks for work, a few do it; no request stops it.

The asking thread also is this site's sign of life and takes in proposals, so that both go on while
a long training runs. Each working thread answers one study's request: while one is sent over a slow
line, another is fetched or trained. Lost connections are tried again with growing pauses, for ever.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
from collections.abc import Sequence

from larrey_client.approving import Approving
from larrey_client.closing import (
    Closer,
    Closing,
    answers_closer,
    models_closer,
    snapshot_closer,
    states_closer,
)
from larrey_client.credentials import Renewal
from larrey_client.desk import Desk
from larrey_client.exchange import is_passing
from larrey_client.flower import Incoming, open_take
from larrey_client.inbox import Inbox, Waiting
from larrey_client.leaving import is_gone, tell_departure
from larrey_client.metrics import node_version
from larrey_client.node import Node, delays
from larrey_client.task import Task
from larrey_client.vigil import Vigil
from larrey_client.work import Worker
from larrey_protocol.disk import DiskError, disk_code
from larrey_protocol.errors import LarreyError, TransportError
from larrey_protocol.v1.larrey_pb2 import TakeReply
from larrey_protocol.waypoints import reached

__all__ = ["Agent"]

logger = logging.getLogger(__name__)

_READY_S = 60.0  # a long poll answers within 20 s
_JOIN_S = 1.5
_WORKERS = 3  # one trains; two fetch, send or wait meanwhile
_WORST_CLOCK_S = 300.0  # certificates are dated back by as much


class Agent:
    """The threads of one membership; `start` once, `stop` once."""

    def __init__(self, node: Node, closers: Sequence[Closer] = ()) -> None:
        """Take the parts of the node, and who else deletes what a closed study leaves."""
        self.desk = Desk(node)
        self.approving = Approving(node, node.trainer.interrupt)
        self.closing = Closing(
            node,
            (
                answers_closer(node),
                models_closer(node),
                states_closer(node),
                snapshot_closer(node),
                *closers,
            ),
        )
        self.node = node
        self._vigil = Vigil(node)
        self._worker = Worker(node)
        self._renewal = Renewal(
            node.membership,
            node.key,
            node.exchange,
            now=node.now,
            monotonic=node.monotonic,
            renewed=self._renewed,
        )
        self._inbox = Inbox()
        self._seen = 0  # revision of the coordinator's list of studies
        self._heard_at = float("-inf")
        self._offset_s: float | None = None
        self._trouble = ""  # code of the last connection error, so that it is logged once
        self._threads = [
            threading.Thread(target=self._ask_forever, name="ask", daemon=True),
            *(
                threading.Thread(target=self._work_forever, name=f"work-{number}", daemon=True)
                for number in range(_WORKERS)
            ),
        ]

    @property
    def is_connected(self) -> bool:
        """Return whether the coordinator answered lately."""
        return not self._trouble and self.node.monotonic() - self._heard_at < _READY_S

    @property
    def is_registered(self) -> bool:
        """Return whether the coordinator ever answered, so that this site is known there."""
        return self._heard_at > float("-inf")

    @property
    def clock_offset_s(self) -> float | None:
        """Return the coordinator's clock less ours as of its last answer; None before that."""
        return self._offset_s

    @property
    def trouble(self) -> str:
        """Return the code of what keeps this node from its coordinator, or nothing."""
        return self._trouble

    @property
    def under_way(self) -> list[Task]:
        """Return the requests that are worked on now, of different studies."""
        return self._worker.under_way

    def start(self) -> None:
        """Begin to ask and to work."""
        self.desk.prepare()
        self.closing.finish()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End within two seconds, whatever is going on; what was reserved stays reserved."""
        node = self.node
        node.stopping.set()
        node.exchange.close()
        node.trainer.stop()
        node.epsilons.stop()
        self._inbox.close()
        end = node.monotonic() + _JOIN_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(end - node.monotonic(), 0.0))

    def _ask_forever(self) -> None:
        waits = delays()
        while not self.node.stopping.is_set() and not self._is_gone():
            try:
                self._ask()
                waits = delays()
            except TransportError as error:
                self._lost(error)
                self.node.stopping.wait(next(waits) if is_passing(error) else 5.0)
            except Exception as error:
                if disk := disk_code(error):
                    self.node.store.failed(disk)
                    self._lost(DiskError(disk))
                else:
                    logger.exception("the node could not deal with the coordinator's answer")
                self.node.stopping.wait(next(waits))

    def _is_gone(self) -> bool:
        """Return whether this site left, so that there is nothing more to ask."""
        with self.node.store.reading() as records:
            return is_gone(records)

    def _ask(self) -> None:
        if not self.desk.has_seen_anchors:  # before any request can come: is the state behind?
            self._seen = self.desk.sync()
            self._heard()
            reached("agent.synced")
        reached("agent.polling")
        reply = self.node.exchange.take(node_version(), self._seen, self.node.opens_at)
        self._heard()
        self._compare_clocks(reply.server_time)
        try:
            self._renewal.look()
            self._catch_up(reply.studies_revision)
        finally:
            self._pass_on(reply)  # after the orders that may allow it
        self._vigil.keep(reply.witness)
        self._vigil.tell()

    def _catch_up(self, revision: int) -> None:
        """Take in what changed at the coordinator, close what is over, send what is waiting."""
        is_new = revision != self._seen
        if is_new:
            self._seen = self.desk.sync()
        else:
            self.desk.send_decisions()
        self.closing.look(at_once=is_new)
        self.closing.tell()
        tell_departure(self.node, self.closing)

    def _pass_on(self, reply: TakeReply) -> None:
        try:
            incoming = open_take(reply)
        except TransportError as error:
            logger.warning("a message was dropped: %s", error)
            return
        if incoming is not None:
            reached("agent.task-taken")
        if incoming is None:
            return
        if incoming.task is not None:
            self._worker.heard(incoming.task)
        request = Waiting(incoming, self.node.monotonic())
        while not self.node.stopping.is_set() and not self._inbox.put(request, timeout_s=0.5):
            pass  # as many studies wait as may

    def _work_forever(self) -> None:
        while not self.node.stopping.is_set():
            request = self._inbox.take()
            if request is not None:
                try:
                    self._work(request.incoming, request.arrived)
                finally:
                    self._inbox.done(request)

    def _work(self, incoming: Incoming, arrived: float) -> None:
        """Answer one request; whatever it does to us, the next one is answered too."""
        try:
            self._worker.answer(incoming, arrived)
        except LarreyError as error:
            logger.warning("a reply was not delivered: %s", error)
        except Exception as error:
            logger.exception("a request failed in an unforeseen way")
            self.node.store.failed(disk_code(error))
            self._report(incoming)

    def _report(self, incoming: Incoming) -> None:
        try:
            self._worker.report_failure(incoming)
        except (LarreyError, OSError, sqlite3.Error) as error:
            logger.warning("a failure was not reported: %s", error)

    def _renewed(self, expires_at: float) -> None:
        node = self.node
        node.metrics.expires(node.membership.name, expires_at)
        with node.store.transaction():
            node.store.audit("certificate-renewed", node.site)

    def _heard(self) -> None:
        node = self.node
        if self._trouble or self._heard_at == float("-inf"):
            logger.info("connected coordinator=%s", node.membership.coordinator.address)
        self._trouble, self._heard_at = "", node.monotonic()
        node.metrics.connection(node.membership.name, is_up=True)
        node.metrics.last_contact.set(node.now())

    def _compare_clocks(self, theirs: float) -> None:
        """Say once aloud that the two clocks differ by more than certificates forgive."""
        if not theirs or not math.isfinite(theirs):
            return
        before, self._offset_s = self._offset_s or 0.0, theirs - self.node.now()
        self.node.metrics.clock_offset.set(self._offset_s)
        if abs(before) <= _WORST_CLOCK_S < abs(self._offset_s):
            logger.warning("clocks differ coordinator_ahead_s=%.0f", self._offset_s)

    def _lost(self, error: LarreyError) -> None:
        if self.node.stopping.is_set():
            return
        self.node.metrics.connection(self.node.membership.name, is_up=False)
        self.node.metrics.connection_errors.labels(error.code).inc()
        if error.code != self._trouble:
            logger.warning("coordinator=%s %s", self.node.membership.coordinator.address, error)
        self._trouble = error.code
        self._vigil.disconnected()
