"""Deletes what a closed study leaves at the coordinator, and signs what was deleted.

Uploads, models and checkpoints go; orders, receipts, contributions, certificate and audit trail
stay, since they prove what was done and hold no weights. Doing it twice changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from larrey_protocol.audit import AuditRecord
from larrey_protocol.canonical import short
from larrey_protocol.decisions import Deleted, DeletionReceipt
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, sign
from larrey_protocol.study import Study
from larrey_server.journal import DocumentRow, Journal
from larrey_server.spool import Spool
from larrey_server.tensor_files import sync_folder

__all__ = ["COORDINATOR", "Closer", "keep_receipt"]

logger = logging.getLogger(__name__)
COORDINATOR = "coordinator"  # under which name it signs and acts; no site may be called so


class Closer:
    """Closes ended studies."""

    def __init__(self, journal: Journal, spool: Spool, studies: Path, signer: SigningKey) -> None:
        """Take where things lie, the folder of checkpoints, and the key that signs receipts."""
        self._journal = journal
        self._spool = spool
        self._studies = studies
        self._signer = signer

    def close(self, study: Study) -> bool:
        """Delete a study's bytes and keep the receipt; False if that was done before."""
        if self.is_closed(study.digest):
            return False
        items = (*self._delete_uploads(study.digest), *self._delete_models(study.digest))
        at = time.time()
        receipt = DeletionReceipt(study=study.digest, by=COORDINATOR, items=items, at=at)
        keep_receipt(self._journal, sign(receipt, self._signer), receipt, at)
        logger.info("study closed study=%s items=%d", short(study.digest), len(items))
        return True

    def is_closed(self, study: str) -> bool:
        """Return whether the coordinator deleted a study before."""
        rows = self._journal.documents("deletionreceipt", study)
        return any(Signed.from_bytes(r.document).signer == self._signer.public for r in rows)

    def _delete_uploads(self, study: str) -> Iterator[Deleted]:
        named = {row.cell.update for row in self._journal.contributions(study)} - {""}
        for digest in sorted(named):
            size = self._spool.have(digest)
            self._spool.drop(digest)
            if size and not self._spool.have(digest):
                yield Deleted(kind="upload", digest=digest, bytes=size)

    def _delete_models(self, study: str) -> Iterator[Deleted]:
        folder = self._studies / short(study)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        models = [path for path in files if path.suffix == ".safetensors"]
        for path in files:
            size, digest = path.stat().st_size, _digest(path)
            path.unlink()
            kind = "model" if path in models[-1:] else "checkpoint"
            yield Deleted.model_validate({"kind": kind, "digest": digest, "bytes": size})
        if files:
            folder.rmdir()
            sync_folder(folder.parent)


def keep_receipt(journal: Journal, signed: Signed, receipt: DeletionReceipt, at: float) -> None:
    """Keep a verified deletion receipt, with a line in the trail."""
    row = DocumentRow("deletionreceipt", receipt.study, 0, signed.digest, signed.to_bytes())
    record = AuditRecord(0, at, receipt.by, "study-deleted", receipt.study, subject=signed.digest)
    journal.keep(row, record)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
