"""`larrey.v1.Exchange`: what hospital nodes call to get work and hand in results.

What a site may do follows from the task it was given (`flower.courier`): nothing else is readable,
and an upload is exactly one file of the size that the study fixes. Text that goes back is a code.
"""

# ruff: noqa: N802 (the protocol names these methods)
from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc

from larrey_protocol.disk import DISK_CODES
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.signed import Signed
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_protocol.waypoints import reached
from larrey_server.coordinator import Coordinator
from larrey_server.doorbell import Doorbell
from larrey_server.flower.courier import Errand
from larrey_server.flower.fleet import LONG_POLL_S
from larrey_server.flower.messages import SiteReply
from larrey_server.flower.post import Parcel
from larrey_server.gatekeeper import Gatekeeper
from larrey_server.receipt_check import matching_receipt

__all__ = ["CHUNK_BYTES", "ExchangeService"]

logger = logging.getLogger(__name__)

_MAX_RECEIPT_BYTES = 16 << 10  # each is kept in the journal; an honest one has about one KiB
CHUNK_BYTES = 1 << 20  # measured: 1 to 2 MiB is fastest, larger ones cost memory
_LOST = "lost"  # a connection that ended while a message was taken for it


class ExchangeService(stubs.ExchangeServicer):
    """The site-facing half of the coordinator."""

    def __init__(self, coordinator: Coordinator, gatekeeper: Gatekeeper) -> None:
        self._coordinator = coordinator
        self._dispatch = coordinator.dispatch
        self._presence = coordinator.presence
        self._post = coordinator.post
        self._spool = coordinator.spool
        self._gatekeeper = gatekeeper

    def Take(self, request: wire.TakeRequest, context: grpc.ServicerContext) -> wire.TakeReply:
        """Wait for work, at most 20 s; an empty reply means: list your studies, or ask again."""
        site = self._gatekeeper.site_of(context)
        bell = self._coordinator.engine.bell(site)
        guest, end = bell.enter(), time.monotonic() + LONG_POLL_S
        # After it displaced an earlier poll; see `_lost`.
        self._presence.heard(site, request.opens_at)
        context.add_callback(bell.ring)
        while self._coordinator.is_ready():
            heard = bell.rings
            if bell.is_displaced(guest) or not context.is_active():
                break
            self._dispatch.send_again(site, context.peer())
            parcel = self._post.take(site)
            if parcel is not None:
                if bell.is_displaced(guest) or not context.is_active():
                    self._dispatch.carried(site, parcel.message_id, _LOST)
                    bell.ring()
                    break
                if self._dispatch.carried(site, parcel.message_id, context.peer()):
                    with suppress(Refusal):  # its study ended in this very moment
                        return self._handed_over(site, parcel)
                continue
            left = end - time.monotonic()
            if left <= 0 or self._coordinator.book.revision(site) != request.studies_seen:
                break
            bell.wait(guest, heard, left)
            self._presence.heard(site)
        if not context.is_active():
            self._lost(site, bell, guest)
        return self._reply(site)

    def Fetch(
        self, request: wire.FetchRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.Chunk]:
        """Stream the model of the caller's own task from an offset."""
        site = self._gatekeeper.site_of(context)
        if not self._dispatch.is_offered(site, request.digest):
            context.abort(grpc.StatusCode.NOT_FOUND, "not-offered")
        try:
            descriptor = self._spool.open_read(request.digest)
        except LarreyError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, error.code)
        begun = time.monotonic()
        try:
            yield from chunks(descriptor, request.offset)
        finally:  # cut or not, the site waited for it
            self._dispatch.transferred(site, request.digest, begun)

    def Offer(self, request: wire.OfferRequest, context: grpc.ServicerContext) -> wire.OfferReply:
        """Say how much of an upload already lies here."""
        site = self._gatekeeper.site_of(context)
        self._presence.heard(site)
        try:
            self._claim(site, request.digest, request.total_bytes)
            return self._have(site, request.digest, request.total_bytes)
        except LarreyError as error:
            context.abort(_status(error), error.code)

    def Store(
        self, request_iterator: Iterator[wire.StorePart], context: grpc.ServicerContext
    ) -> wire.OfferReply:
        """Take an upload from the offset its first part names."""
        site = self._gatekeeper.site_of(context)
        self._presence.heard(site)
        try:
            begun, first = time.monotonic(), next(request_iterator)
            self._claim(site, first.digest, first.total_bytes)
            try:
                if not self._spool.complete(first.digest):
                    self._receive(site, first, request_iterator)
            finally:
                self._dispatch.transferred(site, first.digest, begun)
            return self._have(site, first.digest, first.total_bytes)
        except LarreyError as error:
            context.abort(_status(error), error.code)
        except (StopIteration, grpc.RpcError):  # cut: what came stays, the site resumes
            return wire.OfferReply()

    def Give(self, request: wire.GiveRequest, context: grpc.ServicerContext) -> wire.GiveReply:
        """Take a reply message: an update that lies here with its receipt, or a code."""
        site = self._gatekeeper.site_of(context)
        self._presence.heard(site)
        try:
            envelope = self._post.open(site, request.message)
        except Refusal as error:
            return wire.GiveReply(accepted=False, code=error.code)
        self._keep_anchor(site, request.anchor)  # too late for its round or not
        message_id = envelope.messages_list[0].metadata.reply_to_message_id
        errand = self._dispatch.find(site, message_id)
        if errand is None:
            if request.receipt:  # a code that comes late says nothing
                self._note_late(site, lambda missed: missed.message_id == message_id)
            return wire.GiveReply(accepted=False, code="not-expected")
        update, receipt, code, fault = "", None, "", ""
        try:
            self._post.give(envelope, {part.id: part.content for part in request.objects})
            reply = errand.courier.read(message_id)
            reached("coordinator.reply-read")
            receipt = self._checked(errand, reply, request.receipt)
            reached("coordinator.receipt-checked")
            update, code = reply.update, reply.code
        except (Refusal, IntegrityError) as error:
            fault = code = error.code
        if not self._dispatch.close(errand):
            return wire.GiveReply(accepted=False, code="not-expected")
        if fault:
            self._post.discard(envelope)
        if not update:
            self._dispatch.reject(errand)
        self._coordinator.answered(errand, update, receipt, code)
        reached("coordinator.reply-taken")
        return wire.GiveReply(accepted=not fault, code=fault)

    def _lost(self, site: str, bell: Doorbell, guest: int) -> None:
        """Call a site down whose poll broke, unless it polls over a newer connection."""
        if bell.is_displaced(guest) or not self._coordinator.is_ready():
            return
        self._presence.lost(site)
        if bell.is_displaced(guest):  # the newer poll came meanwhile
            self._presence.heard(site)

    def _handed_over(self, site: str, parcel: Parcel) -> wire.TakeReply:
        reply = self._reply(site)
        reply.messages = parcel.payload
        reply.objects.extend(wire.FlowerObject(id=k, content=v) for k, v in parcel.objects)
        errand = self._dispatch.find(site, parcel.message_id)
        if errand is not None:
            sites = errand.courier.study.file.site_names
            reply.witness.extend(self._coordinator.anchors.of_others(site, sites))
        self._post.confirm(site, parcel)
        reached("coordinator.task-handed-over")
        return reply

    def _reply(self, site: str) -> wire.TakeReply:
        revision = self._coordinator.book.revision(site)
        return wire.TakeReply(studies_revision=revision, server_time=time.time())

    def _keep_anchor(self, site: str, anchor: bytes) -> None:
        """Be a witness of the site's ledger; a false anchor harms only who signed it."""
        if not anchor:
            return
        try:
            self._coordinator.anchors.take(site, anchor)
        except IntegrityError as error:
            self._coordinator.metrics.auth_failure("bad_signature")
            logger.warning("site=%s sent no anchor of its own code=%s", site, error.code)

    def _claim(self, site: str, digest: str, total_bytes: int) -> None:
        """Let a site upload an update, and note where it comes too late.

        Raises:
            Refusal, IntegrityError: as `Dispatch.claim_upload`.
        """
        try:
            self._dispatch.claim_upload(site, digest, total_bytes)
        except Refusal:
            self._note_late(
                site, lambda missed: missed.courier.update_bytes(missed.task.phase) == total_bytes
            )
            raise

    def _note_late(self, site: str, fits: Callable[[Errand], bool]) -> None:
        missed = self._dispatch.missed(site, fits)
        if missed is not None:
            self._coordinator.late(missed)

    def _have(self, site: str, digest: str, total_bytes: int) -> wire.OfferReply:
        if self._spool.complete(digest):
            return wire.OfferReply(have_bytes=total_bytes, complete=True)
        return wire.OfferReply(have_bytes=self._spool.have(digest, site))

    def _receive(self, site: str, first: wire.StorePart, rest: Iterator[wire.StorePart]) -> None:
        digest, total, offset = first.digest, first.total_bytes, first.offset
        with self._spool.writer(digest, total, offset, owner=site) as writer:
            writer.write(first.data)
            for part in rest:
                if part.offset != writer.offset:
                    raise Refusal("upload-gap", f"expected byte {writer.offset}")
                writer.write(part.data)
                reached("coordinator.upload-part-written")

    def _checked(self, errand: Errand, reply: SiteReply, receipt: bytes) -> Signed | None:
        """Return the receipt of an acceptable answer; None with a site's own refusal."""
        if reply.key is not None and reply.key != errand.task.key:
            raise Refusal("wrong-task", f"{errand.site} answered another task")
        if not reply.update:
            return None
        is_theirs = self._dispatch.assign(errand, reply.update)
        if not is_theirs or not self._spool.complete(reply.update):
            raise Refusal("update-missing", f"{errand.site} did not upload what it names")
        try:
            return self._signed(errand, reply, receipt)
        except IntegrityError:
            self._coordinator.metrics.auth_failure("bad_signature")
            raise

    def _signed(self, errand: Errand, reply: SiteReply, receipt: bytes) -> Signed:
        """Return the receipt if this site signed it about this task and this update."""
        site = errand.site
        if len(receipt) > _MAX_RECEIPT_BYTES:
            raise IntegrityError("malformed-document", f"a receipt of {site} is too long")
        signed = Signed.from_bytes(receipt) if receipt else None
        if signed and signed.signer != self._coordinator.registry.sites[site].signing_key:
            raise IntegrityError("wrong-signer", f"a receipt of {site} has an unexpected signer")
        nbytes = errand.courier.update_bytes(errand.task.phase)
        matching_receipt(signed, errand.task.key, site=site, update=reply.update, nbytes=nbytes)
        if signed is None:
            raise IntegrityError("receipt-missing", f"{site} sent an update without a receipt")
        return signed


def chunks(descriptor: int, offset: int) -> Iterator[wire.Chunk]:
    """Stream an open file from an offset and close it."""
    try:
        total = os.fstat(descriptor).st_size
        while offset < total:
            data = os.pread(descriptor, CHUNK_BYTES, offset)
            yield wire.Chunk(data=data, total_bytes=total)
            reached("coordinator.model-part-sent")
            offset += len(data)
    finally:
        os.close(descriptor)


def _status(error: LarreyError) -> grpc.StatusCode:
    if error.code in {"upload-too-large", *DISK_CODES}:
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if error.code == "upload-superseded":
        return grpc.StatusCode.ABORTED
    return grpc.StatusCode.FAILED_PRECONDITION
