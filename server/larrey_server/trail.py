"""The coordinator's audit trail to look at: is it whole, who did what, does a site's trail agree.

Pure, over the documents that `told` reads from a journal: the trail's records, every contribution
with the receipt that the site signed, certificates, and the seal: the newest head, signed by the
coordinator after each commit. Heads are kept by others, too: a receipt names the one that the site
saw, under the site's signature. So an edited, deleted or moved record is found by the chain, and a
rewritten or cut trail by the first signed head that it lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from larrey_protocol.audit import AuditRecord, verify_chain
from larrey_protocol.decisions import Anchor, Order
from larrey_protocol.errors import IntegrityError
from larrey_protocol.signed import Certificate, Receipt, Signed, open_signed
from larrey_server.journal import Journal

__all__ = ["Difference", "Trail", "query", "read_trail", "reconcile", "told", "verify"]

Json = Mapping[str, Any]  # Any: JSON values are recursive
_SEEN = ("round-applied", "round-not-applied", "study-ended")


@dataclass(frozen=True, slots=True)
class Told:
    """One contribution as the coordinator has it, with the receipts of all phases that counted."""

    study: str
    round: int
    site: str
    outcome: str
    receipts: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class Trail:
    """What a coordinator says of itself."""

    records: tuple[AuditRecord, ...]
    contributions: tuple[Told, ...]
    certificates: tuple[Signed, ...]
    seal: Signed | None = None
    orders: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a site and the coordinator do not say the same.

    Attributes:
        kind: ``missing`` (the coordinator lacks it), ``extra`` (the site does) or ``different``.
        what: receipt, approval or record.
        index: number of the audit record concerned, 0 where there is none.
    """

    kind: str
    what: str
    study: str
    round: int
    index: int
    text: str


def told(
    journal: Journal, after: int = 0, seal: bytes = b""
) -> Iterator[dict[str, Any]]:  # Any: JSON
    """Yield what a journal has, one JSON document each; records from number ``after`` + 1 on.

    The seal is read before the journal, so that no record that it names is missing.
    """
    if seal:
        yield {"seal": seal.decode(errors="replace")}
    for record in journal.audit():
        if record.seq > after:
            yield {"record": asdict(record)}
    for order in journal.documents("order"):
        yield {"order": order.document.decode()}
    for study in journal.studies():
        for row in journal.contributions(study.digest):
            cell = row.cell
            yield {
                "contribution": {
                    "study": study.digest,
                    "round": cell.round,
                    "site": cell.site,
                    "outcome": cell.outcome,
                    "receipts": [receipt.decode() for receipt in row.receipts],
                }
            }
        certificate = journal.certificate(study.digest)
        if certificate:
            yield {"certificate": certificate.decode()}


def read_trail(documents: Iterable[Json]) -> Trail:
    """Return a trail from its documents; nothing of it is verified yet.

    Raises:
        IntegrityError: ``malformed-document``.
    """
    records, contributions, certificates, seal = [], [], [], None
    orders: list[Signed] = []
    try:
        for document in documents:
            if "record" in document:
                records.append(AuditRecord(**document["record"]))
            elif "contribution" in document:
                contributions.append(_told(document["contribution"]))
            elif "certificate" in document:
                certificates.append(Signed.from_bytes(document["certificate"].encode()))
            elif "order" in document:
                orders.append(Signed.from_bytes(document["order"].encode()))
            elif "seal" in document:
                seal = Signed.from_bytes(document["seal"].encode())
    except (TypeError, KeyError, AttributeError) as error:
        raise IntegrityError("malformed-document", "the trail cannot be read") from error
    return Trail(tuple(records), tuple(contributions), tuple(certificates), seal, tuple(orders))


def verify(trail: Trail, *, needs_seal: bool = False) -> dict[str, Any]:  # Any: JSON
    """Return how long the trail is and how many signed heads it meets.

    Without ``needs_seal`` a trail may have none.

    Raises:
        IntegrityError: ``audit-broken`` with the number of the first record that does not follow,
            ``audit-behind-anchor`` with that of the first signed record that is not there,
            ``seal-missing``, or as `open_signed`.
    """
    last = verify_chain(trail.records)
    heads = [(receipt.peer_head, receipt.site) for receipt in _receipts(trail)]
    own = [open_signed(one, Certificate, one.signer).audit_head for one in trail.certificates]
    own += _sealed(trail, is_needed=needs_seal and last is not None)
    heads += [(head, "the coordinator") for head in own]
    known = _heads(trail.records)
    lost = {(number, who) for head, who in heads for number in _lost(known, head)}
    if lost:
        signers = ", ".join(sorted({who for _, who in lost}))
        raise IntegrityError(
            "audit-behind-anchor",
            f"record {min(lost)[0]} of the audit trail was signed for by {signers} and is not here;"
            f" the trail has {len(trail.records)}",
            "Records were removed or rewritten, an old copy was restored, or one site alone lies;"
            " open an incident.",
        )
    return {
        "audit_records": len(trail.records),
        "audit_head": last.head if last else "0:",
        "signed_heads": len(heads),
        "is_intact": True,
    }


def query(
    trail: Trail, *, study: str = "", actor: str = "", action: str = "", since: float = 0.0,
    until: float = float("inf"),
) -> list[dict[str, Any]]:  # fmt: skip  # Any: JSON
    """Return the records that were asked for, oldest first; an empty word asks for all.

    An order's record also has what it was about, ``about``, and the person's ``reason``.
    """
    digits = study.removeprefix("sha256:")
    orders = {one.digest: open_signed(one, Order, one.signer) for one in trail.orders}
    return [
        asdict(record) | _said(orders.get(record.subject))
        for record in trail.records
        if record.study.removeprefix("sha256:").startswith(digits)
        and actor in ("", record.actor)
        and action in ("", record.action)
        and since <= record.at < until
    ]


def _said(order: Order | None) -> dict[str, str]:
    return {"about": order.subject, "reason": order.reason} if order is not None else {}


def reconcile(trail: Trail, export: Json) -> list[Difference]:
    """Return every difference between a coordinator's trail and what a site exported.

    Args:
        trail: the coordinator's.
        export: of `larrey-site audit export`: site, key, records, receipts, and as ``elsewhere``
            the studies that other consortia of the site proposed.

    Raises:
        IntegrityError: ``audit-broken`` where either trail does not hold together, a signature's
            code, or ``malformed-document``.
    """
    site, records, receipts, elsewhere = _opened(export)
    verify_chain(trail.records)
    try:
        verify_chain(records)
    except ValueError as error:  # NaN, which no record has
        raise IntegrityError("audit-broken", f"the trail of {site} holds no numbers") from error
    return [
        *_receipt_differences(trail, site, receipts),
        *_head_differences(trail, site, records, receipts),
        *_approval_differences(trail, site, [r for r in records if r.study not in elsewhere]),
    ]


def _receipt_differences(
    trail: Trail, site: str, receipts: Sequence[tuple[Receipt, Signed]]
) -> Iterator[Difference]:
    theirs = {_key(receipt): (receipt, signed) for receipt, signed in receipts}
    ours = [one for one in trail.contributions if one.site == site]
    mine = {
        _key(receipt): (receipt, signed)
        for one in ours
        for signed in one.receipts
        for receipt in (_receipt(signed),)
    }
    explained = {(one.study, one.round) for one in ours if not one.receipts}
    closed = {(record.study, record.round) for record in trail.records if record.action in _SEEN}
    for key, (receipt, signed) in theirs.items():
        place = (receipt.study, receipt.round)
        if key not in mine and place in closed and place not in explained:
            yield _about(receipt, "missing", "the coordinator has no such contribution")
        elif key in mine and mine[key][1] != signed:
            yield _about(receipt, "different", "the coordinator has another receipt for it")
    for key, (receipt, _) in mine.items():
        if key not in theirs:
            yield _about(receipt, "extra", "the site has no such receipt")


def _head_differences(
    trail: Trail, site: str, records: Sequence[AuditRecord],
    receipts: Sequence[tuple[Receipt, Signed]],
) -> Iterator[Difference]:  # fmt: skip
    ours, theirs = _heads(trail.records), _heads(records)
    for receipt, _ in receipts:
        for number in _lost(ours, receipt.peer_head):
            text = f"the site signed for record {number} of the coordinator, which is not there"
            yield Difference("missing", "record", receipt.study, receipt.round, number, text)
    for one in trail.contributions:
        for receipt in map(_receipt, one.receipts if one.site == site else ()):
            for number in _lost(theirs, receipt.audit_head):
                text = f"the site once signed record {number} of its trail, which is not there"
                yield Difference("extra", "record", one.study, one.round, number, text)


def _approval_differences(
    trail: Trail, site: str, records: Sequence[AuditRecord]
) -> Iterator[Difference]:
    theirs = {r.study: r.seq for r in records if r.action in ("study-approved", "approval-carried")}
    mine = {
        r.study: r.seq for r in trail.records if r.action == "study-approved" and r.actor == site
    }
    for study in sorted(theirs.keys() - mine.keys()):
        text = "the site approved the study; the coordinator has no such answer"
        yield Difference("missing", "approval", study, 0, theirs[study], text)
    for study in sorted(mine.keys() - theirs.keys()):
        text = "the coordinator has an approval that the site did not give"
        yield Difference("extra", "approval", study, 0, mine[study], text)


def _heads(records: Iterable[AuditRecord]) -> frozenset[str]:
    return frozenset(record.head for record in records)


def _lost(known: frozenset[str], head: str) -> Iterator[int]:
    """Yield the number of a signed head that a trail does not have."""
    if head not in known and _number(head):
        yield _number(head)


def _number(head: str) -> int:
    """Return a record's number, 0 for what a lying site wrote in its place."""
    text = head.partition(":")[0]
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else 0


def _opened(
    export: Json,
) -> tuple[str, list[AuditRecord], list[tuple[Receipt, Signed]], frozenset[str]]:
    """Return a site's name, records, receipts, each under the site's key, and others' studies."""
    try:
        records = [AuditRecord(**record) for record in export["records"]]
        signed = [Signed.from_bytes(json.dumps(one).encode()) for one in export["receipts"]]
        site, key = str(export["site"]), str(export["key"])
        elsewhere = frozenset(export.get("elsewhere", ()))
    except (TypeError, KeyError) as error:
        raise IntegrityError(
            "malformed-document", "expected the output of larrey-site audit export"
        ) from error
    return site, records, [(open_signed(one, Receipt, key), one) for one in signed], elsewhere


def _sealed(trail: Trail, *, is_needed: bool) -> list[str]:
    """Return the head that the coordinator signed last; who certifies studies signs it."""
    if trail.seal is None:
        if is_needed:
            raise IntegrityError(
                "seal-missing",
                "the signed head of the audit trail is not beside it",
                "It is written with the next record; if nobody restored a copy, open an incident.",
            )
        return []
    signers = {one.signer for one in trail.certificates} or {trail.seal.signer}
    return [open_signed(trail.seal, Anchor, signer).audit_head for signer in signers]


def _told(row: Json) -> Told:
    receipts = tuple(Signed.from_bytes(one.encode()) for one in row["receipts"])
    return Told(row["study"], row["round"], row["site"], row["outcome"], receipts)


def _receipts(trail: Trail) -> Iterator[Receipt]:
    return (_receipt(signed) for one in trail.contributions for signed in one.receipts)


def _receipt(signed: Signed) -> Receipt:
    """Return a receipt that its signer signed; whose key that is was checked on arrival."""
    return open_signed(signed, Receipt, signed.signer)


def _key(receipt: Receipt) -> tuple[str, int, str, str]:
    return receipt.study, receipt.round, receipt.phase, receipt.model_in


def _about(receipt: Receipt, kind: str, text: str) -> Difference:
    index = _number(receipt.audit_head)
    text = f"{receipt.phase}: {text}"
    return Difference(kind, "receipt", receipt.study, receipt.round, index, text)
