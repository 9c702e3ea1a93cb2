"""What the local door takes from persons: their signatures, and what they would sign.

A signature is made by the person's own command; only signed documents pass here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from larrey_client import decision_pages as pages
from larrey_client.local import Handler
from larrey_client.signing import countersign, sign_policy
from larrey_client.store import open_readonly
from larrey_protocol.errors import LarreyError, TransportError
from larrey_protocol.people import find_person
from larrey_protocol.signed import Signed

if TYPE_CHECKING:
    from larrey_client.members import Members
    from larrey_client.node import Node

__all__ = ["people_handlers", "who_signed"]

logger = logging.getLogger(__name__)

# Every one of these verifies what it takes before it does anything.
_SIGNED = frozenset(
    {"study decide", "policy sign", "permit countersign", "data add", "resume", "leave"}
)

Json = dict[str, Any]  # Any: JSON values are recursive


def people_handlers(members: Members) -> Mapping[str, Handler]:
    """Return the handlers; each may raise what the function that it calls raises."""
    node = members.first.node
    settings = node.settings

    def reading(view: Callable[..., Any], *arguments: Any) -> Any:  # Any: one of several views
        connection = open_readonly(settings.site.state)
        try:
            return view(connection, settings, *arguments)
        finally:
            connection.close()

    def decide(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        signed = _signed(request)
        agent = members.of_document(signed, "study")
        made, send = agent.approving.decide(signed), agent.desk.send_decisions
        return made | {"is_sent": made["decision"] != "waiting" and _sent(send, made["study"])}

    def sign(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        return {"missing": list(sign_policy(node.store, settings, _signed(request)))}

    def officer(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        return {"reference": countersign(node.store, settings, _signed(request))}

    return {
        "study terms": lambda request, _actor: members.of(str(request["study"])).approving.terms(
            str(request["study"]), request.get("dataset")
        ),
        "study decide": decide,
        "policy show": lambda _request, _actor: reading(pages.policy_view),
        "policy sign": sign,
        "permit list": lambda _request, _actor: reading(pages.permits_view),
        "permit show": lambda request, _actor: reading(
            pages.permit_view, str(request["reference"]), str(request.get("membership") or "")
        ),
        "permit countersign": officer,
    }


def who_signed(node: Node, command: str, signed: str) -> str:
    """Return the name of the person of this site whose signature a command took, else nothing."""
    if command not in _SIGNED:
        return ""
    try:
        people = node.cases.dossier.entitled(node.settings.people)
        person = find_person(people, Signed.from_bytes(signed.encode()).signer)
    except LarreyError:  # a kept document was altered meanwhile; the account is on the log
        return ""
    return person.name if person else ""


def _signed(request: Mapping[str, Any]) -> Signed:  # Any: JSON
    return Signed.from_bytes(str(request["signed"]).encode())


def _sent(send: Callable[[], None], study: str) -> bool:
    """Return whether the coordinator has the decision already; it is sent again if not."""
    try:
        send()
    except TransportError as error:
        logger.warning("study=%s the answer is sent later: %s", study, error)
        return False
    return True
