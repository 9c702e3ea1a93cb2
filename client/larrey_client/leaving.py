"""A site leaves the federation: every approval revoked, every study closed, the departure signed.

The state folder remembers; a node that left asks its coordinator nothing more and does not start
again. Leaving that was cut is finished at the next start. What was spent, received and signed stays
on record here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from larrey_client.anchors import has_audit_head
from larrey_client.approving import make_decision
from larrey_client.closing import Closing
from larrey_client.exchange import is_passing
from larrey_client.incident import require_no_incident
from larrey_client.node import Node
from larrey_client.records import SiteRecords
from larrey_protocol.decisions import Departure, SiteOrder
from larrey_protocol.errors import Refusal, TransportError
from larrey_protocol.people import Person, require_right
from larrey_protocol.signed import Signed, open_signed, sign

__all__ = ["departure_of", "is_gone", "leave", "require_member", "require_task", "tell_departure"]

logger = logging.getLogger(__name__)

Json = dict[str, Any]  # Any: JSON values are recursive


def leave(
    node: Node, closing: Closing, signed: Signed, people: Iterable[Person], *, is_last: bool = True
) -> Json:
    """End the node's membership: revoke, close every study, sign the departure; say what was done.

    Other memberships go on unless it ``is_last``. The order's subject is the membership's scope.

    Raises:
        IntegrityError: of the signature.
        Refusal: ``person-unknown``, ``role-not-allowed``, ``order-differs``, ``incident-open`` or
            ``site-left``.
    """
    store = node.store
    person = require_right(people, signed.signer, "leave")
    order = open_signed(signed, SiteOrder, signed.signer)
    with store.transaction():
        require_member(store.records)
        require_no_incident(store.records)
        named = (order.site, order.verb, order.person, order.subject)
        is_ours = named == (node.site, "leave", person.name, node.membership.scope)
        if not is_ours or not has_audit_head(store, order.after):
            raise Refusal("order-differs", "the order signed is not one to leave from here")
        store.add_document(signed)
        store.audit("site-leaves", person.name, subject=signed.digest)
        proposed = [known.study.digest for known in store.records.known()]
        stopped = [""] if is_last else proposed
        for study in stopped:
            store.add_stop(study, "halt", person.name)
        studies = _revoke_all(node, person.name)
        store.add_document(sign(Departure(site=node.site, at=node.now()), node.key))
    for study in stopped:
        node.trainer.interrupt(study)
    closed = [closing.close(study, person.name) for study in studies]
    logger.warning("this site left by=%s studies=%d", person.name, len(closed))
    name = node.membership.name
    return {"site": node.site, "membership": name, "closed": len(closed), "by": person.name}


def departure_of(records: SiteRecords) -> Signed | None:
    """Return the departure that this site signed, None while it is a member."""
    found = records.documents("departure")
    return found[-1] if found else None


def is_gone(records: SiteRecords) -> bool:
    """Return whether this site left and its coordinator knows."""
    departure = departure_of(records)
    return departure is not None and departure.digest in records.audited("departure-told")


def require_member(records: SiteRecords) -> None:
    """Return if this site did not leave.

    Raises:
        Refusal: ``site-left``.
    """
    if departure_of(records) is not None:
        raise _left()


def require_task(memberships: Iterable[SiteRecords]) -> None:
    """Return if a node has something to do with this state: work, or a leaving to be finished.

    Raises:
        Refusal: ``site-left``.
    """
    if all(is_gone(records) for records in memberships):
        raise _left()


def tell_departure(node: Node, closing: Closing) -> None:
    """Hand the departure over, as the last thing that this site tells: all is deleted by then.

    Raises:
        TransportError: the coordinator cannot be reached now.
    """
    with node.store.reading() as records:
        departure = departure_of(records)
        if departure is None or is_gone(records):
            return
    if closing.due():
        return
    try:
        code = "" if node.exchange.tell(departure.to_bytes()).recorded else "not-taken"
    except TransportError as error:
        if is_passing(error):
            raise
        code = error.code  # it does not take our certificate any more: it knows
    with node.store.transaction():
        node.store.audit("departure-told", node.site, subject=departure.digest, code=code)


def _left() -> Refusal:
    return Refusal(
        "site-left",
        "this site left its coordinator; its state is kept as proof",
        "To join again, use a new state folder and a new invitation: larrey-site join",
    )


def _revoke_all(node: Node, actor: str) -> list[str]:
    """Revoke what is approved, in the caller's transaction; return the studies to close."""
    store = node.store
    closed = store.records.audited("study-closing")
    found = []
    for known in store.records.known():
        digest, decision = known.study.digest, known.decision
        if decision is None or decision.decision == "refused" or digest in closed:
            continue
        found.append(digest)
        if decision.decision == "approved" and not known.has_ended:
            store.add_decision(
                make_decision(
                    node, known.study, "revoked", actor=actor, code="approval-revoked",
                    dataset=decision.dataset, epsilon=decision.epsilon,
                )
            )  # fmt: skip
            store.audit("approval-revoked", actor, study=digest)
    return found
