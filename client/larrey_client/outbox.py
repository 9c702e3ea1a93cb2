"""What leaves the site: checked blobs with their receipts, and codes. There is no other way out."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from larrey_client.exchange import code_of, is_passing
from larrey_client.flower import Incoming, make_give
from larrey_client.model_spool import disk_errors
from larrey_client.node import Node, delays
from larrey_client.records import Answered, SiteRecords
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal, TransportError
from larrey_protocol.refusals import MAY_LEAVE
from larrey_protocol.waypoints import reached

__all__ = ["Outbox", "is_answer", "patiently"]

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
_LOOK_EVERY_S = 0.5  # of a long transfer, whether it may go on
_CODE_PATIENCE_S = 10.0  # a code that cannot be delivered is not worth more
_T = TypeVar("_T")


class Outbox:
    """Keeps updates under their digest and hands them over, as often as it takes."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def spool(self, study: str, update: int) -> tuple[str, int]:
        """Copy a study's sealed update to disk; return its digest and size.

        Raises:
            LarreyError: ``disk-full``.
        """
        digest, offset = hashlib.sha256(), 0
        part = self._node.store.spool / f"part-{study.removeprefix('sha256:')}"  # one at a time
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with disk_errors(), os.fdopen(descriptor, "wb") as file:
            while block := os.pread(update, _BLOCK_BYTES, offset):
                digest.update(block)
                file.write(block)
                offset += len(block)
        name = "sha256:" + digest.hexdigest()
        part.rename(self._path(name))
        return name, offset

    def drop(self, answered: Answered) -> None:
        """Delete the blob of a round that is over; its receipt stays."""
        self._path(answered.update).unlink(missing_ok=True)

    @contextmanager
    def dropped_if_refused(self, update: str) -> Iterator[None]:
        """Delete a spooled update if what happens inside does not let it leave.

        The same bytes may be the stored answer of another study, or of another round: they stay.
        """
        try:
            yield
        except LarreyError:
            with self._node.store.reading() as records:
                if not is_answer(records, update):
                    self._path(update).unlink(missing_ok=True)
            raise

    def deliver(
        self,
        incoming: Incoming,
        answered: Answered,
        *,
        deadline: float,
        is_repeat: bool,
        require: Callable[[], object],
    ) -> bool:
        """Upload the update, hand over the reply, return whether the coordinator took it.

        What a person stops while it waits or is being sent is sent no further.

        Args:
            incoming: what is answered.
            answered: the stored answer.
            deadline: on the monotonic clock; until then a lost connection is tried again.
            is_repeat: the answer is an earlier one, so that its bytes are checked again.
            require: asked before each attempt and during long ones; raises if it may not leave.

        Raises:
            Refusal: ``answer-expired``; IntegrityError: ``answer-damaged``; as ``require``.
            TransportError: it could not be delivered in time.
        """
        path = self._path(answered.update)
        if is_repeat:
            _check_blob(path, answered)
        give = make_give(
            incoming, update=answered.update, code="", receipt=answered.receipt,
            anchor=self._node.anchors.latest(),
        )  # fmt: skip

        def attempt(count: int) -> bool:
            require()
            left = max(deadline - self._node.monotonic(), 0.001)
            try:
                with self._about(incoming):
                    self._node.exchange.store(
                        answered.update,
                        path,
                        timeout_s=left,
                        resume=is_repeat or count > 0,
                        goes_on=self._looking(require),
                    )
            except TransportError as error:
                if error.code != "not-expected":
                    raise
                logger.warning("update=%s is too late", answered.update[:19])
                return False
            reached("agent.uploaded")
            require()
            reply = self._node.exchange.give(give)
            reached("agent.given")
            if not reply.accepted:
                logger.warning("update=%s not taken code=%r", answered.update[:19], code_of(reply))
            return reply.accepted

        return patiently(self._node, attempt, deadline=deadline)

    def send_code(self, incoming: Incoming, code: str) -> None:
        """Tell the coordinator why there is no update; a code that may not leave is not told."""
        if code not in MAY_LEAVE:
            logger.warning("code=%s stays here", code)
            code = "node-failed"
        give = make_give(incoming, update="", code=code, receipt=b"")
        deadline = self._node.monotonic() + _CODE_PATIENCE_S
        patiently(self._node, lambda _: self._node.exchange.give(give), deadline=deadline)

    def _looking(self, require: Callable[[], object]) -> Callable[[], bool]:
        """Return what says, looking now and then, whether a transfer may go on."""
        looked_at = self._node.monotonic()

        def goes_on() -> bool:
            nonlocal looked_at
            if self._node.monotonic() - looked_at < _LOOK_EVERY_S:
                return True
            looked_at = self._node.monotonic()
            try:
                require()
            except LarreyError:
                return False  # the next attempt says why
            return True

        return goes_on

    def _about(self, incoming: Incoming) -> AbstractContextManager[None]:
        study, round_number, phase, _ = incoming.task.key if incoming.task else ("", 0, "", "")
        return self._node.exchange.about(study, round_number, phase)

    def _path(self, digest: str) -> Path:
        return self._node.store.spool / digest.removeprefix("sha256:")


def is_answer(records: SiteRecords, update: str, *, besides: str = "") -> bool:
    """Return whether bytes are a stored answer of a study that has not ended, ``besides`` aside."""
    query = (
        "SELECT 1 FROM answers WHERE digest = ? AND study != ?"
        " AND study NOT IN (SELECT study FROM endings) LIMIT 1"
    )
    return records.connection.execute(query, (update, besides)).fetchone() is not None


def patiently(node: Node, attempt: Callable[[int], _T], *, deadline: float) -> _T:
    """Return what ``attempt`` returns, tried again while the connection may come back.

    Raises:
        TransportError: waiting is useless, the deadline is near or the node is stopping.
    """
    waits, count = delays(), 0
    while True:
        try:
            return attempt(count)
        except TransportError as error:
            delay = next(waits)
            is_late = node.monotonic() + delay > deadline
            if not is_passing(error) or is_late or node.stopping.wait(delay):
                raise
        count += 1


def _check_blob(path: Path, answered: Answered) -> None:
    if not path.is_file():
        raise Refusal("answer-expired", "the stored update was dropped after its round")
    with path.open("rb") as file:
        found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if found != answered.update:
        raise IntegrityError("answer-damaged", "the stored update is not what was signed")
