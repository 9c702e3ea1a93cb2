"""The coordinator's book of orders: what persons of the consortium ordered about studies.

An order counts when its signature, its person's right and its number do, and when nothing about
the study speaks against it. It is kept before it is carried out; what a kill leaves undone is
carried out after the restart (`larrey_server.command`). Kept orders are only ever added to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from larrey_protocol.audit import AuditRecord
from larrey_protocol.canonical import short
from larrey_protocol.decisions import Order
from larrey_protocol.errors import Refusal
from larrey_protocol.orders import open_order
from larrey_protocol.roster import Roster
from larrey_protocol.signed import Signed, open_signed
from larrey_server.journal import DocumentRow, Journal
from larrey_server.on_call import ON_CALL, require_on_call

__all__ = ["Given", "OrderBook", "Present", "require_sensible"]


@dataclass(frozen=True, slots=True)
class Given:
    """A kept order and the key that signed it."""

    order: Order
    key: str


@dataclass(frozen=True, slots=True)
class Present:
    """What an order meets.

    Attributes:
        name: of the study, for sentences.
        state: ``proposed``, ``open`` or ``ended``, as the journal has it.
        stop: ``pause`` or ``halt`` where one holds.
        sites: invited.
        model: digest of the final model of an ended study, empty without one.
        given: the study's orders so far.
        status: of its rounds, as `larrey_server.round_values.State` has it.
        stop_code: why it stands without an order.
        excluded: sites that an order excluded.
        out: sites that take no further part for good.
        includable: sites that are left out, or declined, and that an order could bring back.
        is_pausing: whether the next attempt waits after refusals.
    """

    name: str
    state: str
    stop: str
    sites: tuple[str, ...]
    model: str
    given: tuple[Given, ...]
    status: str = ""
    stop_code: str = ""
    excluded: tuple[str, ...] = ()
    out: tuple[str, ...] = ()
    includable: tuple[str, ...] = ()
    is_pausing: bool = False

    def has(self, verb: str) -> bool:
        """Return whether such an order was given."""
        return any(one.order.verb == verb for one in self.given)

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """Return the sites that were withdrawn."""
        return tuple(one.order.subject for one in self.given if one.order.verb == "withdraw")


class OrderBook:
    """Orders over the journal; thread-safe."""

    def __init__(self, journal: Journal, vouched: Callable[[], tuple[str, Roster]]) -> None:
        """Take the journal, and what gives the consortium's present key and roster."""
        self._journal = journal
        self._vouched = vouched
        self._lock = threading.Lock()

    def take(self, signed: Signed, check: Callable[[Order, str], None]) -> Order | None:
        """Keep an order that counts and return it; None for one that was kept before.

        Args:
            signed: as it came.
            check: refuses an order that does not fit the study; is given the signer's key, too.

        Raises:
            IntegrityError: nobody with the right signed it.
            Refusal: ``role-not-allowed``, ``order-stale`` or as ``check``.
        """
        consortium, roster = self._vouched()
        order = open_order(signed, consortium=consortium, roster=roster, after=0)
        with self._lock:
            given = self.of(order.study)
            if any(row.digest == signed.digest for row in self._rows(order.study)):
                return None
            if order.number != len(given) + 1:
                raise Refusal(
                    "order-stale",
                    f"expected order {len(given) + 1} about {short(order.study)}, found"
                    f" {order.number}",
                    "Somebody else ordered meanwhile: look at the study, then order again.",
                )
            check(order, signed.signer)
            self._keep(signed, order)
        return order

    def of(self, study: str) -> tuple[Given, ...]:
        """Return the orders about a study, oldest first."""
        documents = [Signed.from_bytes(row.document) for row in self._rows(study)]
        return tuple(Given(open_signed(d, Order, d.signer), d.signer) for d in documents)

    def last(self, study: str) -> int:
        """Return the number of the newest order about a study, 0 without one."""
        return max((row.number for row in self._rows(study)), default=0)

    def signed(self, study: str) -> list[bytes]:
        """Return the orders about a study in travelling form, oldest first."""
        return [row.document for row in self._rows(study)]

    def _rows(self, study: str) -> tuple[DocumentRow, ...]:
        return self._journal.documents("order", study)

    def _keep(self, signed: Signed, order: Order) -> None:
        row = DocumentRow("order", order.study, order.number, signed.digest, signed.to_bytes())
        action = f"{order.verb}-ordered"
        at = time.time()
        record = AuditRecord(0, at, order.person, action, order.study, subject=signed.digest)
        self._journal.keep(row, record)


def require_sensible(order: Order, key: str, present: Present) -> None:
    """Return if the order fits how the study stands.

    Raises:
        Refusal: ``already-launched``, ``already-closed``, ``already-withdrawn``, ``not-invited``,
            ``study-not-running``, ``nothing-to-resume``, ``study-not-ended``, ``wrong-model``,
            ``duties-not-separate``, or as `require_on_call`.
    """
    if present.has("close"):
        raise Refusal("already-closed", f"study {present.name} was closed; that is final")
    match order.verb:
        case "launch" if present.state != "proposed" or present.has("launch"):
            raise Refusal(
                "already-launched",
                f"study {present.name} was launched before",
                f"Watch it: larrey study watch {present.name}",
            )
        case "pause" | "halt" | "resume" if present.state != "open":
            raise Refusal(
                "study-not-running",
                f"study {present.name} is {present.state}; only a running one can {order.verb}",
            )
        case "resume" if not present.stop:
            raise Refusal("nothing-to-resume", f"study {present.name} is not paused or halted")
        case "withdraw":
            _require_site(order.subject, present)
        case "release":
            _require_releasable(order, key, present)
        case _ if order.verb in ON_CALL:
            require_on_call(order, present)
        case _:
            pass


def _require_site(site: str, present: Present) -> None:
    if site not in present.sites:
        raise Refusal("not-invited", f"study {present.name} does not invite '{site}'")
    if site in present.withdrawn:
        raise Refusal("already-withdrawn", f"{site} was withdrawn from {present.name} before")


def _require_releasable(order: Order, key: str, present: Present) -> None:
    if present.state != "ended":
        raise Refusal("study-not-ended", f"study {present.name} has not ended", "Wait for its end.")
    if not present.model or order.subject != present.model:
        raise Refusal(
            "wrong-model",
            f"the order names another model than the last one of {present.name}",
            "Name the digest in the study's certificate.",
        )
    launches = [one for one in present.given if one.order.verb == "launch"]
    if any(one.key == key or one.order.person == order.person for one in launches):
        raise Refusal(
            "duties-not-separate",
            f"{order.person} launched {present.name}; launch and release need two persons",
            "Have another person sign the release.",
        )
