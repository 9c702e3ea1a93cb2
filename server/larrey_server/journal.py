"""What the coordinator must not forget, in one SQLite file (write-ahead log, full synchronous).

Proposals and answers as they were signed, one state a transition, who did what in which round, and
the audit chain. Each change is one durable commit that carries its audit record. Documents,
transitions, contributions and audit records are only ever added; triggers in the file hold to that.
A lock file keeps a second coordinator out. What the facts mean is decided elsewhere
(`larrey_server.rounds`). Where the disk is to blame, every method raises `DiskError`, and nothing
has changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from larrey_protocol.audit import AuditRecord, append_record, table_of, verify_chain
from larrey_protocol.disk import DiskError, disk_errors
from larrey_protocol.errors import Refusal, UsageError
from larrey_server import anchors
from larrey_server.journal_file import connect
from larrey_server.members import MemberRow
from larrey_server.round_values import Cell

__all__ = ["AnswerRow", "ContributionRow", "DocumentRow", "Journal", "StudyRow", "Transition"]

_MEMBER_COLUMNS = ", ".join(field.name for field in fields(MemberRow))
_AUDIT_COLUMNS = ", ".join(field.name for field in fields(AuditRecord))


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A proposed study as stored; ``state`` is proposed, open or ended."""

    digest: str
    name: str
    proposal: bytes  # Signed Proposal, travelling form
    state: str
    proposed_at: float


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A site's last signed decision about a study."""

    site: str
    decision: str
    code: str
    answer: bytes  # Signed Answer, travelling form


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A signed document that counts here: roster, key change, permit, order."""

    kind: str
    subject: str  # what it is about: a permit's reference, a study's digest; may be empty
    number: int  # its version or number among those of its kind and subject
    digest: str  # of what was signed
    document: bytes  # Signed, travelling form
    seq: int = 0  # among all documents kept; given by the journal


@dataclass(frozen=True, slots=True)
class ContributionRow:
    """What a site did in one attempt, with the receipts it signed, if any."""

    cell: Cell
    receipts: tuple[bytes, ...] = ()  # Signed Receipt each, travelling form, in order of phases


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a study: the attempt that ended and the state that follows.

    ``certify`` turns the audit head after this step into the signed certificate of an ended study.
    """

    study: str
    snapshot: Mapping[str, Any]  # Any: JSON
    record: AuditRecord
    contributions: tuple[ContributionRow, ...] = ()
    certify: Callable[[str], bytes] | None = None


class Journal:
    """The coordinator's memory; thread-safe; every method that changes it is one durable commit."""

    def __init__(self, connection: sqlite3.Connection, lock_descriptor: int) -> None:
        self._connection = connection
        self._lock_descriptor = lock_descriptor
        self._mutex = threading.RLock()
        self._last = _last_record(connection)
        self._anchors: dict[str, anchors.AnchorRow] = {}  # those that wait for the next commit
        self.on_audit: Callable[[str], None] = lambda _: None  # told each new head
        self.on_fault: Callable[[str], None] = lambda _: None  # told the code of each `DiskError`

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Return the journal in ``path``, made if need be.

        Raises:
            Refusal: ``state-locked`` while another coordinator has it open.
            DiskError: it cannot be written.
        """
        with disk_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Refusal(
                "state-locked",
                "another coordinator has this state folder open",
                "Stop it first, or choose another state folder.",
            ) from None
        try:
            with disk_errors():
                return cls(connect(path), descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def look(cls, path: Path) -> Journal:
        """Return a journal that can only be read: of a copied state folder, or of a running one.

        Raises:
            UsageError: ``no-state`` where there is none.
        """
        if not path.is_file():
            raise UsageError(
                "no-state", f"no coordinator ever ran with {path.parent}", "Name its state folder."
            )
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro",
            uri=True, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        return cls(connection, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Close the file and let go of the lock."""
        with self._mutex:
            self._connection.close()
            os.close(self._lock_descriptor)

    def propose(self, study: StudyRow, actor: str) -> bool:
        """Store a proposal; False, and nothing changes, if the digest is known already."""
        with self._transaction() as db:
            found = db.execute("SELECT 1 FROM studies WHERE digest = ?", (study.digest,)).fetchone()
            if found:
                return False
            row = (study.digest, study.name, study.proposal, study.state, study.proposed_at)
            db.execute("INSERT INTO studies VALUES (?, ?, ?, ?, ?, NULL)", row)
            at = study.proposed_at
            self._chain(AuditRecord(0, at, actor, "study-proposed", study.digest))
            return True

    def answer(self, study: str, answer: AnswerRow, at: float) -> None:
        """Store a site's decision; it takes the place of an earlier one, which the chain keeps."""
        with self._transaction() as db:
            row = (study, answer.site, answer.decision, answer.code, answer.answer)
            db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)
            action = f"study-{answer.decision}"
            self._chain(AuditRecord(0, at, answer.site, action, study, code=answer.code))

    def keep(self, row: DocumentRow, record: AuditRecord) -> bool:
        """Add a verified signed document; False, and nothing changes, if it was kept before."""
        with self._transaction() as db:
            sql = "SELECT 1 FROM documents WHERE digest = ?"
            if db.execute(sql, (row.digest,)).fetchone():
                return False
            db.execute(
                "INSERT INTO documents (kind, subject, number, digest, document)"
                " VALUES (?, ?, ?, ?, ?)",
                (row.kind, row.subject, row.number, row.digest, row.document),
            )
            self._chain(record)
            return True

    def commit(self, transition: Transition) -> str:
        """Store one step of a study and return the audit head after it."""
        study = transition.study
        with self._transaction() as db:
            record = self._chain(transition.record)
            text = json.dumps(transition.snapshot, separators=(",", ":"))
            db.execute("INSERT INTO transitions (study, snapshot) VALUES (?, ?)", (study, text))
            db.executemany(
                "INSERT INTO contributions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_contribution(study, row) for row in transition.contributions],
            )
            state = "ended" if transition.certify else "open"
            signed = transition.certify(record.head) if transition.certify else None
            db.execute(
                "UPDATE studies SET state = ?, certificate = ? WHERE digest = ?",
                (state, signed, study),
            )
            return record.head

    def note(self, record: AuditRecord) -> AuditRecord:
        """Chain one audit record and return it as stored."""
        with self._transaction():
            return self._chain(record)

    def try_commit(self) -> None:
        """Make a durable commit that says nothing, to see whether one can be made.

        Raises:
            DiskError: it cannot.
        """
        with self._transaction() as db:
            (number,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {1 - number % 2}")

    def keep_anchor(self, row: anchors.AnchorRow, *, at_once: bool = True) -> bool:
        """Keep an anchor if it is news, ``at_once`` or with the next commit; return whether."""
        with self._mutex:
            kept = self.newest_anchor(row.signer)
            if kept is not None and (kept.ledger, kept.audit) >= (row.ledger, row.audit):
                return False
            self._anchors[row.signer] = row
            if at_once:
                with self._transaction():
                    pass
            return True

    def newest_anchor(self, signer: str) -> anchors.AnchorRow | None:
        """Return the newest anchor under a signing key."""
        with self._mutex:
            return self._anchors.get(signer) or anchors.newest_anchor(self._connection, signer)

    def add_member(self, row: MemberRow, record: AuditRecord) -> None:
        """Add one step of a site's membership."""
        with self._transaction() as db:
            sql = f"INSERT INTO members ({_MEMBER_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own columns
            db.execute(sql, tuple(asdict(row).values()))
            self._chain(record)

    def members(self) -> tuple[MemberRow, ...]:
        """Return every step of every membership, oldest first."""
        sql = f"SELECT {_MEMBER_COLUMNS} FROM members ORDER BY seq"  # noqa: S608 - our own columns
        return tuple(MemberRow(*row) for row in self._rows(sql))

    def studies(self) -> tuple[StudyRow, ...]:
        """Return all studies, oldest first."""
        sql = "SELECT digest, name, proposal, state, proposed_at FROM studies ORDER BY rowid"
        return tuple(StudyRow(*row) for row in self._rows(sql))

    def answers(self, study: str) -> tuple[AnswerRow, ...]:
        """Return the decisions about a study, one a site, by name."""
        sql = "SELECT site, decision, code, answer FROM answers WHERE study = ? ORDER BY site"
        return tuple(AnswerRow(*row) for row in self._rows(sql, study))

    def documents(self, kind: str, subject: str | None = None) -> tuple[DocumentRow, ...]:
        """Return the kept documents of a kind, oldest first; of one subject where it is given."""
        sql = "SELECT kind, subject, number, digest, document, seq FROM documents WHERE kind = ?"
        if subject is None:
            return tuple(DocumentRow(*row) for row in self._rows(f"{sql} ORDER BY seq", kind))
        rows = self._rows(f"{sql} AND subject = ? ORDER BY seq", kind, subject)
        return tuple(DocumentRow(*row) for row in rows)

    def snapshot(self, study: str) -> dict[str, Any] | None:  # Any: JSON
        """Return the last state of a study, None before its launch."""
        sql = "SELECT snapshot FROM transitions WHERE study = ? ORDER BY seq DESC LIMIT 1"
        rows = self._rows(sql, study)
        return json.loads(rows[0][0]) if rows else None

    def models(self, study: str) -> tuple[tuple[int, str], ...]:
        """Return every model of a study: rounds applied and digest, oldest first."""
        sql = (
            "SELECT snapshot ->> '$.applied', snapshot ->> '$.model' FROM transitions"
            " WHERE study = ? ORDER BY seq"
        )
        return tuple(dict(self._rows(sql, study)).items())

    def round_began(self, study: str) -> float:
        """Return when the present round of a launched study began, in seconds since 1970."""
        sql = (
            "SELECT MAX(at) FROM audit WHERE study = ?"
            " AND action IN ('study-started', 'round-applied')"
        )
        return float(self._rows(sql, study)[0][0] or 0.0)

    def noted_at(self, action: str, subject: str) -> float:
        """Return when something was last put on record, in seconds since 1970; 0 if never."""
        sql = "SELECT MAX(at) FROM audit WHERE action = ? AND subject = ?"
        return float(self._rows(sql, action, subject)[0][0] or 0.0)

    def contributions(self, study: str) -> tuple[ContributionRow, ...]:
        """Return what sites did, by round and attempt, sites in the order of the roster."""
        sql = (
            'SELECT site, round, attempt, outcome, code, epsilon, nbytes, "update", receipt'
            " FROM contributions WHERE study = ? ORDER BY round, attempt, rowid"
        )
        rows = [(Cell(*row[:8]), row[8] or b"") for row in self._rows(sql, study)]
        return tuple(ContributionRow(cell, tuple(lines.splitlines())) for cell, lines in rows)

    def certificate(self, study: str) -> bytes | None:
        """Return the signed certificate of an ended study, in travelling form."""
        rows = self._rows("SELECT certificate FROM studies WHERE digest = ?", study)
        return rows[0][0] if rows else None

    def head(self) -> str:
        """Return the audit chain's head ``seq:hash``, empty for an empty chain."""
        with self._mutex:
            return self._last.head if self._last else ""

    def audit(self) -> Iterator[AuditRecord]:
        """Yield the audit chain in order."""
        sql = f"SELECT {_AUDIT_COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT 1000"  # noqa: S608 - our own columns
        after = 0
        while rows := self._rows(sql, after):
            yield from (AuditRecord(*row) for row in rows)
            after = rows[-1][0]

    def verify(self, anchor: str = "") -> None:
        """Return if the audit chain is intact and still holds ``anchor``.

        Raises:
            IntegrityError: ``audit-broken`` or ``audit-behind-anchor``.
        """
        verify_chain(self.audit(), anchor)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Make what happens inside one durable commit, or nothing."""
        with self._mutex, self._telling():
            last = self._last
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for row in self._anchors.values():
                    anchors.put_anchor(self._connection, row)
                yield self._connection
                self._connection.execute("COMMIT")
                self._anchors.clear()
            except BaseException:
                self._connection.rollback()
                self._last = last
                raise
            if self._last is not None and self._last is not last:
                self.on_audit(self._last.head)

    def _chain(self, record: AuditRecord) -> AuditRecord:
        """Add a record behind the last one, inside the present transaction."""
        placed = append_record(self._last, record)
        values = tuple(table_of(placed).values())
        self._connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._last = placed
        return placed

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise `DiskError` where the disk is to blame, and tell its code."""
        try:
            with disk_errors():
                yield
        except DiskError as error:
            self.on_fault(error.code)
            raise

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:  # Any: columns
        with self._mutex, self._telling():
            return self._connection.execute(sql, values).fetchall()


def _last_record(connection: sqlite3.Connection) -> AuditRecord | None:
    sql = f"SELECT {_AUDIT_COLUMNS} FROM audit ORDER BY seq DESC LIMIT 1"  # noqa: S608 - our own columns
    row = connection.execute(sql).fetchone()
    return AuditRecord(*row) if row else None


def _contribution(study: str, row: ContributionRow) -> tuple[object, ...]:
    cell = row.cell
    place = (study, cell.round, cell.attempt, cell.site)
    what = (cell.outcome, cell.code, cell.epsilon, cell.nbytes, cell.update)
    return (*place, *what, b"\n".join(row.receipts) or None)  # canonical JSON: a line each
