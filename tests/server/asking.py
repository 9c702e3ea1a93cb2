"""What a hospital makes when it asks to be a member."""

from __future__ import annotations

from dataclasses import dataclass

from larrey_protocol.certificates import make_request
from larrey_protocol.enrolment import JoinRequest
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, sign


@dataclass(frozen=True)
class Asking:
    """What a hospital made: request, private key, signing key."""

    request: bytes
    private: bytes
    key: SigningKey

    @classmethod
    def make(cls, site: str, key: SigningKey | None = None) -> Asking:
        return cls(*make_request(site), key or SigningKey.generate())

    def signed(self, site: str, invitation: str = "") -> Signed:
        document = JoinRequest(
            invitation=invitation,
            site=site,
            request=self.request.decode(),
            signing_key=self.key.public,
            at=0.0,
        )
        return sign(document, self.key)
