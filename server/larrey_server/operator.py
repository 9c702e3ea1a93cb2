"""The operator's side of `larrey.v1.Control`: what `larrey study …` and the lab call.

Every failure becomes a `LarreyError` that says what to do; a refusal of the coordinator keeps its
own code, sentence and next step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import grpc

from larrey_protocol.canonical import short
from larrey_protocol.decisions import Order
from larrey_protocol.errors import LarreyError, Refusal, TransportError
from larrey_protocol.keys import read_private
from larrey_protocol.newfile import require_new
from larrey_protocol.signed import Proposal, Signed, open_signed, sign
from larrey_protocol.study import Study
from larrey_protocol.tomlfile import validate
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.settings import OperatorSettings, split_address
from larrey_server.signers import Signer, consortium_key, root_signer, signer

__all__ = ["Operator"]

_TIMEOUT_S = 30.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1"})
_OPTIONS = (
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.use_local_subchannel_pool", 1),
)

Facts = dict[str, Any]  # Any: JSON


class Operator:
    """A connection of an operator to one coordinator; a context manager that closes it."""

    def __init__(self, settings: OperatorSettings) -> None:
        identity, address = settings.identity, settings.coordinator.address
        credentials = grpc.ssl_channel_credentials(
            settings.coordinator.authority.read_bytes(),
            read_private(identity.key),
            identity.certificate.read_bytes(),
        )
        host, _ = split_address(address)
        proxy = ("grpc.enable_http_proxy", int(host not in _LOOPBACK))
        self._settings = settings
        self._channel = grpc.secure_channel(address, credentials, [*_OPTIONS, proxy])
        self._control = stubs.ControlStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Operator:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._channel.close()

    def propose(self, study: Study) -> str:
        """Sign a study, send it, and return its digest.

        Raises:
            UsageError: ``no-signing-key`` if the operator file names none.
        """
        signed = sign(Proposal(study=study, proposed_at=time.time()), self.signer.key)
        with self._answered():
            request = wire.ProposeRequest(proposal=signed.to_bytes())
            return str(self._control.Propose(request, timeout=_TIMEOUT_S).digest)

    def launch(self, study: str) -> Facts:
        """Order the start of a study with the sites that approved it, and return its status."""
        return self.command(study, "launch")

    def command(self, study: str, verb: str, subject: str = "", reason: str = "") -> Facts:
        """Sign the next order about a study, send it, and return the study's status.

        Its number follows the last one that the coordinator has on record, ``order`` in a study's
        status; where two persons order at once, one is told ``order-stale``.

        Args:
            study: digest, its first twelve digits, or name.
            verb: one of `larrey_protocol.decisions.Order`.
            subject: a site, the digest of the model released, seconds, as the verb has it.
            reason: in the person's words, for the record; up to 200 characters.

        Raises:
            UsageError: ``no-signing-key``, as `load_person_key`, or ``invalid-file`` for a subject
                or reason that is too long.
            Refusal: ``unknown-study``, ``role-not-allowed`` and what the verb's own rules say.
        """
        facts = self.find(study)
        order = validate(
            {
                "study": facts["digest"],
                "number": int(facts.get("order", 0)) + 1,
                "verb": verb,
                "subject": subject,
                "reason": reason,
                "person": self.signer.name,
                "at": time.time(),
            },
            Order,
            "the order",
        )
        request = wire.CommandRequest(order=sign(order, self.signer.key).to_bytes())
        with self._answered():
            reply = self._control.Command(request, timeout=_TIMEOUT_S)
            return cast(Facts, json.loads(reply.json))

    def find(self, study: str) -> Facts:
        """Return the status of the study with this digest, twelve digits or name (the newest).

        Raises:
            Refusal: ``unknown-study``.
        """
        for facts in reversed(self.list()):
            if study in (facts["digest"], short(facts["digest"]), facts["name"]):
                return facts
        raise Refusal(
            "unknown-study", f"no study '{study}' was proposed here", "See: larrey study list"
        )

    @cached_property
    def signer(self) -> Signer:
        """Return who signs here; a passphrase is asked for once.

        Raises:
            UsageError: ``no-signing-key``, or as `load_person_key`.
        """
        return signer(self._settings)

    def root(self) -> Signer:
        """Return the consortium's own key, which signs rosters.

        Raises:
            UsageError: ``no-signing-key``, or as `load_person_key`.
        """
        return root_signer(self._settings)

    def consortium(self) -> str:
        """Return the consortium's public key that the operator file pins.

        Raises:
            UsageError: ``no-consortium-key``, or as `load_person_key`.
        """
        return consortium_key(self._settings)

    def list(self) -> list[Facts]:
        """Return the status of every study, oldest first."""
        with self._answered():
            reply = self._control.List(wire.ListStudiesRequest(), timeout=_TIMEOUT_S)
            return [json.loads(text) for text in reply.json]

    def watch(self, study: str) -> Iterator[Facts]:
        """Give the status of a study now and every event until it ends."""
        with self._answered():
            call = self._control.Watch(wire.StudyRequest(study=study))
            try:
                for event in call:
                    yield json.loads(event.json)
            finally:
                call.cancel()

    def model(self, study: str, number: int, path: Path) -> int:
        """Write the model after a round to a new file and return its bytes.

        Raises:
            FileError: ``file-exists`` or ``missing-folder``.
        """
        require_new(path)
        part = path.with_name(path.name + ".part")
        try:
            with self._answered(), part.open("wb") as file:
                request = wire.ModelRequest(study=study, round=number)
                for chunk in self._control.Model(request):
                    file.write(chunk.data)
            size = part.stat().st_size
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return size

    def certificate(self, study: str) -> Signed:
        """Return the signed participation certificate of an ended study."""
        with self._answered():
            reply = self._control.Certificate(wire.StudyRequest(study=study), timeout=_TIMEOUT_S)
        return Signed.from_bytes(reply.certificate)

    def documents(self, study: str) -> tuple[Signed, ...]:
        """Return the signed documents about a study: proposal, orders, deletion receipts."""
        with self._answered():
            reply = self._control.Documents(wire.StudyRequest(study=study), timeout=_TIMEOUT_S)
        return tuple(Signed.from_bytes(data) for data in reply.documents)

    def proposal(self, study: str) -> Study:
        """Return a proposed study as it was signed.

        Raises:
            Refusal: ``unknown-study``.
        """
        signed = self.documents(study)[0]
        return open_signed(signed, Proposal, signed.signer).study

    def members(self, request: Facts) -> Facts:
        """Ask something about members; see `larrey_server.members_command`."""
        with self._answered():
            asked = wire.MembersRequest(json=json.dumps(request))
            return cast(Facts, json.loads(self._control.Members(asked, timeout=_TIMEOUT_S).json))

    def put_permit(self, signed: Signed) -> str:
        """Send a signed version of a permit and return its digest."""
        with self._answered():
            request = wire.DocumentRequest(document=signed.to_bytes())
            return str(self._control.PutPermit(request, timeout=_TIMEOUT_S).digest)

    def permits(self, reference: str = "") -> tuple[Signed, ...]:
        """Return all versions of a permit, of every permit without a reference, oldest first."""
        with self._answered():
            query = wire.DocumentQuery(name=reference)
            reply = self._control.Permits(query, timeout=_TIMEOUT_S)
        return tuple(Signed.from_bytes(data) for data in reply.documents)

    def put_roster(self, signed: Signed) -> str:
        """Send a signed roster or key change and return its digest."""
        with self._answered():
            request = wire.DocumentRequest(document=signed.to_bytes())
            return str(self._control.PutRoster(request, timeout=_TIMEOUT_S).digest)

    def rosters(self) -> tuple[Signed, ...]:
        """Return all rosters and key changes, oldest first."""
        with self._answered():
            reply = self._control.Rosters(wire.DocumentQuery(), timeout=_TIMEOUT_S)
        return tuple(Signed.from_bytes(data) for data in reply.documents)

    def audit(self) -> Iterator[Facts]:
        """Give the coordinator's trail and what witnesses it; see `larrey_server.trail.told`."""
        with self._answered():
            for event in self._control.Audit(wire.DocumentQuery()):
                yield json.loads(event.json)

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._explained(cast(grpc.Call, error)) from error

    def _explained(self, call: grpc.Call) -> LarreyError:
        address, status, details = (
            self._settings.coordinator.address,
            call.code(),
            call.details() or "",
        )
        if status is grpc.StatusCode.FAILED_PRECONDITION:
            return _refusal(details)
        if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return TransportError(
                "not-an-operator",
                f"the coordinator at {address} does not know this certificate as an operator's",
                "Have it listed under [[operators]] in coordinator.toml.",
            )
        if status is grpc.StatusCode.UNAVAILABLE and "CERTIFICATE_VERIFY_FAILED" in details:
            return TransportError(
                "coordinator-untrusted",
                f"the certificate of {address} is not signed by the authority in the operator file",
                "Compare [coordinator] authority with the coordinator's.",
            )
        if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return TransportError(
                "coordinator-unreachable",
                f"no coordinator answers at {address}, or it refuses this certificate",
                "Check the address, and that larrey serve runs there.",
            )
        return TransportError("coordinator-failed", f"the coordinator answered {status.name}")


def _refusal(details: str) -> LarreyError:
    try:
        text = json.loads(details)
        return Refusal(str(text["code"]), str(text["message"]), str(text["next_step"]))
    except (ValueError, KeyError, TypeError):
        return TransportError("coordinator-failed", "the coordinator answered out of protocol")
