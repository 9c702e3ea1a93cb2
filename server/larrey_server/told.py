"""What sites tell in signed documents, beside answers: deletions, departures, anchors.

Each kind of document has one reader here; a kind without one is not taken. A departure is kept
before it is acknowledged and takes effect after, since it ends every call of the site.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from larrey_protocol.audit import AuditRecord
from larrey_protocol.decisions import DeletionReceipt, Departure
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.signed import Signed, open_signed
from larrey_server.closing import keep_receipt
from larrey_server.journal import DocumentRow

if TYPE_CHECKING:
    from larrey_server.coordinator import Coordinator

__all__ = ["catch_up", "hear"]

_MAX_BYTES = 1 << 20  # of a deletion receipt; each is kept for ever
_MAX_DELETIONS = 2  # of a study at one site: the second where it began again from nothing

_Afterwards = Callable[[], None]
_Reader = Callable[["Coordinator", str, Signed], _Afterwards | None]


def hear(coordinator: Coordinator, site: str, signed: Signed) -> _Afterwards | None:
    """Take a document that a site signed; the same one again changes nothing.

    Returns what is left to do once the site has its answer, None for nothing.

    An anchor may be another member's, kept for it.

    Raises:
        IntegrityError: this site did not sign it, or not about itself.
        Refusal: ``document-unexpected`` for another kind, ``unknown-study``, ``not-invited``,
            ``unknown-site``, ``document-too-long``, ``deleted-before``.
    """
    reader = _READERS.get(signed.kind)
    if reader is None:
        raise Refusal("document-unexpected", "no document of this kind is taken here")
    return reader(coordinator, site, signed)


def catch_up(coordinator: Coordinator) -> None:
    """End the memberships whose departure was kept and did not take effect before a kill."""
    journal, view = coordinator.journal, coordinator.registry.view
    for row in journal.documents("departure"):
        member = view.sites.get(row.subject)
        if member is None or member.signing_key != Signed.from_bytes(row.document).signer:
            continue
        told_at = journal.noted_at("departure-received", row.digest)
        if told_at >= view.standing(row.subject).since:  # else of an earlier membership
            coordinator.membership.leave(row.subject)


def _deletion(coordinator: Coordinator, site: str, signed: Signed) -> None:
    key = coordinator.registry.sites[site].signing_key
    receipt = open_signed(signed, DeletionReceipt, key)
    if receipt.by != site:
        raise IntegrityError("wrong-signer", f"{site} sent a receipt of {receipt.by}")
    row = coordinator.book.find(receipt.study)
    if site not in coordinator.book.study(row.digest).file.site_names:
        raise Refusal("not-invited", f"study {row.name} does not invite {site}")
    _require_room(coordinator, receipt, signed)
    keep_receipt(coordinator.journal, signed, receipt, time.time())


def _require_room(coordinator: Coordinator, receipt: DeletionReceipt, signed: Signed) -> None:
    if len(signed.document) > _MAX_BYTES:
        raise Refusal("document-too-long", f"{receipt.by} sent a receipt over {_MAX_BYTES} bytes")
    kept = coordinator.journal.documents("deletionreceipt", receipt.study)
    own = [r.digest for r in kept if Signed.from_bytes(r.document).signer == signed.signer]
    if len(own) >= _MAX_DELETIONS and signed.digest not in own:
        raise Refusal("deleted-before", f"{receipt.by} deleted {len(own)} times before")


def _departure(coordinator: Coordinator, site: str, signed: Signed) -> _Afterwards:
    departure = open_signed(signed, Departure, coordinator.registry.sites[site].signing_key)
    if departure.site != site:
        raise IntegrityError("wrong-signer", f"{site} sent a departure of {departure.site}")
    row = DocumentRow("departure", site, 0, signed.digest, signed.to_bytes())
    record = AuditRecord(0, time.time(), site, "departure-received", subject=signed.digest)
    coordinator.journal.keep(row, record)

    def end() -> None:
        with suppress(Refusal):  # it ended meanwhile
            coordinator.membership.leave(site)

    return end


def _anchor(coordinator: Coordinator, _: str, signed: Signed) -> None:
    """Take any member's anchor, whoever kept it; it counts by its signature alone."""
    whose = coordinator.anchors.hear(signed)
    if whose:  # it knows more of that site's ledger than what the site was told
        coordinator.book.changed([whose])
        coordinator.wake((whose,))


_READERS: Mapping[str, _Reader] = {
    "anchor": _anchor,
    "deletionreceipt": _deletion,
    "departure": _departure,
}
