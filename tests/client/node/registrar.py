"""A coordinator's enrolment in this process, and the invitation it would honour."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from larrey_client.cli import main
from larrey_protocol.certificates import (
    Credential,
    issue_client,
    issue_for_request,
    issue_server,
)
from larrey_protocol.enrolment import Invitation, open_request
from larrey_protocol.signed import Signed
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs

NOW = dt.datetime.now(dt.UTC)
DAY_S = 86400.0


@dataclass
class Registrar(stubs.EnrolmentServicer, stubs.StudiesServicer):
    """A coordinator that signs every request it understands, unless told to answer otherwise."""

    authority: Credential
    issued_at: dt.datetime = NOW
    code: str = ""
    instead: bytes = b""  # a certificate of somebody else
    lists: int = 0
    requests: list[Signed] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    server: Any = None

    def start(self) -> Registrar:
        server = grpc.server(ThreadPoolExecutor(4))
        credential = issue_server(self.authority, ["localhost"], now=NOW)
        tls = grpc.ssl_server_credentials(
            [(credential.key, credential.certificate)],
            self.authority.certificate,
            require_client_auth=True,
        )
        stubs.add_EnrolmentServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        stubs.add_StudiesServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        self.port = server.add_secure_port("127.0.0.1:0", tls)
        server.start()
        self.server = server
        return self

    def Join(self, request: wire.JoinCall, context: grpc.ServicerContext) -> wire.JoinReply:
        return self._issue(request.request)

    def Renew(self, request: wire.RenewCall, context: grpc.ServicerContext) -> wire.JoinReply:
        return self._issue(request.request)

    def List(
        self, request: wire.ListStudiesRequest, context: grpc.ServicerContext
    ) -> wire.ListStudiesReply:
        """Hold the first call until it is released, answer the others at once."""
        self.lists += 1
        if self.lists == 1:
            self.waiting.set()
            self.release.wait(10)
        pem = context.auth_context()["x509_pem_cert"][0]
        return wire.ListStudiesReply(proposals=[pem])

    def _issue(self, data: bytes) -> wire.JoinReply:
        signed = Signed.from_bytes(data)
        self.requests.append(signed)
        if self.code:
            return wire.JoinReply(code=self.code)
        asked = open_request(signed)
        certificate = issue_for_request(
            self.authority, asked.request.encode(), asked.site, now=self.issued_at
        )
        return wire.JoinReply(
            certificate=self.instead or certificate, authority=self.authority.certificate
        )


def make_invitation(registrar: Registrar, consortium: str) -> Invitation:
    bootstrap = issue_client(registrar.authority, "invitation", now=NOW, days=3)
    return Invitation(
        invitation="0" * 32,
        site="st-mary",
        address=f"localhost:{registrar.port}",
        authority=registrar.authority.certificate.decode(),
        consortium=consortium,
        certificate=bootstrap.certificate.decode(),
        key=bootstrap.key.decode(),
        expires_at=NOW.timestamp() + 3 * DAY_S,
    )


def join(file: Path, folder: Path, *more: str) -> int:
    return main(["join", str(file), "--dir", str(folder), "--json", *more])
