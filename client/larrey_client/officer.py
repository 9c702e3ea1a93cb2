"""What the data protection officer alone may do to the ledger: adopt, split, renew.

Each needs an order signed with the officer's personal key, of which the node holds the public half
only. An order counts once, names what it is about, and follows a record of this very audit trail,
so that one of another time or another site is nothing here. All three show in every later receipt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from larrey_client import families
from larrey_client.anchors import Anchored, Loss, find_loss, has_audit_head
from larrey_client.store import SiteStore
from larrey_protocol.decisions import SiteOrder
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person, require_right
from larrey_protocol.signed import Signed, open_signed, sign

__all__ = [
    "Officer",
    "adopt",
    "find_loss_or_refuse",
    "make_order",
    "reset",
    "split",
    "split_subject",
]

Verb = Literal["adopt", "split-family"]
_RIGHTS: dict[Verb, str] = {"adopt": "adopt", "split-family": "register"}


@dataclass(frozen=True, slots=True)
class Officer:
    """A person at one site, with the key that only they hold."""

    site: str
    person: Person
    key: SigningKey


def make_order(
    store: SiteStore, verb: Verb, subject: str, officer: Officer, *, at: float
) -> Signed:
    """Return the officer's order about this state as it is now, signed."""
    order = SiteOrder(
        site=officer.site,
        verb=verb,
        subject=subject,
        after=store.audit_head,
        person=officer.person.name,
        at=at,
    )
    return sign(order, officer.key)


def find_loss_or_refuse(
    store: SiteStore, anchors: Sequence[Anchored], key: SigningKey, datasets: Iterable[str] = ()
) -> Loss:
    """Return what the anchors know and this state does not; see `larrey_client.anchors`.

    Raises:
        Refusal: ``nothing-to-adopt``.
    """
    loss = find_loss(store, anchors, key, datasets)
    if loss is None:
        raise Refusal(
            "nothing-to-adopt", f"the state here holds all that {len(anchors)} anchors say", ""
        )
    return loss


def adopt(
    store: SiteStore, loss: Loss, signed: Signed, people: Iterable[Person], *, site: str
) -> None:
    """Take what was lost as spent; the order's subject is the digest of the highest lost anchor.

    Raises:
        Refusal: ``order-differs``, ``order-repeated``, ``person-unknown``, ``role-not-allowed``.
        IntegrityError: of the signature.
    """
    digest = loss.anchors[-1].signed.digest
    order = _open(store, signed, people, "adopt", digest, site)
    with store.transaction():
        _keep(store, signed, digest)
        store.ledger.adopt(loss.head, loss.units, signed.digest, f"{order.at:.3f}")
        store.audit("ledger-adopted", order.person, subject=digest)


def split_subject(dataset: str, into: str) -> str:
    """Return the subject of an order that makes a dataset a family of its own."""
    return f"{dataset}/{into}"


def split(
    store: SiteStore,
    dataset: str,
    into: str,
    signed: Signed,
    people: Iterable[Person],
    *,
    site: str,
) -> None:
    """Give one dataset of a family a budget of its own, which carries all that was used.

    Raises:
        Refusal: ``dataset-unregistered``, ``already-registered``, and as `adopt`.
        IntegrityError: ``families-damaged``, or of the signature.
    """
    subject = split_subject(dataset, into)
    order = _open(store, signed, people, "split-family", subject, site)
    with store.transaction():
        _keep(store, signed, subject)
        parent = families.move(store, dataset, into, signed.digest)
        store.ledger.split(parent, into, signed.digest, f"{order.at:.3f}")
        store.audit("family-split", order.person, subject=signed.digest)


def reset(
    store: SiteStore, family: str, signed: Signed, people: Iterable[Person], *, site: str
) -> None:
    """Free one whole budget of a family again; the order's subject is the family.

    Raises:
        Refusal: ``dataset-unregistered``, and as `adopt`.
        IntegrityError: of the signature.
    """
    order = _open(store, signed, people, "split-family", family, site)
    with store.transaction():
        _keep(store, signed, family)
        store.ledger.reset(family, signed.digest, f"{order.at:.3f}")
        store.audit("family-reset", order.person, subject=signed.digest)


def _open(
    store: SiteStore, signed: Signed, people: Iterable[Person], verb: Verb, subject: str, site: str
) -> SiteOrder:
    person = require_right(people, signed.signer, _RIGHTS[verb])
    order = open_signed(signed, SiteOrder, signed.signer)
    named = (order.site, order.verb, order.subject, order.person)
    with store.reading():
        is_of_now = has_audit_head(store, order.after)
    if named != (site, verb, subject, person.name) or not is_of_now:
        raise Refusal("order-differs", f"the order signed is not one to {verb} {subject} here", "")
    return order


def _keep(store: SiteStore, signed: Signed, subject: str) -> None:
    if not store.add_document(signed, subject=subject):
        raise Refusal("order-repeated", "this order was carried out before", "Sign a new one.")
