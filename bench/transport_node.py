"""A site reduced to its transport: fetch the model, send an update, nothing in between.

Uses the shipped connection and message forms against the shipped coordinator; what is missing is
gate, ledger, trainer and spool. Run by `bench.memory` to tell transport from the full path.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from larrey_client.exchange import Exchange, Tls
from larrey_client.flower import Incoming, make_give, open_take
from larrey_client.model_spool import ModelSpool
from larrey_client.settings import load_settings
from larrey_client.task import Task
from larrey_protocol.errors import TransportError
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.roster import Roster
from larrey_protocol.signed import Answer, Proposal, Receipt, Signed, sign
from larrey_protocol.streams import reuse_buffers
from larrey_protocol.tensors import pack
from larrey_protocol.v1.larrey_pb2 import GiveRequest


def main(config: Path) -> None:
    """Approve the first study that is proposed, then serve rounds until killed."""
    reuse_buffers()
    settings = load_settings(config)
    identity = settings.identity
    tls = Tls(
        settings.coordinator.authority.read_bytes(),
        identity.certificate.read_bytes(),
        identity.key.read_bytes(),
    )
    exchange = Exchange(settings.coordinator.address, tls, lambda sent, received: None)
    key, site = SigningKey.load(identity.signing_key), settings.site.name
    while not (told := exchange.studies()).proposals:
        time.sleep(0.1)
    study = Proposal.model_validate_json(Signed.from_bytes(told.proposals[0]).document).study
    roster = Roster.model_validate_json(Signed.from_bytes(told.rosters[-1]).document)
    answer = Answer(
        study=study.digest,
        permit=Signed.from_bytes(told.permits[-1]).digest,
        seats=roster.seats_digest(study.file.site_names),
        site=site,
        decision="approved",
        answered_at=time.time(),
    )
    exchange.answer(sign(answer, key).to_bytes())
    layout, models = model_layout(study), ModelSpool(config.parent)
    update = config.parent / "update"
    random = np.random.default_rng().random(layout.size, dtype=np.float32)
    update.write_bytes(pack(layout, random))
    digest = "sha256:" + hashlib.file_digest(update.open("rb"), "sha256").hexdigest()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        incoming = open_take(exchange.take("bench", exchange.studies().revision))
        if incoming is not None and incoming.task is not None:
            with models.begin(study.digest, incoming.task.model, layout.nbytes) as download:
                exchange.fetch(download, timeout_s=60)
                os.close(download.finish())
            exchange.store(digest, update, timeout_s=60, resume=False)
            exchange.give(_reply(incoming, incoming.task, digest, update, (site, key)))


def _reply(
    incoming: Incoming, task: Task, digest: str, update: Path, signer: tuple[str, SigningKey]
) -> GiveRequest:
    receipt = Receipt(
        study=task.study,
        site=signer[0],
        round=task.round,
        phase=task.phase,
        model_in=task.model,
        update=digest,
        update_bytes=update.stat().st_size,
        epsilon=-1.0,
        delta=0.0,
        accountant="none",
        ledger_head="",
        audit_head="",
        peer_head=task.peer_head,
        at=time.time(),
    )
    signed = sign(receipt, signer[1]).to_bytes()
    return make_give(incoming, update=digest, code="", receipt=signed)


if __name__ == "__main__":
    with suppress(TransportError):  # the coordinator ended
        main(Path(sys.argv[1]))
