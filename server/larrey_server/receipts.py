"""Checks that a site's receipt belongs to the answer it comes with."""

from __future__ import annotations

from larrey_protocol.errors import IntegrityError
from larrey_protocol.signed import Receipt, Signed, open_signed
from larrey_server.rounds import Task

__all__ = ["check_receipt"]


def check_receipt(
    data: bytes, *, site: str, signing_key: str, task: Task, update: str, update_bytes: int
) -> Signed:
    """Return the signed receipt if it is this site's, for this task and this update.

    Raises:
        IntegrityError: ``receipt-missing``, ``receipt-mismatch``, or as
            `larrey_protocol.signed.open_signed`.
    """
    if not data:
        raise IntegrityError("receipt-missing", f"{site} sent an update without a receipt")
    signed = Signed.from_bytes(data)
    receipt = open_signed(signed, Receipt, signing_key)
    expected = {
        "study": task.study,
        "site": site,
        "round": task.round,
        "phase": task.phase,
        "model_in": task.model,
        "update": update,
        "update_bytes": update_bytes,
    }
    wrong = [name for name, value in expected.items() if getattr(receipt, name) != value]
    if wrong:
        raise IntegrityError(
            "receipt-mismatch", f"the receipt of {site} has another {', '.join(wrong)}"
        )
    return signed
