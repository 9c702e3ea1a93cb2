"""Whether a signed order counts: who may give it, and that it is not an old one shown again.

The coordinator asks before it acts, every site asks before it believes. Pure.
"""

from __future__ import annotations

import json

from larrey_protocol.decisions import Order
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.people import find_person
from larrey_protocol.roster import Roster, open_under
from larrey_protocol.signed import Signed

__all__ = ["open_order"]

_OWN_NAME = (
    "Name who owns the key in the operator file: [person] name, as larrey roster show has it."
)


def open_order(signed: Signed, *, consortium: str, roster: Roster, after: int) -> Order:
    """Return the order if the consortium's key signed it, or a person with the verb's right.

    Args:
        signed: as it came.
        consortium: the pinned public key.
        roster: the newest one; names the persons and their roles.
        after: the number of the newest order about the same study that is known, 0 without one.

    Raises:
        IntegrityError: as `open_under`; ``wrong-signer`` for a person, or the consortium's key,
            that signs as another.
        Refusal: ``role-not-allowed``; ``order-stale`` for a number that is not above ``after``.
    """
    order = open_under(signed, Order, _verb(signed), consortium=consortium, roster=roster)
    person = find_person(roster.people, signed.signer)
    if person is not None and person.name != order.person:
        raise IntegrityError(
            "wrong-signer", f"{person.name} signed an order as {order.person}", _OWN_NAME
        )
    if person is None and any(one.name == order.person for one in roster.people):
        raise IntegrityError(
            "wrong-signer", f"the consortium signed an order as {order.person}", _OWN_NAME
        )
    if order.number <= after:
        raise Refusal(
            "order-stale",
            f"order {order.number} comes after order {after} of the same study",
            "Give the order again; an old one does not count twice.",
        )
    return order


def _verb(signed: Signed) -> str:
    """Return which right an order needs; its text is believed only after the signature."""
    try:
        found = json.loads(signed.document)["verb"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(
            "malformed-document", "expected an order with a verb", "Give the order again."
        ) from error
    return found if isinstance(found, str) else ""
