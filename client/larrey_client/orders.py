"""How orders and stops leave a study at this site. Pure: kept facts in, a `Standing` out.

Two hands can stop a study, and neither can undo what the other did. The consortium's persons sign
orders, which arrive through the coordinator; this site's own people stop it from a terminal, and
only a person's key resumes it. Halt is stronger than pause; closing is for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from larrey_protocol.decisions import Order
from larrey_protocol.signed import Signed, open_signed

__all__ = ["KeptOrder", "Standing", "Stop", "StopVerb", "derive", "kept_orders"]

StopVerb = Literal["pause", "halt", "resume"]


@dataclass(frozen=True, slots=True)
class KeptOrder:
    """A verified order and the key that signed it."""

    order: Order
    key: str


@dataclass(frozen=True, slots=True)
class Stop:
    """What a person did at this site's terminal; ``study`` is empty for all studies.

    ``seq`` is that of its record in the audit trail.
    """

    seq: int
    study: str
    verb: StopVerb
    actor: str
    at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How a study stands here by orders and stops.

    Attributes:
        launched_by: the roster's name of who launched it, empty before launch.
        launched_key: that person's public key.
        stopped: what the consortium ordered last.
        stopped_by: who ordered it.
        site_stopped: what this site's people did last.
        is_closed: it is being deleted here, or was; for ever.
    """

    launched_by: str = ""
    launched_key: str = ""
    stopped: Literal["", "paused", "halted", "closed", "withdrawn"] = ""
    stopped_by: str = ""
    site_stopped: Literal["", "paused", "halted"] = ""
    is_closed: bool = False

    @property
    def is_halted(self) -> bool:
        """Return whether present work has to end at once."""
        return (
            self.stopped in {"halted", "closed", "withdrawn"}
            or self.site_stopped == "halted"
            or self.is_closed
        )

    @property
    def refusal(self) -> tuple[str, str, str] | None:
        """Return code, reason and next step of why no request is answered, None if one may be.

        A consortium's pause refuses nothing: the round that is open is finished first. That this
        site was stopped by its own people leaves it as ``site-not-ready`` alone.
        """
        if self.is_closed or self.stopped == "closed":
            return "study-closed", "the study was closed", ""
        if self.stopped == "withdrawn":
            return "study-closed", f"{self.stopped_by} withdrew this site from the study", ""
        if self.stopped == "halted":
            return "study-halted", f"{self.stopped_by} halted the study", ""
        if self.site_stopped:
            return (
                "site-not-ready",
                f"this site {self.site_stopped} the study",
                "Resume it: larrey-site resume --key KEY.",
            )
        return None


def derive(
    study: str,
    orders: Sequence[KeptOrder],
    stops: Iterable[Stop],
    *,
    site: str,
    is_closed: bool = False,
) -> Standing:
    """Return how a study stands.

    Args:
        study: its digest; orders and stops about others are passed over.
        orders: in the order of their numbers.
        stops: oldest first.
        site: this site's name, for a withdrawal.
        is_closed: its closing was begun at this site.
    """
    now = Standing(is_closed=is_closed)
    for kept in orders:
        if kept.order.study == study:
            now = _after_order(now, kept, site)
    for stop in stops:
        if stop.study in {"", study}:
            now = _after_stop(now, stop)
    return now


def kept_orders(documents: Iterable[Signed]) -> dict[str, tuple[KeptOrder, ...]]:
    """Return orders whose right was checked when they were kept, by study, as they are numbered.

    Raises:
        IntegrityError: one of them does not verify.
    """
    opened = [KeptOrder(open_signed(one, Order, one.signer), one.signer) for one in documents]
    found: dict[str, tuple[KeptOrder, ...]] = {}
    for kept in sorted(opened, key=lambda one: one.order.number):
        found[kept.order.study] = (*found.get(kept.order.study, ()), kept)
    return found


def _after_order(now: Standing, kept: KeptOrder, site: str) -> Standing:  # noqa: PLR0911 - a verb each
    order = kept.order
    if now.stopped in {"closed", "withdrawn"}:
        return now
    match order.verb:
        case "launch":
            return replace(now, launched_by=order.person, launched_key=kept.key)
        case "pause" if now.stopped != "halted":
            return replace(now, stopped="paused", stopped_by=order.person)
        case "halt":
            return replace(now, stopped="halted", stopped_by=order.person)
        case "resume":
            return replace(now, stopped="", stopped_by="")
        case "close":
            return replace(now, stopped="closed", stopped_by=order.person)
        case "withdraw" if order.subject == site:
            return replace(now, stopped="withdrawn", stopped_by=order.person)
        case _:
            return now


def _after_stop(now: Standing, stop: Stop) -> Standing:
    match stop.verb:
        case "halt":
            return replace(now, site_stopped="halted")
        case "pause" if now.site_stopped != "halted":
            return replace(now, site_stopped="paused")
        case "resume":
            return replace(now, site_stopped="")
        case _:
            return now
