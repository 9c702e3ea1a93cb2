"""The coordinator under attack: the shipped one, with sites and outsiders that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from larrey_protocol.certificates import Credential, make_request
from larrey_protocol.enrolment import JoinRequest
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, sign
from larrey_protocol.study import Study
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.serve import Hub
from tests.attacks.catalogue import Attack
from tests.protocol.samples import study as make_study
from tests.server.peers import Federation, Folder

__all__ = ["Office", "office"]


class Office(Federation):
    """A running coordinator, its two honest sites, and what attacks need."""

    count = 0
    is_worn = False

    def watch(self) -> None:
        """Note what the sites have on record, so that an attack can be seen to change nothing."""
        self.__dict__["members"] = set(self.hub.coordinator.registry.sites)

    def study(self, **changes: Any) -> Study:
        type(self).count += 1
        return make_study(**({"study__name": f"study-{self.count}"} | changes))

    def launched(self, **changes: Any) -> Study:
        """Return a study that both sites approved and that a person launched."""
        study = self.study(**changes)
        digest = self.propose(study)
        for name in ("alpha", "beta"):
            with self.site(name) as site:
                assert site.approve(digest).recorded
        self.launch(digest)
        return study

    def close(self, study: Study) -> None:
        """End a study, so that its tasks are not handed to the next attack."""
        with self.operator() as operator:
            operator.command(study.digest, "close")

    def invite(self, name: str, days: float = 3.0) -> tuple[str, Credential]:
        """Return an invitation's id and its bootstrap credential."""
        request, key = make_request("invitation")
        asked = {"verb": "invite", "site": name, "days": days, "request": request.decode()}
        with self.operator() as operator:
            made = operator.members(asked)
        return made["invitation"], Credential(made["certificate"].encode(), key)

    def join(self, credential: Credential, signed: Signed) -> str:
        with self.channel(credential) as channel:
            call = wire.JoinCall(request=signed.to_bytes())
            return str(stubs.EnrolmentStub(channel).Join(call, timeout=5).code)  # type: ignore[no-untyped-call]

    def denied(self, call: Callable[[], Any]) -> str:
        """Return the code with which a call is refused, by gRPC or by its own answer."""
        try:
            call()
        except grpc.RpcError as error:
            said = str(error.details())  # type: ignore[attr-defined]
            return "handshake-failed" if "failed to connect" in said else said
        except LarreyError as error:
            return error.code
        return ""

    def check(self, attack: Attack) -> None:
        """Assert that the coordinator serves its honest sites, and has taken in nobody new."""
        assert attack.leaves == ()
        with self.site("beta") as beta:
            assert beta.studies.List(wire.ListStudiesRequest(), timeout=5).revision > 0
        assert self.__dict__["members"] == set(self.hub.coordinator.registry.sites)


def request_of(site: str, invitation: str = "", key: SigningKey | None = None) -> Signed:
    """Return what a hospital sends to join or to renew."""
    request, _ = make_request(site)
    key = key or SigningKey.generate()
    document = JoinRequest(
        invitation=invitation, site=site, request=request.decode(), signing_key=key.public, at=0.0
    )
    return sign(document, key)


@contextmanager
def office(folder: Path) -> Iterator[Office]:
    """Yield a running coordinator; it ends with the context."""
    keys = Folder.make(folder / "keys")
    keys.write("ca.key", keys.authority.key)
    settings = keys.settings(folder / "state")
    identity = settings.identity.model_copy(update={"authority_key": keys.path / "ca.key"})
    hub = Hub(settings.model_copy(update={"identity": identity}))
    try:
        made = Office(keys, hub)
        made.vouch("test/1")
        made.watch()
        yield made
    finally:
        hub.stop()
