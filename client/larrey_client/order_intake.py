"""Takes in what the consortium's persons ordered about this site's studies.

The coordinator passes orders on; a site believes a signature and a number that grows, nothing else.
What does not verify is put on record once and dropped; it never stops the node.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from larrey_client.apart import apart
from larrey_client.dossier import Dossier
from larrey_client.memberships import require_free
from larrey_client.orders import kept_orders
from larrey_client.store import SiteStore
from larrey_protocol.canonical import digest_bytes, short
from larrey_protocol.decisions import Order
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.orders import open_order
from larrey_protocol.signed import Signed

__all__ = ["OrderIntake"]

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 16  # an order is a few hundred bytes
_MAX_REJECTED = 100  # put on record in one run of the node; each is a durable commit
# What ends present work at once; the other verbs change what comes next.
_ENDING = frozenset({"halt", "close", "withdraw"})


class OrderIntake:
    """Keeps new orders; for one thread."""

    def __init__(self, store: SiteStore, site: str) -> None:
        self._store, self._site = store, site
        self._rejected: set[str] = set()  # digests of whole documents, their signature included

    def take(self, documents: Iterable[bytes], dossier: Dossier) -> set[str]:
        """Keep what is new and verifies; return the studies whose present work ends at once."""
        if dossier.altered:
            return set()
        found: list[Order | None] = []
        for data in documents:
            with apart("an order"):
                found.append(self._one(data, dossier))
        return {order.study for order in found if order is not None and self._ends(order)}

    def _ends(self, order: Order) -> bool:
        is_ours = order.verb != "withdraw" or order.subject == self._site
        return order.verb in _ENDING and is_ours

    def _one(self, data: bytes, dossier: Dossier) -> Order | None:
        rejected = digest_bytes(data) + f" {dossier.roster.version}"  # a later roster may know more
        if rejected in self._rejected:
            return None
        try:
            if len(data) > _MAX_BYTES:
                raise IntegrityError("malformed-document", "an order is larger than any can be")
            signed = Signed.from_bytes(data)
            with self._store.reading() as records:
                if records.has_document(signed):
                    return None
            return self._keep(signed, dossier)
        except LarreyError as error:
            self._reject(rejected, digest_bytes(data), error)
            return None

    def _keep(self, signed: Signed, dossier: Dossier) -> Order | None:
        """Keep an order about a study that was proposed here; others are not this site's."""
        with self._store.transaction():
            opened = open_order(signed, consortium=dossier.keys[-1], roster=dossier.roster, after=0)
            records = self._store.records
            if not records.has_proposal(opened.study):
                require_free(records, opened.study)
                return None
            kept = kept_orders(records.documents("order")).get(opened.study, ())
            last = kept[-1].order.number if kept else 0
            order = open_order(
                signed, consortium=dossier.keys[-1], roster=dossier.roster, after=last
            )
            _require_separate(order, signed.signer, dossier)
            self._store.add_document(signed, subject=order.study, number=order.number)
            self._store.audit(
                "order-received", order.person, study=order.study, subject=signed.digest
            )
        logger.info("order study=%s verb=%s by=%s", short(order.study), order.verb, order.person)
        return order

    def _reject(self, name: str, digest: str, error: LarreyError) -> None:
        if len(self._rejected) >= _MAX_REJECTED:
            return
        self._rejected.add(name)
        logger.error("an order was rejected: %s", error)
        with self._store.transaction():
            self._store.audit(
                "order-rejected", self._store.coordinator, subject=digest, code=error.code
            )


def _require_separate(order: Order, key: str, dossier: Dossier) -> None:
    """Return unless who approved a study here releases it; the coordinator does not know them."""
    words = dossier.approvals.get(order.study, ())
    approvers = {one.key for one in words if one.approval.decision == "approved"}
    if order.verb == "release" and key in approvers:
        raise Refusal(
            "duties-not-separate",
            f"{order.person} released a study that the same person had approved here",
            "Tell the consortium; another person has to release it.",
        )
