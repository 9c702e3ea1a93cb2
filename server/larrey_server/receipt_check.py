"""Whether a receipt is about exactly the answer it came with. Pure."""

from __future__ import annotations

from larrey_protocol.errors import IntegrityError
from larrey_protocol.signed import Receipt, Signed, open_signed
from larrey_server.round_values import TaskKey

__all__ = ["matching_receipt"]


def matching_receipt(
    signed: Signed | None, key: TaskKey, *, site: str, update: str, nbytes: int
) -> Receipt:
    """Return the receipt if it is about this task of this site and this update.

    That the signer is the site's key is checked where sites are known (the gRPC side).

    Raises:
        IntegrityError: ``receipt-missing``, ``receipt-mismatch``, or as `open_signed`.
    """
    if signed is None:
        raise IntegrityError("receipt-missing", f"{site} sent an update without a receipt")
    receipt = open_signed(signed, Receipt, signed.signer)
    found = (
        receipt.study,
        receipt.site,
        receipt.round,
        receipt.phase,
        receipt.model_in,
        receipt.update,
        receipt.update_bytes,
    )
    if found != (key.study, site, key.round, key.phase, key.model, update, nbytes):
        raise IntegrityError("receipt-mismatch", f"{site} sent the receipt of something else")
    return receipt
