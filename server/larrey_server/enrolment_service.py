"""`larrey.v1.Enrolment`: a site joins with its invitation, and renews as a member."""

# ruff: noqa: N802 (the protocol names these methods)
from __future__ import annotations

from collections.abc import Callable

import grpc

from larrey_protocol.errors import IntegrityError, LarreyError
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.gatekeeper import Gatekeeper
from larrey_server.membership import Membership
from larrey_server.metrics import Metrics

__all__ = ["EnrolmentService"]


class EnrolmentService(stubs.EnrolmentServicer):
    """The gatekeeper lets only invited callers reach `Join` and only sites reach `Renew`."""

    def __init__(self, membership: Membership, gatekeeper: Gatekeeper, metrics: Metrics) -> None:
        self._membership = membership
        self._gatekeeper = gatekeeper
        self._metrics = metrics

    def Join(self, request: wire.JoinCall, context: grpc.ServicerContext) -> wire.JoinReply:
        """Admit the invited site with the keys it made."""
        invited = self._gatekeeper.caller(context)
        return self._reply(
            lambda: self._membership.join(invited, request.request), otherwise="bad_invitation"
        )

    def Renew(self, request: wire.RenewCall, context: grpc.ServicerContext) -> wire.JoinReply:
        """Issue the calling site's next certificate."""
        site = self._gatekeeper.caller(context)
        return self._reply(lambda: self._membership.renew(site, request.request))

    def _reply(self, issue: Callable[[], bytes], otherwise: str = "") -> wire.JoinReply:
        """Answer with a certificate, or with the code of what was wrong; forgeries are counted."""
        try:
            certificate = issue()
        except LarreyError as error:
            reason = "bad_signature" if isinstance(error, IntegrityError) else otherwise
            if reason:
                self._metrics.auth_failure(reason)
            return wire.JoinReply(code=error.code)
        return wire.JoinReply(certificate=certificate, authority=self._membership.authority)
