"""Whether an order of who is on call fits how the study stands: exclude, include, extend, retry.

None of the four lets anything more leave a site, so that sites pass over them and an operator may
give them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from larrey_protocol.decisions import Order
from larrey_protocol.errors import Refusal
from larrey_server.round_opening import QUORUM_STOPS

if TYPE_CHECKING:
    from larrey_server.orders import Present

__all__ = ["ON_CALL", "require_on_call", "seconds_of", "unheeded"]

ON_CALL = frozenset({"exclude", "include", "extend", "retry"})
_MOST_S = 7 * 86400  # as long as any round may take: `Rounds.deadline_s`


def require_on_call(order: Order, present: Present) -> None:
    """Return if an order on call fits how the study stands.

    Raises:
        Refusal: ``study-not-running``, ``bad-reason``, ``not-invited``, ``already-out``,
            ``already-excluded``, ``not-excluded``, ``bad-seconds``, ``nothing-to-extend`` or
            ``nothing-to-retry``.
    """
    if present.state != "open":
        raise Refusal(
            "study-not-running",
            f"study {present.name} is {present.state}; only a running one can be changed",
        )
    if not order.reason.isprintable():
        raise Refusal("bad-reason", "a reason is one line of text", "Say it in one line.")
    match order.verb:
        case "exclude":
            _require_excludable(order, present)
        case "include" if order.subject not in present.sites:
            raise _not_invited(order.subject, present)
        case "include" if order.subject not in {*present.excluded, *present.includable}:
            raise _not_excluded(order.subject, present)
        case "extend":
            _require_extendable(order, present)
        case "retry":
            _require_retryable(present)
        case _:
            pass


def seconds_of(text: str) -> int:
    """Return how many seconds an order to extend names: 1 up to a week.

    Raises:
        Refusal: ``bad-seconds``.
    """
    if re.fullmatch("[0-9]{1,6}", text) and 1 <= int(text) <= _MOST_S:
        return int(text)
    raise Refusal(
        "bad-seconds",
        f"expected whole seconds from 1 to {_MOST_S}, found '{text}'",
        "Ten minutes more: larrey study extend STUDY 600",
    )


def _require_excludable(order: Order, present: Present) -> None:
    site = order.subject
    if site not in present.sites:
        raise _not_invited(site, present)
    if not order.reason.strip():
        raise Refusal("bad-reason", f"nobody excludes {site} without a reason", "Add --reason.")
    if site in present.excluded:
        raise Refusal(
            "already-excluded",
            f"{site} is excluded from {present.name} already",
            f"Undo it: larrey study include {present.name} {site}",
        )
    if site in present.out:
        raise Refusal("already-out", f"{site} takes no further part in {present.name} anyway")


def _require_extendable(order: Order, present: Present) -> None:
    seconds_of(order.subject)
    if present.status != "open":
        raise Refusal(
            "nothing-to-extend",
            f"study {present.name} has no open round, it is {present.status}",
            f"See what it waits for: larrey study watch {present.name}",
        )


def _require_retryable(present: Present) -> None:
    """Refuse unless a round is open, or the next attempt waits, or the study paused itself.

    A person's stop is resumed.
    """
    paused_itself = present.status == "paused" and present.stop_code in QUORUM_STOPS
    if present.status in {"open", "closing"} or paused_itself or present.is_pausing:
        return
    step = "resume" if present.status in {"paused", "halted"} else "watch"
    raise Refusal(
        "nothing-to-retry",
        f"study {present.name} has no open round, it is {present.status}",
        f"Use: larrey study {step} {present.name}",
    )


def unheeded(orders: Iterable[Order], kept: Mapping[str, Any]) -> tuple[Order, ...]:  # Any: JSON
    """Return the orders that a study's state does not show, oldest first.

    These are all after the newest that it heard of, and of the others what holds of a site until
    it is undone: a halt may have overtaken it before a kill.

    Args:
        orders: about the study, oldest first.
        kept: the study's `larrey_server.round_snapshots.snapshot`, empty before the launch.
    """
    heard, found = int(kept.get("order", 0)), dict[int, Order]()
    excluded: Collection[str] = kept.get("excluded", {})
    gone: Collection[str] = kept.get("stopped", {})
    last: dict[tuple[str, bool], Order] = {}
    for order in orders:
        if order.number > heard:
            found[order.number] = order
        elif order.verb in {"exclude", "include", "withdraw"}:
            last[order.subject, order.verb == "withdraw"] = order
    for order in last.values():
        shown = gone if order.verb == "withdraw" else excluded
        if (order.subject in shown) == (order.verb == "include"):
            found[order.number] = order
    return tuple(found[number] for number in sorted(found))


def _not_excluded(site: str, present: Present) -> Refusal:
    if site in present.out:
        return Refusal(
            "not-excluded",
            f"{site} takes no further part in {present.name}: it revoked, left or was withdrawn",
            "Propose a further version: larrey study amend study.toml",
        )
    return Refusal("not-excluded", f"{site} is not excluded from {present.name}")


def _not_invited(site: str, present: Present) -> Refusal:
    names = ", ".join(present.sites)
    return Refusal("not-invited", f"study {present.name} does not invite '{site}', but {names}")
