"""What an operator may ask about members: one JSON document in, one out (`Control.Members`)."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from larrey_protocol.enrolment import MailedRequest
from larrey_protocol.errors import UsageError
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record, validate
from larrey_server.membership import Membership

__all__ = ["answer_members"]

_MAX_CHARACTERS = 128 << 10


class Invite(Record):
    """Invite a site; ``request`` is the certificate request of the bootstrap key, PEM."""

    verb: Literal["invite"]
    site: SiteName
    days: float = Field(gt=0, le=30)
    request: str = Field(max_length=8 << 10)


class Admit(Record):
    """Admit a site whose request came by mail."""

    verb: Literal["admit"]
    request: MailedRequest


class About(Record):
    """Show or revoke one site."""

    verb: Literal["show", "revoke"]
    site: SiteName


class RenewOperator(Record):
    """Issue the calling operator's certificate anew, for the key that the call was made with."""

    verb: Literal["renew-operator"]


class ListAll(Record):
    """List every site that ever was a member."""

    verb: Literal["list"]


class _Asked(Record):
    ask: Annotated[Invite | Admit | About | RenewOperator | ListAll, Field(discriminator="verb")]


def answer_members(
    membership: Membership, consortium: str, text: str, operator: str, certificate: bytes
) -> dict[str, Any]:
    """Return the answer to an operator's request, as JSON.

    An invitation names the consortium's key, so that the operator's file can be held against it.
    ``certificate`` is the one that the operator called with, PEM.

    Raises:
        UsageError: the request is malformed; and as `Membership`.
    """
    try:
        found = json.loads(text[:_MAX_CHARACTERS])
    except (ValueError, RecursionError) as error:
        raise UsageError("invalid-request", "expected a JSON document about members") from error
    match validate({"ask": found}, _Asked, "request").ask:
        case Invite(site=site, days=days, request=request):
            made = membership.invite(site, request.encode(), days, operator)
            return {**made, "consortium": consortium}
        case Admit(request=mailed):
            return membership.admit(mailed, operator)
        case About(verb="show", site=site):
            return membership.show(site)
        case About(site=site):
            return membership.revoke(site, operator)
        case RenewOperator():
            return membership.renew_operator(operator, certificate)
        case ListAll():
            return {"sites": membership.list()}
