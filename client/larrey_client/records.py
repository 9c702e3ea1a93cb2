"""What a site has on record, read from any connection to its database. Reads only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from larrey_client.charter import Version, parse_version
from larrey_client.orders import Stop, StopVerb
from larrey_protocol.audit import AuditRecord, table_of, verify_chain
from larrey_protocol.errors import IntegrityError, UsageError
from larrey_protocol.signed import Proposal, Receipt, Signed, open_signed
from larrey_protocol.study import Study

__all__ = [
    "Answered",
    "Decision",
    "SiteRecords",
    "audit_fields",
    "document_key",
    "verify_audit",
]


_RULINGS = (
    "SELECT study, decision, dataset, code, actor, epsilon, signed, at, permit, seats, number"
    " FROM rulings"
)

# Kinds of documents that one membership vouches for or leaves by; all others are the site's own.
_SCOPED = frozenset({"roster", "keychange", "permit", "order", "departure", "deletionreceipt"})
_KEY_LENGTH = len("sha256:") + 64  # of a document's digest; "@" and the scope may follow
_PROPOSALS = (
    "FROM proposals LEFT JOIN origins USING (study) WHERE (?1 IS NULL OR COALESCE(scope, '') = ?1)"
)

_STOPS: Mapping[str, StopVerb] = {
    "site-halt": "halt",
    "site-pause": "pause",
    "site-resume": "resume",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What this site decided about one study; a later decision may follow.

    Attributes:
        decision: ``approved``, ``refused`` or ``revoked``.
        dataset: where it may run; empty if refused.
        code: why it was refused.
        actor: ``policy`` or the names of the persons who signed.
        epsilon: of all rounds and spare rounds by PLD at the study's delta, -1 without privacy.
        signed: the Answer in its travelling form.
        permit, seats: digests that the approval binds; empty if refused.
        number: its place among all decisions here; 0 before it is kept.
    """

    study: str
    decision: str
    dataset: str
    code: str
    actor: str
    epsilon: float
    signed: bytes
    at: float
    permit: str = ""
    seats: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The stored answer to one piece of work."""

    update: str  # digest
    size: int
    receipt: bytes  # signed, in its travelling form


@dataclass(frozen=True, slots=True)
class Known:
    """A proposed study and how it stands here."""

    study: Study
    signer: str
    proposed_at: float
    decision: Decision | None
    is_delivered: bool
    has_ended: bool
    scope: str = ""  # of the membership under which it was proposed

    @property
    def state(self) -> str:
        """Return ``waiting``, ``approved``, ``refused``, ``revoked`` or ``ended``."""
        if self.has_ended:
            return "ended"
        return self.decision.decision if self.decision else "waiting"


@dataclass(frozen=True, slots=True)
class SiteRecords:
    """Questions to the database.

    ``scope`` is of the membership whose studies and documents are seen, "" for the first one; None
    sees those of all.
    """

    connection: sqlite3.Connection
    scope: str | None = None

    @property
    def everywhere(self) -> SiteRecords:
        """Return the same records without regard to memberships."""
        return SiteRecords(self.connection)

    def known(self) -> list[Known]:
        """Return every proposed study, oldest first."""
        query = f"SELECT signed, COALESCE(scope, '') {_PROPOSALS} ORDER BY at, study"
        rows = self.connection.execute(query, (self.scope,)).fetchall()
        return [self._known(bytes(signed), scope) for signed, scope in rows]

    def scope_of(self, study: str) -> str | None:
        """Return under which membership a study was proposed, whichever it is; None if unknown."""
        query = f"SELECT COALESCE(scope, '') {_PROPOSALS} AND study = ?2"
        row = self._one(query, None, study)
        return str(row[0]) if row else None

    def find(self, reference: str) -> Known:
        """Return the study with that digest, first digits of it, or name.

        Raises:
            UsageError: ``study-unknown`` or ``study-ambiguous``.
        """
        found = self.matching(reference)
        if not found:
            raise UsageError(
                "study-unknown", f"no study here is '{reference}'", "See: larrey-site study list"
            )
        if len(found) > 1:
            raise UsageError(
                "study-ambiguous",
                f"'{reference}' means several studies",
                "Give its digest; see: larrey-site study list",
            )
        return found[0]

    def matching(self, reference: str) -> list[Known]:
        """Return every study with that digest, first digits of it, or name."""
        return [known for known in self.known() if _matches(known.study, reference)]

    def newest(self, reference: str) -> Known:
        """Return as `find`, and where a name has several versions the newest of them.

        For reading and approving; what stops something must not guess.

        Raises:
            UsageError: ``study-unknown`` or ``study-ambiguous``.
        """
        named = [known for known in self.known() if known.study.name == reference]
        versions = [known.study.file.study.version for known in named]
        is_shared = len({known.scope for known in named}) > 1  # two consortia chose one name
        if len(named) < 2 or is_shared or versions.count(max(versions)) > 1:
            return self.find(reference)
        return named[versions.index(max(versions))]

    def has_proposal(self, study: str) -> bool:
        """Return whether the study was proposed here."""
        return self._one(f"SELECT 1 {_PROPOSALS} AND study = ?2", self.scope, study) is not None

    def study(self, digest: str) -> Study | None:
        """Return a proposed study by its digest."""
        row = self._one(f"SELECT signed {_PROPOSALS} AND study = ?2", self.scope, digest)
        return _open(bytes(row[0]))[0] if row else None

    def decision(self, study: str) -> Decision | None:
        """Return what was decided about a study last."""
        row = self._one(f"{_RULINGS} WHERE study = ? ORDER BY number DESC LIMIT 1", study)
        return Decision(*row) if row else None

    def undelivered(self) -> list[Decision]:
        """Return the decisions that the coordinator has not acknowledged, oldest first."""
        rows = self.connection.execute(
            f"{_RULINGS} WHERE number NOT IN (SELECT number FROM deliveries_of)"  # noqa: S608  # ours
            " AND (?1 IS NULL OR ?1 ="
            " COALESCE((SELECT scope FROM origins WHERE study = rulings.study), ''))"
            " ORDER BY number",
            (self.scope,),
        )
        return [Decision(*row) for row in rows.fetchall()]

    def next_ruling(self) -> int:
        """Return the number of the next decision."""
        row = self._one("SELECT COALESCE(MAX(number), 0) + 1 FROM rulings")
        return int(row[0]) if row else 1

    def charters(self) -> list[Version]:
        """Return every charter that somebody signed, oldest first.

        Raises:
            IntegrityError: ``document-altered``.
        """
        rows = self.connection.execute("SELECT number, digest, charter FROM charters ORDER BY 1")
        return [parse_version(number, digest, bytes(text)) for number, digest, text in rows]

    def proposal(self, study: str) -> Signed | None:
        """Return a proposal as it was signed.

        Raises:
            IntegrityError: ``malformed-document``.
        """
        row = self._one(f"SELECT signed {_PROPOSALS} AND study = ?2", self.scope, study)
        return Signed.from_bytes(bytes(row[0])) if row else None

    def is_kept_proposal(self, signed: Signed) -> bool:
        """Return whether this very proposal is kept, signature and all."""
        query = f"SELECT 1 {_PROPOSALS} AND signed = ?2"
        return self._one(query, self.scope, signed.to_bytes()) is not None

    def children(self, study: str) -> list[str]:
        """Return the digests of the versions that name this study as their parent."""
        found = [known.study for known in self.known()]
        return [child.digest for child in found if child.file.study.parent == study]

    def answer(self, key: tuple[str, int, str, str]) -> Answered | None:
        """Return the stored answer to this work."""
        row = self._one(
            "SELECT digest, bytes, receipt FROM answers"
            " WHERE study = ? AND round = ? AND phase = ? AND model = ?",
            *key,
        )
        return Answered(*row) if row else None

    def last_receipt(self) -> Receipt | None:
        """Return the newest receipt that this site signed, None before the first.

        Raises:
            IntegrityError: ``malformed-document``.
        """
        row = self._one("SELECT receipt FROM answers ORDER BY rowid DESC LIMIT 1")
        if row is None:
            return None
        signed = Signed.from_bytes(bytes(row[0]))
        return open_signed(signed, Receipt, signed.signer)

    def has_ended(self, study: str) -> bool:
        """Return whether the study ended."""
        return self._one("SELECT 1 FROM endings WHERE study = ?", study) is not None

    def stops(self, study: str | None = None) -> list[Stop]:
        """Return what people stopped and resumed here, of one study or of all, oldest first."""
        query = (
            "SELECT seq, study, verb, actor, at FROM stops"
            " WHERE ?1 IS NULL OR study IN ('', ?1) ORDER BY seq"
        )
        return [Stop(*row) for row in self.connection.execute(query, (study,)).fetchall()]

    def stops_on_trail(self) -> list[Stop]:
        """Return what `stops` has to be: what the audit trail says of it."""
        query = (
            "SELECT seq, CAST(record AS TEXT) FROM audit"
            " WHERE json_extract(CAST(record AS TEXT), '$.action') IN (?, ?, ?) ORDER BY seq"
        )
        rows = self.connection.execute(query, tuple(_STOPS)).fetchall()
        found = [(seq, json.loads(text)) for seq, text in rows]
        return [Stop(seq, r["study"], _STOPS[r["action"]], r["actor"], r["at"]) for seq, r in found]

    def ledger_orders(self) -> list[tuple[str, str]]:
        """Return kind and order's digest of each ledger entry that only an officer may make."""
        query = (
            "SELECT json_extract(CAST(entry AS TEXT), '$.body.document') FROM privacy_ledger"
            " WHERE instr(entry, CAST(? AS BLOB)) ORDER BY seq"
        )
        return [
            (kind, str(document))
            for kind in ("split", "reset", "adopt")
            for (document,) in self.connection.execute(query, (f'"kind":"{kind}"',)).fetchall()
        ]

    def answers(self, study: str) -> list[Answered]:
        """Return every stored answer of a study, oldest first."""
        query = "SELECT digest, bytes, receipt FROM answers WHERE study = ? ORDER BY rowid"
        return [Answered(*row) for row in self.connection.execute(query, (study,)).fetchall()]

    def ended_at(self, study: str) -> float | None:
        """Return when this site noted that the study ended, None while it has not."""
        row = self._one("SELECT at FROM endings WHERE study = ?", study)
        return float(row[0]) if row else None

    def documents(self, kind: str, subject: str | None = None) -> list[Signed]:
        """Return the kept documents of a kind, of one subject or of all, oldest number first."""
        return [signed for signed, is_ours in self.documents_of_all(kind, subject) if is_ours]

    def documents_of_all(self, kind: str, subject: str | None = None) -> list[tuple[Signed, bool]]:
        """Return as `documents`, those of every membership, each with whether it counts here."""
        query = (
            "SELECT signed, substr(digest, ?3) FROM documents"
            " WHERE kind = ?1 AND (?2 IS NULL OR subject = ?2) ORDER BY number, rowid"
        )
        rows = self.connection.execute(query, (kind, subject, _KEY_LENGTH + 2)).fetchall()
        is_shared = self.scope is None or kind not in _SCOPED
        return [
            (Signed.from_bytes(bytes(data)), is_shared or scope == self.scope)
            for data, scope in rows
        ]

    def has_document(self, signed: Signed) -> bool:
        """Return whether the document is kept."""
        key = document_key(signed, self.scope)
        return self._one("SELECT 1 FROM documents WHERE digest = ?", key) is not None

    def audited(self, *actions: str) -> set[str]:
        """Return the subjects of every audit record with one of these actions."""
        query = (
            "SELECT json_extract(CAST(record AS TEXT), '$.subject') FROM audit"
            " WHERE json_extract(CAST(record AS TEXT), '$.action') = ?"
        )
        rows = [self.connection.execute(query, (action,)).fetchall() for action in actions]
        return {str(subject) for found in rows for (subject,) in found}

    def is_closing(self, study: str) -> bool:
        """Return whether a study's closing was begun here, which nothing undoes."""
        return self.has_ended(study) and study in self.audited("study-closing")

    def latest_at(self) -> float:
        """Return the latest time in the audit trail, 0 in an empty one."""
        at = "json_extract(CAST(record AS TEXT), '$.at')"
        row = self._one(f"SELECT COALESCE(MAX({at}), 0) FROM audit")  # noqa: S608  # ours
        return float(row[0]) if row else 0.0

    def audit(self) -> Iterator[AuditRecord]:
        """Yield the audit trail in order.

        Raises:
            IntegrityError: ``audit-broken`` where a row is not a record.
        """
        for seq, text in self.connection.execute("SELECT seq, record FROM audit ORDER BY seq"):
            try:
                yield AuditRecord(**json.loads(text))
            except (ValueError, TypeError) as error:
                raise IntegrityError(
                    "audit-broken", f"row {seq} of the audit trail is not a record"
                ) from error

    def _known(self, data: bytes, scope: str) -> Known:
        study, signed = _open(data)
        digest = study.digest
        decision = self.decision(digest)
        number = decision.number if decision else 0
        delivered = self._one("SELECT 1 FROM deliveries_of WHERE number = ?", number) is not None
        return Known(
            study,
            signed.signer,
            float(json.loads(signed.document)["proposed_at"]),
            decision,
            delivered,
            self.has_ended(digest),
            scope,
        )

    def _one(
        self, query: str, *values: str | bytes | int | None
    ) -> tuple[Any, ...] | None:  # Any: SQL row
        row: tuple[Any, ...] | None = self.connection.execute(query, values).fetchone()
        return row


def document_key(signed: Signed, scope: str | None) -> str:
    """Return under which key a document is kept: its digest, and whose it is if not the first's."""
    return f"{signed.digest}@{scope}" if scope and signed.kind in _SCOPED else signed.digest


def audit_fields(record: AuditRecord) -> dict[str, Any]:  # Any: JSON
    """Return a record as JSON."""
    return table_of(record)


def verify_audit(connection: sqlite3.Connection) -> AuditRecord | None:
    """Return the last record of an intact trail.

    Raises:
        IntegrityError: ``audit-broken``.
    """
    return verify_chain(SiteRecords(connection).audit())


def _open(data: bytes) -> tuple[Study, Signed]:
    """Return a stored proposal; its signature was checked before it was stored."""
    signed = Signed.from_bytes(data)
    return Proposal.model_validate(json.loads(signed.document)).study, signed


def _matches(study: Study, reference: str) -> bool:
    digits = reference.removeprefix("sha256:")
    is_digest = len(digits) >= 6 and study.digest.removeprefix("sha256:").startswith(digits)
    return study.name == reference or is_digest
