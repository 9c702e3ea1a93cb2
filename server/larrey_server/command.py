"""Has orders carried out: kept first, then given to the study's conductor, then told to the sites.

What a kill leaves between keeping and carrying out is done at the next start: a study's state names
the newest order that took effect, and the orders after it are given again.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from larrey_protocol.canonical import short
from larrey_protocol.decisions import DeletionReceipt, Order
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Signed, open_signed
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server.closing import COORDINATOR, Closer
from larrey_server.journal import StudyRow
from larrey_server.lineage import descendants, models_with
from larrey_server.on_call import unheeded
from larrey_server.orders import OrderBook, Present, require_sensible
from larrey_server.round_cells import MAY_RETURN
from larrey_server.studies import Answers
from larrey_server.transitions import decisions

if TYPE_CHECKING:
    from larrey_server.conductor import Conductor
    from larrey_server.coordinator import Coordinator

__all__ = ["Commander"]

logger = logging.getLogger(__name__)
_ORDERED_EVENTS = {
    "round-extended": "extend",
    "site-excluded": "exclude",
    "site-included": "include",
}
_INCLUDABLE = MAY_RETURN | {"too-slow"}
_PATIENCE_S = 5.0  # until a study has taken an order; a longer aggregation does not hold the caller

Facts = dict[str, Any]  # Any: JSON


class Commander:
    """The orders of one coordinator; thread-safe."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._halting: set[str] = set()  # halted without an order, since when nobody resumed them
        self._turn = threading.Lock()  # orders are carried out as they are numbered
        book, journal = coordinator.book, coordinator.journal
        self.orders = OrderBook(journal, lambda: (book.consortium, book.roster()))
        self.closer = Closer(
            journal, coordinator.spool, coordinator.state / "studies", coordinator.signer
        )

    def command(self, signed: Signed) -> Facts:
        """Keep an order and carry it out; return the study's status, the same one given again too.

        The status after ``withdraw`` also names every model that includes the site: ``includes``.

        Raises:
            IntegrityError, Refusal: as `OrderBook.take`; for a launch also
                ``study-superseded`` and as `StudyBook.require_launchable`, to resume as
                `StudyBook.require_resumable`, for both ``not-enough-approvals``, to release as
                `StudyBook.require_named`.
        """
        with self._turn:
            order = self.orders.take(signed, self._check)
            if order is not None:
                reached("coordinator.order-kept")
                self._enact(order, signed.signer)
        order = order or open_signed(signed, Order, signed.signer)
        conductor = self._coordinator.conductor(order.study)
        if conductor is not None:
            conductor.settle(_PATIENCE_S)
        self.close_due()
        row = self._coordinator.book.find(order.study)
        facts = self._coordinator.status(row)
        if order.verb == "withdraw":
            facts["includes"] = self.includes(row.digest, order.subject)
        return facts

    def _enact(self, order: Order, key: str) -> None:
        """Tell the sites first of what allows work, and last of what ends it.

        Else a site that heard of a close would decline its open task before the study is closed,
        which would end for too few sites.
        """
        if order.verb in {"launch", "resume"}:
            self._tell(order.study)
            self._carry_out(order, key)
        else:
            self._carry_out(order, key)
            self._tell(order.study)

    def halt(self, digest: str, code: str) -> None:
        """Halt a running study without an order, because its permit ended, say.

        Nobody has to believe a coordinator that stops; going on takes a person's order.
        """
        conductor = self._coordinator.conductor(digest)
        status = conductor.status() if conductor is not None else {}
        if conductor is None or status["stop"] == "halt" or digest in self._halting:
            return
        if self._coordinator.storage.fault:  # nothing can be put on record
            return  # whoever asks, asks again
        self._halting.add(digest)
        self._coordinator.book.note(COORDINATOR, code, digest)
        conductor.order("halt", 0, by=COORDINATOR, on=time.time(), code=code)
        logger.warning("study halted study=%s code=%s", short(digest), code)

    def catch_up(self, row: StudyRow) -> None:
        """Carry out what was kept and not carried out when the coordinator was last killed."""
        if row.state == "ended":
            return
        kept = self._coordinator.journal.snapshot(row.digest) or {}
        self._coordinator.metrics.study_stopped(row.name, str(kept.get("stop", "")))
        keys = {given.order.number: given.key for given in self.orders.of(row.digest)}
        for order in unheeded((one.order for one in self.orders.of(row.digest)), kept):
            try:
                self._carry_out(order, keys[order.number])
            except Refusal as error:
                logger.warning("not carried out study=%s %s", short(row.digest), error)
        conductor = self._coordinator.conductor(row.digest)
        for site, code in self._coordinator.book.answers(row.digest).refused.items():
            if conductor is not None and code == "approval-revoked":
                conductor.site_stopped(site, code)

    def start(self, row: StudyRow, sites: tuple[str, ...], number: int) -> None:
        """Start a study, without the sites that went or took their word back meanwhile."""
        self._coordinator.start(row, sites, number)
        conductor = self._coordinator.conductor(row.digest)
        if conductor is not None:
            self._stop_without_approval(conductor, row.digest, sites)

    def join_late(self, digest: str) -> None:
        """Let the sites whose approval counts by now take part in a running study.

        From its next round on. A site that was withdrawn, or took its word back, stays out; one
        whose membership ended comes back when it is a member again and its approval counts anew,
        one that declined a request when it approved after that.
        """
        conductor, book = self._coordinator.conductor(digest), self._coordinator.book
        journal = self._coordinator.journal
        given = [one.order for one in self.orders.of(digest)]
        if conductor is None or all(order.verb != "launch" for order in given):
            return
        withdrawn = {order.subject for order in given if order.verb == "withdraw"}
        may = _may_join(conductor.status(), decisions(journal, digest))
        late = may & set(book.answers(digest).approved) - withdrawn
        for site in late:
            join = functools.partial(conductor.site_joined, site)
            self._coordinator.presence.introduce(conductor, (site,), join)
        if late:
            self._stop_without_approval(conductor, digest, late)

    def _stop_without_approval(
        self, conductor: Conductor, digest: str, sites: Collection[str]
    ) -> None:
        """Stop the sites that went or took their word back while they were let in."""
        current = self._coordinator.book.answers(digest)
        for site in set(sites) - set(current.approved):
            conductor.site_stopped(site, current.refused.get(site, "membership-ended"))

    def close_due(self) -> None:
        """Delete what closed studies, and those whose retention is over, leave here."""
        book = self._coordinator.book
        for row in book.rows():
            ordered = any(one.order.verb == "close" for one in self.orders.of(row.digest))
            if not ordered and not book.is_retention_over(row.digest):
                continue
            conductor = self._coordinator.conductor(row.digest)
            if row.state == "ended":
                self._close(book.study(row.digest))
            elif conductor is not None and not ordered:
                conductor.order("close", 0, by=COORDINATOR, on=time.time())

    def _close(self, study: Study) -> None:
        try:
            if self.closer.close(study) and not self._is_named_elsewhere(study):
                self._coordinator.metrics.study_closed(study.name)
        except OSError:  # the rest is deleted at the next look
            logger.exception("not all was deleted study=%s", short(study.digest))

    def _is_named_elsewhere(self, study: Study) -> bool:
        """Return whether another version of the study has not ended."""
        rows = self._coordinator.book.rows()
        return any(r.name == study.name and r.state != "ended" for r in rows)

    def facts(self, row: StudyRow) -> Facts:
        """Return what orders add to a study's status."""
        given = self.orders.of(row.digest)
        deleted = self._coordinator.journal.documents("deletionreceipt", row.digest)
        return {
            "order": self.orders.last(row.digest),
            "orders": [
                {
                    "number": o.number,
                    "verb": o.verb,
                    "subject": o.subject,
                    "reason": o.reason,
                    "by": o.person,
                    "at": o.at,
                }
                for o in (one.order for one in given)
            ],
            "deletions": [_deletion(row.document) for row in deleted],
        }

    def credited(self, study: str, event: Facts) -> Facts:
        """Return an event with ``by``, the person who ordered it, where it follows an order."""
        verb = _ORDERED_EVENTS.get(event["event"], "")
        if event["event"] == "round-not-applied" and event["code"] == "retried":
            verb = "retry"
        about = event.get("site", "") if verb in {"exclude", "include"} else ""
        given = [one.order for one in self.orders.of(study)] if verb else []
        by = [o.person for o in given if o.verb == verb and about in {"", o.subject}]
        return {**event, "by": by[-1]} if by else event

    def orders_for(self, site: str) -> list[bytes]:
        """Return the signed orders about all studies that invite a site, oldest first."""
        running, ended = self._coordinator.book.invited(site)
        return [order for row in (*ended, *running) for order in self.orders.signed(row.digest)]

    def includes(self, digest: str, site: str) -> list[Facts]:
        """Return every model of a study, and of versions that amend it, that includes a site."""
        book, journal = self._coordinator.book, self._coordinator.journal
        parents = {r.digest: book.study(r.digest).file.study.parent for r in book.rows()}
        return [
            {"study": study, "name": book.study(study).name, **entry}
            for study in descendants(digest, parents)
            for entry in models_with(
                site,
                [row.cell for row in journal.contributions(study)],
                journal.models(study),
            )
        ]

    def _check(self, order: Order, key: str) -> None:
        present = self._present(order.study)
        require_sensible(order, key, present)
        book = self._coordinator.book
        if order.verb == "launch":
            self._launchable(book.find(order.study), key, present)
        elif order.verb == "resume" or (order.verb == "retry" and present.status == "paused"):
            book.require_resumable(order.study)
            self._require_quorum(book.find(order.study), self._taking_part(order.study))
        elif order.verb == "release":
            book.require_named(order.study, key)

    def _present(self, digest: str) -> Present:
        book = self._coordinator.book
        row, study = book.find(digest), book.study(digest)
        status = self._coordinator.progress(study)
        return Present(
            name=row.name,
            state=row.state,
            stop=str(status["stop"]),
            sites=study.file.site_names,
            model=str(status["model"]) if row.state == "ended" and status["applied"] else "",
            given=self.orders.of(digest),
            status=str(status["state"]),
            stop_code=str(status["stop_code"]),
            excluded=_sites_that_are(status, "excluded"),
            out=_sites_that_are(status, "declined"),
            includable=tuple(one["site"] for one in status["sites"] if one["code"] in _INCLUDABLE),
            is_pausing=status["next_attempt_at"] is not None,
        )

    def _launchable(self, row: StudyRow, key: str, present: Present) -> tuple[str, ...]:
        """Return the sites with which a person, by public key, may start a study now."""
        book = self._coordinator.book
        book.require_launchable(row, key)
        self._require_newest(row)
        return self._require_quorum(row, set(present.sites) - set(present.withdrawn))

    def _require_newest(self, row: StudyRow) -> None:
        """Refuse a version after which a later one was launched: sites were told of that one."""
        book = self._coordinator.book
        parents = {r.digest: book.study(r.digest).file.study.parent for r in book.rows()}
        for later in descendants(row.digest, parents)[1:]:
            if any(one.order.verb == "launch" for one in self.orders.of(later)):
                raise Refusal(
                    "study-superseded",
                    f"version {short(later)} amends study {row.name} and was launched",
                    "Propose a further version: larrey study amend study.toml",
                )

    def _require_quorum(self, row: StudyRow, taking_part: Collection[str]) -> tuple[str, ...]:
        """Return the sites that approve a study now, among those that take part."""
        book = self._coordinator.book
        answers, quorum = book.answers(row.digest), book.study(row.digest).file.rounds.quorum
        approved = tuple(site for site in answers.approved if site in taking_part)
        if len(approved) < quorum:
            raise Refusal(
                "not-enough-approvals",
                f"{len(approved)} sites approved, the quorum is {quorum}{_others(answers)}",
                f"Ask the sites to run: larrey-site study approve {short(row.digest)}",
            )
        return approved

    def _taking_part(self, digest: str) -> set[str]:
        """Return the sites that a launched study still asks."""
        status = self._coordinator.progress(self._coordinator.book.study(digest))
        out = _sites_that_are(status, "not-joined", "declined", "excluded")
        return {one["site"] for one in status["sites"]} - set(out)

    def _carry_out(self, order: Order, key: str) -> None:
        coordinator, study = self._coordinator, order.study
        logger.info("order study=%s verb=%s by=%s", short(study), order.verb, order.person)
        row, conductor = coordinator.book.find(study), coordinator.conductor(study)
        self._halting.discard(study)
        match order.verb:
            case "launch":
                sites = self._launchable(row, key, self._present(study))
                self.start(row, sites, order.number)
            case "release":
                pass
            case "withdraw" if conductor is not None:
                conductor.site_stopped(order.subject, "site-withdrawn", order.number)
            case "withdraw":
                pass
            case verb:
                if conductor is None and row.state == "proposed":
                    conductor = coordinator.begin(coordinator.book.study(study))
                if conductor is not None:
                    conductor.order(
                        verb,
                        order.number,
                        by=order.person,
                        on=order.at,
                        subject=order.subject,
                        reason=order.reason,
                    )

    def _tell(self, study: str) -> None:
        sites = self._coordinator.book.study(study).file.site_names
        self._coordinator.book.changed(sites)
        self._coordinator.wake(sites)


def _sites_that_are(status: Facts, *states: str) -> tuple[str, ...]:
    return tuple(one["site"] for one in status["sites"] if one["state"] in states)


def _may_join(status: Facts, decisions: Mapping[str, str]) -> set[str]:
    """Return the sites that are out of a study for no reason that lasts."""
    return {
        one["site"]
        for one in status["sites"]
        if one["state"] in {"not-joined", "excluded"}
        or one["code"] == "membership-ended"
        or (_has_declined(one) and one["declined_under"] != decisions.get(one["site"]))
    }


def _has_declined(site: Facts) -> bool:
    return bool(site["declined_under"]) and site["code"] in MAY_RETURN


def _others(answers: Answers) -> str:
    """Return who did not approve, and why, as the rest of a sentence."""
    refused = "".join(f"; {site} refused ({code})" for site, code in answers.refused.items())
    silent = f"; no answer from {', '.join(answers.silent)}" if answers.silent else ""
    old = f"; outdated approval of {', '.join(answers.outdated)}" if answers.outdated else ""
    return refused + silent + old


def _deletion(document: bytes) -> Facts:
    signed = Signed.from_bytes(document)
    receipt = open_signed(signed, DeletionReceipt, signed.signer)
    size = sum(item.bytes for item in receipt.items)
    return {"by": receipt.by, "at": receipt.at, "items": len(receipt.items), "bytes": size}
