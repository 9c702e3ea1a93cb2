"""What sites tell in documents of their own signing, beside answers: deletions, departures.

Each kind of document has one reader here; a kind without one is not taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from larrey_protocol.decisions import DeletionReceipt, Departure
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.signed import Signed, open_signed
from larrey_server.closing import keep_receipt

if TYPE_CHECKING:
    from larrey_server.coordinator import Coordinator

__all__ = ["hear"]

_Reader = Callable[["Coordinator", str, Signed], None]


def hear(coordinator: Coordinator, site: str, signed: Signed) -> None:
    """Take a document that a site signed; the same one again changes nothing.

    Raises:
        IntegrityError: this site did not sign it, or not about itself.
        Refusal: ``document-unexpected`` for another kind, ``unknown-study``, ``not-invited``.
    """
    reader = _READERS.get(signed.kind)
    if reader is None:
        raise Refusal("document-unexpected", "no document of this kind is taken here")
    reader(coordinator, site, signed)


def _deletion(coordinator: Coordinator, site: str, signed: Signed) -> None:
    key = coordinator.registry.sites[site].signing_key
    receipt = open_signed(signed, DeletionReceipt, key)
    if receipt.by != site:
        raise IntegrityError("wrong-signer", f"{site} sent a receipt of {receipt.by}")
    row = coordinator.book.find(receipt.study)
    if site not in coordinator.book.study(row.digest).file.site_names:
        raise Refusal("not-invited", f"study {row.name} does not invite {site}")
    keep_receipt(coordinator.journal, signed, receipt, time.time())


def _departure(coordinator: Coordinator, site: str, signed: Signed) -> None:
    departure = open_signed(signed, Departure, coordinator.registry.sites[site].signing_key)
    if departure.site != site:
        raise IntegrityError("wrong-signer", f"{site} sent a departure of {departure.site}")
    coordinator.membership.leave(site)


_READERS: Mapping[str, _Reader] = {"deletionreceipt": _deletion, "departure": _departure}
