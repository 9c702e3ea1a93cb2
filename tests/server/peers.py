"""A coordinator in this process and the peers that call it over real mutual TLS on loopback."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

import larrey_server.flower  # noqa: F401 - sets flwr's switches before flwr is imported
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.certificates import Credential, issue_client, issue_server, make_authority
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.people import Person
from larrey_protocol.permit import Permit
from larrey_protocol.roster import Roster, Seat
from larrey_protocol.signed import Answer, Proposal, Receipt, Signed, open_signed, sign
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from larrey_protocol.tomlfile import Record
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.operator import Operator
from larrey_server.serve import Hub
from larrey_server.settings import (
    Consortium,
    CoordinatorSection,
    CoordinatorSettings,
    Identity,
    Listen,
    OperatorConsortium,
    OperatorCoordinator,
    OperatorEntry,
    OperatorIdentity,
    OperatorPerson,
    OperatorSettings,
    SiteEntry,
)
from tests.protocol.permits import permit

NOW = dt.datetime.now(dt.UTC)
CHUNK = 1 << 20
_RecordT = TypeVar("_RecordT", bound=Record)


@dataclass(frozen=True)
class Folder:
    """Keys and certificates of a small federation, on disk as a coordinator reads them."""

    path: Path
    authority: Credential
    sites: dict[str, tuple[Credential, SigningKey]]
    operator: Credential
    consortium: SigningKey
    ada: SigningKey = field(default_factory=SigningKey.generate)  # lead
    ben: SigningKey = field(default_factory=SigningKey.generate)  # member

    @classmethod
    def make(cls, path: Path, sites: tuple[str, ...] = ("alpha", "beta")) -> Folder:
        authority = make_authority("test", now=NOW)
        server = issue_server(authority, ["localhost", "127.0.0.1"], now=NOW)
        folder = cls(
            path,
            authority,
            {s: (issue_client(authority, s, now=NOW), SigningKey.generate()) for s in sites},
            issue_client(authority, "operator", now=NOW),
            SigningKey.generate(),
        )
        path.mkdir(parents=True, exist_ok=True)
        folder.write("ca.crt", authority.certificate)
        for name, credential in {
            "server": server,
            "operator": folder.operator,
            **{s: c for s, (c, _) in folder.sites.items()},
        }.items():
            folder.write(f"{name}.crt", credential.certificate)
            folder.write(f"{name}.key", credential.key)
        SigningKey.generate().save(path / "signing.pem")
        folder.consortium.save(path / "consortium.pem")
        folder.ada.save(path / "ada.pem")
        folder.ben.save(path / "ben.pem")
        return folder

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).write_bytes(data)
        (self.path / name).chmod(0o600)

    def settings(self, state: Path, address: str = "127.0.0.1:0") -> CoordinatorSettings:
        at = self.path
        return CoordinatorSettings(
            coordinator=CoordinatorSection(state=state),
            listen=Listen(address=address, metrics=""),
            identity=Identity(
                certificate=at / "server.crt",
                key=at / "server.key",
                authority=at / "ca.crt",
                signing_key=at / "signing.pem",
            ),
            consortium=Consortium(key=self.consortium.public),
            sites=tuple(
                SiteEntry(name=s, certificate=at / f"{s}.crt", key=key.public)
                for s, (_, key) in self.sites.items()
            ),
            operators=(OperatorEntry(name="operator", certificate=at / "operator.crt"),),
        )

    def roster(self, version: int = 1) -> Roster:
        return Roster(
            version=version,
            issued_at=0.0,
            sites=tuple(Seat(name=s, key=key.public) for s, (_, key) in self.sites.items()),
            people=(
                Person(name="ada", role="lead", key=self.ada.public),
                Person(name="ben", role="member", key=self.ben.public),
            ),
        )

    def permit(self, reference: str = "test/1", **changes: Any) -> Permit:
        """Return a permit for all that a test's sites do, in force for long."""
        own = {
            "permit__reference": reference,
            "use__valid_from": "2020-01-01",
            "use__valid_until": "2098-12-31",
            "use__retention_until": "2099-12-31",
            "datasets": [{"site": site, "dataset": "tiny"} for site in self.sites],
        }
        return permit(**(own | changes))

    def operator_settings(self, address: str, person: str = "ada") -> OperatorSettings:
        at = self.path
        return OperatorSettings(
            coordinator=OperatorCoordinator(address=address, authority=at / "ca.crt"),
            identity=OperatorIdentity(certificate=at / "operator.crt", key=at / "operator.key"),
            consortium=OperatorConsortium(
                key=self.consortium.public, signing_key=at / "consortium.pem"
            ),
            person=OperatorPerson(name=person, key=at / f"{person}.pem"),
        )

    def operator_file(self, path: Path, address: str, person: str = "ada") -> Path:
        """Write an operator file, as a person at the consortium has it."""
        at = self.path
        path.write_text(
            f'[coordinator]\naddress = "{address}"\nauthority = "{at}/ca.crt"\n'
            f'[identity]\ncertificate = "{at}/operator.crt"\nkey = "{at}/operator.key"\n'
            f'[consortium]\nkey = "{self.consortium.public}"\n'
            f'signing_key = "{at}/consortium.pem"\n'
            f'[person]\nname = "{person}"\nkey = "{at}/{person}.pem"\n'
        )
        return path


@dataclass(frozen=True)
class Federation:
    """A running coordinator and the folder it was made from."""

    folder: Folder
    hub: Hub

    def site(self, name: str) -> SitePeer:
        credential, key = self.folder.sites[name]
        return SitePeer(name, self.hub.address, self.folder.authority.certificate, credential, key)

    def operator(self, person: str = "ada") -> Operator:
        return Operator(self.folder.operator_settings(self.hub.address, person))

    def vouch(self, *references: str) -> None:
        """Sign what a proposal needs: the roster, and a permit of each reference."""
        coordinator, key = self.hub.coordinator, self.folder.consortium
        if not coordinator.book.roster().version:
            coordinator.take_roster(sign(self.folder.roster(), key))
        for reference in references:
            if coordinator.book.law.newest(reference) is None:
                coordinator.take_permit(sign(self.folder.permit(reference), key))

    def channel(self, credential: Credential | None, authority: bytes = b"") -> grpc.Channel:
        return open_channel(
            self.hub.address, authority or self.folder.authority.certificate, credential
        )

    def propose(self, study: Study) -> str:
        self.vouch(study.file.study.permit)
        proposal = sign(Proposal(study=study, proposed_at=0.0), self.folder.ada)
        return self.hub.coordinator.propose(proposal).digest

    def launch(self, study: str) -> None:
        with self.operator() as operator:
            operator.launch(study)


@dataclass(frozen=True)
class Work:
    """A task as a site sees it."""

    message: Message
    fields: dict[str, str | int | float]


class SitePeer:
    """The calls of a hospital node, and nothing else of one."""

    def __init__(
        self, name: str, address: str, authority: bytes, credential: Credential, key: SigningKey
    ) -> None:
        self.name, self.key = name, key
        self.channel = open_channel(address, authority, credential)
        self.exchange = stubs.ExchangeStub(self.channel)  # type: ignore[no-untyped-call]
        self.studies = stubs.StudiesStub(self.channel)  # type: ignore[no-untyped-call]
        self.control = stubs.ControlStub(self.channel)  # type: ignore[no-untyped-call]
        self.fleet = FleetStub(self.channel)  # type: ignore[no-untyped-call]
        self.seen, self.opens_at = 0, 0.0  # studies listed; when its training window opens

    def __enter__(self) -> SitePeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def approve(
        self, study: str, decision: str = "approved", code: str = "", **changes: str
    ) -> wire.AnswerReply:
        """Answer under the newest permit and roster that the coordinator shows."""
        law = self.law_of(study) if decision == "approved" else {}
        own = {"study": study, "site": self.name, "decision": decision, "code": code}
        answer = Answer.model_validate({**own, **law, "answered_at": 0.0, **changes})
        signed = sign(answer, self.key).to_bytes()
        reply: wire.AnswerReply = self.studies.Answer(wire.AnswerRequest(answer=signed))
        return reply

    def law_of(self, study: str) -> dict[str, str]:
        """Return the digests of permit and seats that an approval of a listed study binds."""
        listed = self.studies.List(wire.ListStudiesRequest())
        proposals = [opened(Proposal, data).study for data in listed.proposals]
        file = next((found.file for found in proposals if found.digest == study), None)
        if file is None:
            return {}
        permits = [Signed.from_bytes(data) for data in listed.permits]
        named = [
            signed.digest
            for signed in permits
            if opened(Permit, signed.to_bytes()).reference == file.study.permit
        ]
        roster = opened(Roster, listed.rosters[-1])
        return {"permit": named[-1], "seats": roster.seats_digest(file.site_names)}

    def take(self, timeout_s: float = 10.0) -> Work | None:
        request = wire.TakeRequest(studies_seen=self.seen, opens_at=self.opens_at)
        reply = self.exchange.Take(request, timeout=timeout_s)
        self.seen = reply.studies_revision
        if not reply.messages:
            return None
        pulled = PullMessagesResponse.FromString(reply.messages)
        contents = {part.id: part.content for part in reply.objects}
        whole = inflate_object_from_contents(pulled.message_object_trees[0].object_id, contents)
        assert isinstance(whole, Message)
        record = whole.content["larrey"]
        return Work(message_from_proto(pulled.messages_list[0]), dict(record))  # type: ignore[arg-type]

    def work(self) -> Work:
        """Return the next task, however often the poll comes back empty."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if (work := self.take()) is not None:
                return work
        raise AssertionError("no task came")

    def fetch(self, digest: str, offset: int = 0) -> bytes:
        request = wire.FetchRequest(digest=digest, offset=offset)
        return b"".join(chunk.data for chunk in self.exchange.Fetch(request))

    def store(self, data: bytes, offset: int = 0, until: int | None = None) -> wire.OfferReply:
        digest = digest_bytes(data)
        end = len(data) if until is None else until
        parts = (
            wire.StorePart(
                digest=digest,
                total_bytes=len(data),
                offset=at,
                data=data[at : min(at + CHUNK, end)],
            )
            for at in range(offset, end, CHUNK)
        )
        reply: wire.OfferReply = self.exchange.Store(parts)
        return reply

    def give(
        self,
        work: Work,
        update: str = "",
        code: str = "",
        receipt: bytes = b"",
        anchor: bytes = b"",
    ) -> wire.GiveReply:
        names = ("study", "round", "phase", "attempt", "model")
        fields = {name: work.fields[name] for name in names} | {"update": update, "code": code}
        request = make_give(work.message, RecordDict({"larrey": ConfigRecord(fields)}), receipt)  # type: ignore[arg-type]
        request.anchor = anchor
        reply: wire.GiveReply = self.exchange.Give(request)
        return reply

    def receipt(self, work: Work, update: str, nbytes: int, **changes: object) -> bytes:
        facts = {
            "study": work.fields["study"],
            "site": self.name,
            "round": work.fields["round"],
            "phase": work.fields["phase"],
            "model_in": work.fields["model"],
            "update": update,
            "update_bytes": nbytes,
            "epsilon": 0.5,
            "delta": 1e-5,
            "accountant": "pld",
            "ledger_head": "1:x",
            "audit_head": "1:x",
            "at": 0.0,
        }
        return sign(Receipt.model_validate(facts | changes), self.key).to_bytes()

    def answer(self, work: Work, study: Study, seed: int = 0) -> wire.GiveReply:
        """Fetch, pretend to train, store and give."""
        model = self.fetch(str(work.fields["model"]))
        assert len(model) == work.fields["model_bytes"]
        update = small_update(study, seed)
        assert self.store(update).complete
        digest = digest_bytes(update)
        return self.give(work, digest, receipt=self.receipt(work, digest, len(update)))


def opened(model: type[_RecordT], data: bytes) -> _RecordT:
    """Return a signed document, whoever signed it."""
    signed = Signed.from_bytes(data)
    return open_signed(signed, model, signed.signer)


def make_give(message: Message, content: RecordDict, receipt: bytes = b"") -> wire.GiveRequest:
    reply = Message(content, reply_to=message)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects, tree = get_all_nested_objects(reply), get_object_tree(reply)
    pushed = PushMessagesRequest(
        node=Node(node_id=reply.metadata.src_node_id),
        messages_list=[message_to_proto(remove_content_from_message(reply))],
        message_object_trees=[tree],
        clientapp_runtime_list=[0.0],
    )
    return wire.GiveRequest(
        message=pushed.SerializeToString(),
        objects=[wire.FlowerObject(id=k, content=o.deflate()) for k, o in objects.items()],
        receipt=receipt,
    )


def open_channel(address: str, authority: bytes, credential: Credential | None) -> grpc.Channel:
    key = (credential.key, credential.certificate) if credential else (None, None)
    credentials = grpc.ssl_channel_credentials(authority, *key)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.secure_channel(address, credentials, options)


def small_update(study: Study, seed: int = 0) -> bytes:
    """Return an update that lies well within the norm bound."""
    layout = model_layout(study)
    values = np.random.default_rng(seed).normal(size=layout.size).astype(np.float32)
    return pack(layout, values / np.float32(1e3 * np.linalg.norm(values)))


def until(holds: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Return as soon as something holds."""
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("it did not become true in time")
        time.sleep(0.005)


def running(folder: Folder, state: Path) -> Iterator[Federation]:
    hub = Hub(folder.settings(state))
    try:
        (federation := Federation(folder, hub)).vouch("test/1", "demo/2026/1")
        yield federation
    finally:
        hub.stop()
