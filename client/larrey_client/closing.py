"""Closing a study at this site: nothing of it is kept but the proofs of what was done.

First the study is stopped for good, durably; then each `Closer` deletes its part, each thing named
on disk before it goes; then a receipt of what was deleted is signed, kept, written beside the state
and told to the coordinator. A kill in between is finished at the next start, and the receipt names
what went before it. Rows stay: receipts, orders, audit trail and ledger hold no
weights and prove the past. A study is closed by a person, by an order of the consortium, when its
permit ends, when this site left, or some days after it ended.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from larrey_client.deletion_paper import Paper
from larrey_client.extract.snapshots import current
from larrey_client.holding import release
from larrey_client.incident import open_incidents, require_no_incident
from larrey_client.model_spool import ModelSpool
from larrey_client.node import Node
from larrey_client.orders import Standing
from larrey_client.outbox import is_answer
from larrey_client.personalising import forget_personal
from larrey_client.records import Decision
from larrey_client.site_states import SiteStates
from larrey_protocol.canonical import short
from larrey_protocol.decisions import Deleted, DeletionReceipt
from larrey_protocol.errors import LarreyError, Refusal
from larrey_protocol.permit import Permit, permit_state
from larrey_protocol.signed import sign

__all__ = [
    "Closer",
    "Closing",
    "Past",
    "answers_closer",
    "models_closer",
    "payload_closer",
    "snapshot_closer",
    "states_closer",
    "why_close",
]

logger = logging.getLogger(__name__)

Json = dict[str, Any]  # Any: JSON values are recursive
_LOOK_EVERY_S = 60.0
_PATIENCE_S = 2.0
_DAY_S = 86400.0
_MIB = 1 << 20
POLICY = "policy"  # the actor of an automatic closing
_BEGUN = "closing-begun"


class Closer(Protocol):
    """Deletes one kind of what a study leaves at a site; doing it twice must do no harm."""

    def __call__(self, study: str) -> Iterable[Deleted]:
        """Delete it, and name each thing before it goes: the next one is asked for after that."""


@dataclass(frozen=True, slots=True)
class Past:
    """What decides whether a study is to be closed by itself.

    Attributes:
        standing: by orders and stops.
        permit: newest version; None where it is unknown here.
        day: today in UTC, by the later of clock and records.
        ended_s: seconds since the coordinator said that it ended; None while it runs.
        is_begun: its closing was begun.
        is_deleted: a receipt says that everything of it was deleted here.
        has_left: this site left its coordinator.
    """

    standing: Standing
    permit: Permit | None
    day: dt.date
    ended_s: float | None
    is_begun: bool = False
    is_deleted: bool = False
    has_left: bool = False


def why_close(past: Past, close_after_days: float) -> str:
    """Return why a study is to be closed now, empty while it is not."""
    if past.is_deleted:
        return ""
    permit = permit_state(past.permit, past.day) if past.permit is not None else ""
    reasons = (
        (past.is_begun, _BEGUN),
        (past.has_left, "site-left"),
        (past.standing.stopped in {"closed", "withdrawn"}, "closed-by-order"),
        (permit in {"EXPIRED", "REVOKED"}, "permit-ended"),
        (
            past.ended_s is not None and past.ended_s >= close_after_days * _DAY_S,
            "ended-long-ago",
        ),
    )
    return next((code for holds, code in reasons if holds), "")


class Closing:
    """Closes studies at one node; for any thread."""

    def __init__(self, node: Node, closers: Sequence[Closer]) -> None:
        """Take the node and who deletes what; the trainer's own share is dropped first."""
        self._node = node
        self._closers = closers
        self._looked_at = float("-inf")
        self._told: set[str] = set()  # receipts that the coordinator has

    def close(self, study: str, actor: str, code: str = "") -> Json:
        """Close a study and return what was deleted.

        Args:
            study: digest.
            actor: who closes it.
            code: why, where it is no person.

        Raises:
            Refusal: ``already-closed``, ``incident-open``.
        """
        node, store = self._node, self._node.store
        with store.transaction():
            if store.records.documents("deletionreceipt", study):
                raise Refusal("already-closed", "this study was closed here before")
            require_no_incident(store.records)
        self._stop_for_good(study, actor, code)
        self._await_worker()
        paper = Paper(store.folder, study)
        with paper.naming() as named:
            for closer in self._closers:
                for item in closer(study):
                    named.add(item)
            items = named.items
        receipt = DeletionReceipt(study=study, by=node.site, items=items, at=node.now())
        signed = sign(receipt, node.key)
        with store.transaction():
            store.add_document(signed, subject=study)
            store.audit("study-deleted", actor, study=study, subject=signed.digest, code=code)
        path = paper.write(signed)
        logger.info("study closed study=%s items=%d by=%s", short(study), len(items), actor)
        size = sum(item.bytes for item in items)
        return {"study": study, "items": len(items), "bytes": size, "receipt": str(path)}

    def finish(self) -> None:
        """Finish what a kill cut: closings that were begun, and receipts not yet written to files.

        Needs no coordinator; while an incident is open nothing is deleted.
        """
        with self._node.store.reading() as records:
            kept = records.documents("deletionreceipt")
            is_frozen = bool(open_incidents(records))
        for signed in kept:
            paper = Paper(self._node.store.folder, str(json.loads(signed.document)["study"]))
            if not paper.is_written:
                paper.write(signed)
        begun = [study for study, code in self.due() if code == _BEGUN]
        for study in () if is_frozen else begun:
            try:
                self.close(study, POLICY, _BEGUN)
            except (LarreyError, OSError):  # the next look tries again
                logger.exception("a closing was not finished study=%s", short(study))

    def _await_worker(self) -> None:
        """Let whoever worked on the study hear that it is over; others' work is not waited for."""
        if self._node.trainer_turn.acquire(timeout=_PATIENCE_S):
            self._node.trainer_turn.release()

    def look(self, *, at_once: bool = False) -> None:
        """Close what is to be closed by itself; looks once a minute at most unless asked.

        While an incident is open the studies end as well, and are deleted after it.
        """
        now = self._node.monotonic()
        if not at_once and now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        with self._node.store.reading() as records:
            is_frozen = bool(open_incidents(records))
        for study, code in self.due():
            if is_frozen:
                self._stop_for_good(study, POLICY, code)
            else:
                self.close(study, POLICY, code)

    def due(self) -> list[tuple[str, str]]:
        """Return the studies to be closed now, and why, by the policy that was signed.

        None while a kept document is altered: nothing is deleted by itself then.
        """
        node = self._node
        dossier = node.cases.dossier
        if dossier.altered:
            return []
        days = dossier.policy(node.settings.policy).close_after_days
        with node.store.reading() as records:
            kept = [
                (known.study, records.ended_at(known.study.digest))
                for known in records.known()
                if known.decision is not None and known.decision.decision != "refused"
            ]
            begun = records.audited("study-closing")
            deleted = {
                json.loads(s.document)["study"] for s in records.documents("deletionreceipt")
            }
            has_left = bool(records.documents("departure"))
        found = []
        for study, ended_at in kept:
            past = Past(
                standing=node.cases.standing(study.digest),
                permit=node.cases.dossier.permit(study.file.study.permit)[1],
                day=node.cases.today,
                ended_s=None if ended_at is None else node.now() - ended_at,
                is_begun=study.digest in begun,
                is_deleted=study.digest in deleted,
                has_left=has_left,
            )
            found.append((study.digest, why_close(past, days)))
        return [(study, code) for study, code in found if code]

    def tell(self) -> None:
        """Hand over every receipt that the coordinator does not have yet.

        Raises:
            TransportError: it cannot be reached.
        """
        store = self._node.store
        with store.reading() as records:
            kept = [s for s in records.documents("deletionreceipt") if s.digest not in self._told]
            self._told |= records.audited("document-told") if kept else set()
        for signed in [one for one in kept if one.digest not in self._told]:
            reply = self._node.exchange.tell(signed.to_bytes())
            code = "" if reply.recorded else "not-taken"
            with store.transaction():
                store.audit("document-told", self._node.site, subject=signed.digest, code=code)

    def _stop_for_good(self, study: str, actor: str, code: str) -> None:
        """Let nothing more of the study happen here, durably; doing it again is no harm."""
        store = self._node.store
        with store.transaction():
            if store.records.is_closing(study):
                return
            store.add_stop(study, "halt", actor)
            store.audit("study-closing", actor, study=study, subject=study, code=code)
            decision = store.records.decision(study)
            if not store.records.has_ended(study):
                store.add_ending(study)
            if decision is not None and decision.decision == "approved":
                release(store, decision.dataset, study, f"{self._node.now():.3f}")
        self._node.trainer.interrupt(study)


def answers_closer(node: Node) -> Closer:
    """Return what deletes the stored answers' bytes; their receipts stay.

    Bytes that are an open study's answer too stay until that one is closed.
    """

    def close(study: str) -> Iterator[Deleted]:
        with node.store.reading() as records:
            answers = {
                answer.update: answer.size
                for answer in records.answers(study)
                if not is_answer(records, answer.update, besides=study)
            }
        for digest, size in answers.items():
            path = node.store.spool / digest.removeprefix("sha256:")
            if path.exists():
                yield Deleted(kind="answer", digest=digest, bytes=size)
                path.unlink()

    return close


def models_closer(node: Node) -> Closer:
    """Return what deletes the model that was fetched last, or what came of it."""

    def close(study: str) -> Iterator[Deleted]:
        models = ModelSpool(node.store.folder)
        for digest, size in models.kept(study):
            yield Deleted(kind="model", digest=digest, bytes=size)
        models.forget(study)

    return close


def states_closer(node: Node) -> Closer:
    """Return what deletes what was kept for the study's algorithm."""

    def close(study: str) -> Iterator[Deleted]:
        states = SiteStates(node.store.folder)
        for digest, size in states.kept(study):
            yield Deleted(kind="state", digest=digest, bytes=size)
        states.forget(study)
        forget_personal(node.store.folder, study)  # not named: a receipt leaves the site

    return close


def snapshot_closer(node: Node) -> Closer:
    """Return what deletes the snapshot of a dataset that no other study still needs."""

    def close(study: str) -> Iterator[Deleted]:
        with node.store.reading() as records:
            decision = records.decision(study)
            others = [known.decision for known in records.everywhere.known()
                      if known.study.digest != study and not known.has_ended]  # fmt: skip
        if decision is None or any(_needs(other, decision.dataset) for other in others):
            return
        snapshot = current(node.settings.site.state, decision.dataset)
        if snapshot is not None:
            size = -(-snapshot.stat().st_size // _MIB) * _MIB  # exact, it would count the rows
            yield Deleted(kind="snapshot", bytes=size)
            snapshot.unlink()

    return close


def payload_closer(count: Callable[[str], int], purge: Callable[[str], object]) -> Closer:
    """Return what deletes the copies of what left of a study; ``count`` says how many there are."""

    def close(study: str) -> Iterator[Deleted]:
        for _ in range(count(study)):
            yield Deleted(kind="payload", bytes=0)  # their digests and sizes stay on the log
        purge(study)

    return close


def _needs(decision: Decision | None, dataset: str) -> bool:
    return decision is not None and (decision.decision, decision.dataset) == ("approved", dataset)
