"""The site's audit trail to look at: is it whole, who did what, and a copy for the other side.

Each record hangs on the one before. The trail's last head is signed: in every receipt, in every
anchor that left, and after each commit in ``trail.anchor`` beside the database. So an edited,
deleted or moved record is found by the chain, a rewritten chain by the oldest signature that it no
longer meets, and a cut tail by the newest; each with the record's number. Who cuts the tail and
puts an older ``trail.anchor`` in place is found only by heads kept elsewhere: the coordinator's
copies of receipts (`larrey audit reconcile`) and the witnesses.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from larrey_client.records import SiteRecords
from larrey_client.store import SiteStore
from larrey_protocol.audit import AuditRecord, verify_chain
from larrey_protocol.decisions import Anchor, Order
from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.roster import Roster
from larrey_protocol.signed import Receipt, Signed, open_signed, sign

__all__ = ["SEAL", "Asked", "Seal", "export", "query", "require_heads", "verify_trail"]

logger = logging.getLogger(__name__)

SEAL = "trail.anchor"
_MAX_SEAL = 1 << 16

Json = dict[str, Any]  # Any: JSON values are recursive


class Seal:
    """Signs where ledger and trail stand, in a file beside them; `write` follows each commit.

    Not flushed: after a power cut an older seal, which an intact longer trail still meets.
    """

    def __init__(self, store: SiteStore, site: str, key: SigningKey, now: Callable[[], float]):
        self._store, self._site, self._key, self._now = store, site, key, now

    def write(self) -> None:
        """Replace the seal by one of now."""
        anchor = Anchor(
            site=self._site,
            ledger_head=self._store.ledger_head,
            audit_head=self._store.audit_head,
            at=self._now(),
        )
        data = sign(anchor, self._key).to_bytes()
        try:
            _replace(self._store.folder / SEAL, data)
        except OSError as error:  # what was committed stays so; the older seal still holds
            logger.error("the audit trail's seal was not written: %s", error.strerror)  # noqa: TRY400


@dataclass(frozen=True, slots=True)
class Asked:
    """Which records are asked for; an empty field asks for all."""

    study: str = ""  # digest, its first digits, or name
    dataset: str = ""
    since: float = 0.0
    until: float = float("inf")
    action: str = ""
    actor: str = ""


def verify_trail(connection: sqlite3.Connection, folder: Path, key: str) -> Json:
    """Return how long the trail is and how many signatures it meets.

    Args:
        connection: to the site's database.
        folder: where the seal lies.
        key: the site's public signing key.

    Raises:
        IntegrityError: ``audit-broken`` with the number of the first record that does not follow,
            ``audit-behind-anchor`` with that of the first signed record that is not there,
            ``seal-missing``, or as `open_signed`.
    """
    records = SiteRecords(connection)
    trail = list(records.audit())
    last = verify_chain(trail)
    heads = [open_signed(one, Receipt, key).audit_head for one in _receipts(connection)]
    heads += [
        open_signed(one, Anchor, key).audit_head
        for one in records.documents("anchor")
        if one.signer == key
    ]
    heads += _sealed(folder, key, is_needed=last is not None)
    require_heads(trail, heads)
    return {
        "audit_records": len(trail),
        "audit_head": last.head if last else "0:",
        "signed_heads": len(heads),
    }


def require_heads(trail: Sequence[AuditRecord], heads: Iterable[str]) -> None:
    """Return if the trail holds every record that was signed for.

    Raises:
        IntegrityError: ``audit-behind-anchor``.
    """
    known = {record.head for record in trail}
    lost = [int(h.partition(":")[0]) for h in heads if h not in known and not h.startswith("0:")]
    if lost:
        raise IntegrityError(
            "audit-behind-anchor",
            f"record {min(lost)} of the audit trail was signed and is not here; the trail has"
            f" {len(trail)}",
            "Records were removed or rewritten, or an old copy was restored; open an incident.",
        )


def query(connection: sqlite3.Connection, asked: Asked) -> list[Json]:
    """Return who did what on which dataset, when, under which permit; oldest first.

    What left also names who launched its study and the digest of the software that made it. Who
    acted with a key is called as the roster or this site's policy does, else by fingerprint.
    """
    records = SiteRecords(connection)
    names = {known.study.digest: known.study.name for known in records.known()}
    receipts = {receipt.update: receipt for receipt in map(_receipt, _receipts(connection))}
    datasets: dict[str, str] = {}
    permits: dict[str, str] = {}
    for study in names:
        decision = records.decision(study)
        datasets[study] = decision.dataset if decision else ""
        permits[study] = decision.permit if decision else ""
    rows = []
    people, verbs = _people(records), _verbs(records)
    for record in records.audit():
        receipt = receipts.get(record.subject)
        key = record.actor if record.actor.startswith("ed25519:") else ""
        row = {
            "seq": record.seq,
            "at": record.at,
            "actor": _named(people, key) if key else record.actor,
            "key": key,
            "action": record.action,
            "verb": verbs.get(record.subject, ""),
            "study": record.study,
            "name": names.get(record.study, ""),
            "round": record.round,
            "dataset": datasets.get(record.study, ""),
            "permit": (receipt.permit if receipt else "") or permits.get(record.study, ""),
            "snapshot": receipt.snapshot if receipt else "",
            "epsilon": receipt.epsilon if receipt else None,
            "launcher": _named(people, receipt.actor) if receipt else "",
            "software": receipt.software if receipt else "",
            "subject": record.subject,
            "code": record.code,
        }
        if _is_asked(row, asked):
            rows.append(row)
    return rows


def export(
    connection: sqlite3.Connection, folder: Path, site: str, key: str, scope: str | None = None
) -> Json:
    """Return trail, receipts and seal as JSON, for `larrey audit reconcile`; no patient data.

    The trail is whole. With a ``scope`` the receipts are for that membership's coordinator alone.
    """
    seal, records = folder / SEAL, SiteRecords(connection)
    elsewhere = {one.study.digest for one in records.known() if scope not in (None, one.scope)}
    receipts = [(_receipt(one).study, one) for one in _receipts(connection)]
    return {
        "site": site,
        "key": key,
        "records": [asdict(record) for record in records.audit()],
        "receipts": [json.loads(one.to_bytes()) for of, one in receipts if of not in elsewhere],
        "elsewhere": sorted(elsewhere),
        "seal": json.loads(seal.read_bytes()) if seal.is_file() else None,
    }


def _named(people: Mapping[str, str], key: str) -> str:
    """Return whose key it is, by name where that is known, else its fingerprint; "" for none."""
    return people.get(key) or (fingerprint(key) if key else "")


def _people(records: SiteRecords) -> dict[str, str]:
    """Return names by key, as the newest roster or signed policy has them."""
    rosters = [open_signed(one, Roster, one.signer) for one in records.documents("roster")]
    listed = [roster.people for roster in rosters]
    listed += [version.charter.people for version in records.charters()]
    return {person.key: person.name for people in listed for person in people}


def _verbs(records: SiteRecords) -> dict[str, str]:
    """Return what the consortium's orders said to do, by digest."""
    orders = records.documents("order")
    return {signed.digest: open_signed(signed, Order, signed.signer).verb for signed in orders}


def _is_asked(row: Json, asked: Asked) -> bool:
    digits = asked.study.removeprefix("sha256:")
    is_study = not asked.study or row["name"] == asked.study
    is_digest = len(digits) >= 6 and row["study"].removeprefix("sha256:").startswith(digits)
    return (
        (is_study or is_digest)
        and asked.dataset in ("", row["dataset"])
        and asked.since <= row["at"] < asked.until
        and asked.action in ("", row["action"])
        and asked.actor in ("", row["actor"], row["key"])
    )


def _sealed(folder: Path, key: str, *, is_needed: bool) -> list[str]:
    path = folder / SEAL
    if not path.is_file():
        if is_needed:
            raise IntegrityError(
                "seal-missing",
                f"the signed head of the audit trail, {SEAL}, is not beside it",
                "It is written with the next record; if nobody restored a copy, open an incident.",
            )
        return []
    with path.open("rb") as file:
        signed = Signed.from_bytes(file.read(_MAX_SEAL))
    return [open_signed(signed, Anchor, key).audit_head]


def _replace(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    part.replace(path)


def _receipts(connection: sqlite3.Connection) -> list[Signed]:
    rows = connection.execute("SELECT receipt FROM answers ORDER BY rowid").fetchall()
    return [Signed.from_bytes(bytes(receipt)) for (receipt,) in rows]


def _receipt(signed: Signed) -> Receipt:
    return open_signed(signed, Receipt, signed.signer)
