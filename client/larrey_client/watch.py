"""The anchors of a running node: made after each commit, told to witnesses, held against the state.

`open_watch` refuses to start a node whose state is behind any anchor it can find. What arrives
later puts the node where it refuses every request until its officer adopted what was lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from itertools import islice

from larrey_client.anchors import Anchored, check, make_anchor, open_anchor
from larrey_client.store import SiteStore
from larrey_client.witness import (
    FileWitness,
    Sink,
    SyslogWitness,
    read_anchors,
    unreachable,
)
from larrey_client.witness_settings import Witness
from larrey_client.witnessed import keep_own, kept_own
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import FileError, IntegrityError, Refusal
from larrey_protocol.keys import SigningKey

__all__ = ["Anchors", "known_anchors", "open_watch"]

logger = logging.getLogger(__name__)

_PATIENCE_S = 2.0  # a round waits this long for the witness file, then goes on without
_MOST = 64  # anchors looked at in one reply
_REMEMBERED = 1000


class Anchors:
    """Makes this site's anchors and watches for those that know more than its state does."""

    def __init__(
        self,
        store: SiteStore,
        site: str,
        key: SigningKey,
        witness: Witness,
        now: Callable[[], float],
    ) -> None:
        self._store, self._site, self._key, self._now = store, site, key, now
        self._path = witness.file
        self._file = Sink("witness file", FileWitness(witness.file).write) if witness.file else None
        syslog = SyslogWitness(witness.syslog, site, now)
        self._syslog = (
            Sink("witness syslog", syslog.write, syslog.close) if witness.syslog else None
        )
        self._made: tuple[tuple[str, str], bytes] = ("", ""), b""  # the last one, by its heads
        self._foreign: set[str] = set()  # digests of what was not ours
        self._lock = threading.Lock()
        self._behind: IntegrityError | None = None
        self._is_told = bool(kept_own(store, key.public, where=f"file:{self._path}"))

    @property
    def behind(self) -> IntegrityError | None:
        """Return why every request is refused, None while the state holds all that is anchored."""
        return self._behind

    @property
    def code(self) -> str:
        """Return why every request is refused, as a code; empty while none is."""
        return self._behind.code if self._behind else ""

    def require(self) -> None:
        """Return while the state holds everything that any anchor says.

        Raises:
            Refusal: ``ledger-behind`` or ``audit-behind-anchor``.
        """
        if self._behind is not None:
            error = self._behind
            raise Refusal(error.code, error.message, error.next_step)

    def latest(self) -> bytes:
        """Return where the state stands now, signed, in its travelling form."""
        with self._store.reading():
            heads = self._store.ledger_head, self._store.audit_head
            if heads != self._made[0]:  # it says nothing but what follows from the two heads
                made = make_anchor(self._store, self._site, self._key, self._now())
                self._made = heads, made.to_bytes()
            return self._made[1]

    def publish(self) -> bytes:
        """Tell the witnesses where the state stands; called after each durable commit.

        Never fails and waits at most two seconds: the commit is made, and others witness it too.
        """
        data = self.latest()
        if self._syslog is not None:
            self._syslog.put(data)
        if self._file is not None and self._file.put(data).wait(_PATIENCE_S) and not self._is_told:
            own = open_anchor(data, self._key.public)
            keep_own(self._store, own, where=f"file:{self._path}")
            self._is_told = True  # once is enough: an empty file is found by it at the next start
        return data

    def seen(self, anchors: Iterable[bytes]) -> None:
        """Take in anchors that others kept of this site; only its own signature counts."""
        own = [one for data in islice(anchors, _MOST) if (one := self._own(bytes(data)))]
        if not own:
            return
        newest = max(own, key=lambda one: one.rank)
        with self._lock:
            keep_own(self._store, newest)
            try:
                check(self._store, own, self._key)
            except IntegrityError as error:
                self._stop(error, newest)

    def close(self) -> None:
        """Hand over what is queued."""
        for sink in (self._file, self._syslog):
            if sink is not None:
                sink.close()

    def _own(self, data: bytes) -> Anchored | None:
        try:
            return open_anchor(data, self._key.public)
        except IntegrityError as error:
            digest = digest_bytes(data)
            if digest not in self._foreign and len(self._foreign) < _REMEMBERED:
                self._foreign.add(digest)
                with self._store.transaction():
                    self._store.audit(
                        "anchor-ignored", "coordinator", subject=digest, code=error.code
                    )
            return None

    def _stop(self, error: IntegrityError, newest: Anchored) -> None:
        if self._behind is None:
            logger.error("every request is refused from now on: %s", error)
            with self._store.transaction():
                self._store.audit(
                    "state-behind", self._site, subject=newest.signed.digest, code=error.code
                )
        self._behind = error


def open_watch(
    store: SiteStore,
    site: str,
    key: SigningKey,
    witness: Witness,
    now: Callable[[], float],
    *,
    is_optional: bool = False,
) -> Anchors:
    """Return the anchors of a node whose state holds everything that was ever anchored.

    Raises:
        IntegrityError: ``ledger-behind`` or ``audit-behind-anchor``.
        FileError: ``witness-unreachable``, unless ``is_optional``.
    """
    check(store, known_anchors(store, key.public, witness, is_optional=is_optional), key)
    return Anchors(store, site, key, witness, now)


def known_anchors(
    store: SiteStore, key: str, witness: Witness, *, is_optional: bool = False
) -> list[Anchored]:
    """Return every anchor of this site that can be found here.

    Raises:
        FileError: ``witness-unreachable``, unless ``is_optional``.
    """
    kept = kept_own(store, key)
    if witness.file is None:
        return kept
    where = f"file:{witness.file}"
    told = kept_own(store, key, where=where)
    try:
        found = read_anchors(witness.file, key)
        if told and not found:
            raise unreachable(witness.file, "it holds nothing of what was anchored there")
    except FileError as error:
        if not is_optional:
            raise
        logger.warning("the node starts without its witness: %s", error)
        found = []
    return [*kept, *told, *found]
