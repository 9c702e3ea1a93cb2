"""The site's facts in one SQLite file: proposals, decisions, answers, audit trail and ledger.

One writer (`SiteStore`), one transaction for everything that must hold together, appends only:
triggers refuse to change or delete a row. Blobs lie beside it in ``spool/`` under their digest and
are not flushed on their own: one lost to a power cut is an answer that is not sent again.
Reading is `larrey_client.records`, over this connection or over a read-only one.
"""

from __future__ import annotations

import copy
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from larrey_client import records
from larrey_client.charter import Version
from larrey_client.data.secret import site_secret
from larrey_client.orders import StopVerb
from larrey_client.records import Answered, Decision, SiteRecords, document_key
from larrey_privacy.ledger_store import Ledger, open_exclusive
from larrey_protocol.audit import AuditRecord, append_record, verify_chain
from larrey_protocol.canonical import canonical_json
from larrey_protocol.disk import disk_code
from larrey_protocol.errors import FileError
from larrey_protocol.signed import Signed

__all__ = ["DATABASE", "SiteStore", "open_readonly"]

DATABASE = "site.db"
_TABLES = {
    "proposals": "study TEXT PRIMARY KEY, signed BLOB NOT NULL, at REAL NOT NULL",
    # Under which membership a study was proposed, where it is not the first one.
    "origins": "study TEXT PRIMARY KEY, scope TEXT NOT NULL",
    # What this site decided, in order; of one study the newest row counts.
    "rulings": (
        "number INTEGER PRIMARY KEY, study TEXT NOT NULL, decision TEXT NOT NULL,"
        " dataset TEXT NOT NULL, code TEXT NOT NULL, actor TEXT NOT NULL, epsilon REAL NOT NULL,"
        " signed BLOB NOT NULL, at REAL NOT NULL, permit TEXT NOT NULL, seats TEXT NOT NULL"
    ),
    "deliveries_of": "number INTEGER PRIMARY KEY, code TEXT NOT NULL, at REAL NOT NULL",
    "charters": "number INTEGER PRIMARY KEY, digest TEXT NOT NULL, charter BLOB NOT NULL",
    "endings": "study TEXT PRIMARY KEY, at REAL NOT NULL",
    # What this site's people stopped and resumed; numbered as in the audit trail, "" = all studies.
    "stops": (
        "seq INTEGER PRIMARY KEY, study TEXT NOT NULL, verb TEXT NOT NULL, actor TEXT NOT NULL,"
        " at REAL NOT NULL"
    ),
    "answers": (
        "study TEXT, round INTEGER, phase TEXT, model TEXT, digest TEXT NOT NULL,"
        " bytes INTEGER NOT NULL, receipt BLOB NOT NULL, at REAL NOT NULL,"
        " PRIMARY KEY (study, round, phase, model)"
    ),
    "audit": "seq INTEGER PRIMARY KEY, record BLOB NOT NULL",
    # Where each dataset's patients belong; the newest row counts (`larrey_client.families`).
    "families": (
        "seq INTEGER PRIMARY KEY, dataset TEXT NOT NULL, family TEXT NOT NULL,"
        " patients TEXT NOT NULL, document TEXT NOT NULL"
    ),
    # Every other signed document that counts here: rosters, permits, approvals, orders, …
    "documents": (
        "digest TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, number INTEGER"
        " NOT NULL, signed BLOB NOT NULL, at REAL NOT NULL"
    ),
}
_KEYS = {
    "answers": ("study", "round", "phase", "model"),
    "audit": ("seq",),
    "charters": ("number",),
    "deliveries_of": ("number",),
    "documents": ("digest",),
    "families": ("seq",),
    "rulings": ("number",),
    "stops": ("seq",),
}


@dataclass(slots=True)
class _Tail:
    """What every view of a store shares.

    Attributes:
        last: the newest audit record.
        latest: the latest time on record.
        revision: grows whenever a document, proposal or charter may have changed.
        on_audit: called after each commit with audit records.
        along: statements that wait for the next commit, by what they are about.
        fault: code of what kept the last change from being written, empty when it was.
    """

    last: AuditRecord | None
    latest: float
    revision: int = 0
    on_audit: Callable[[], None] = lambda: None
    along: dict[str, tuple[str, tuple[object, ...]]] = field(default_factory=dict)
    fault: str = ""


class SiteStore:
    """The one writer of a site's state folder; several threads may use it, one at a time.

    Attributes:
        scope: of the membership whose studies and documents this view sees and adds, "" for the
            first one; None sees those of all and adds to the first.
        coordinator: whom the audit trail names for what came from outside.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        now: Callable[[], float],
        *,
        is_adopting: bool = False,
    ) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.ledger = Ledger.open(connection)
        self._connection = connection
        self._now = now
        self._lock = threading.RLock()
        self.scope: str | None = None
        self.coordinator = "coordinator"
        last = _create(connection)
        self.records = SiteRecords(connection)
        self._tail = _Tail(last, self.records.latest_at())
        self._sweep()
        if not is_adopting:
            self._require_signed_heads()

    @classmethod
    def open(
        cls, folder: Path, now: Callable[[], float], *, is_adopting: bool = False
    ) -> SiteStore:
        """Return the store of a state folder, made if it is new, verified if it is not.

        ``is_adopting`` lets the way out of a lost tail open a state that is behind.

        Raises:
            UsageError: ``state-locked``; FileError: ``state-unusable``.
            IntegrityError: ``ledger-damaged``, ``audit-broken``; ``ledger-behind`` or
                ``audit-behind-anchor`` where the last receipt names a head that is gone.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "spool").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            text = f"the state folder {folder} cannot be made: {error.strerror}"
            raise FileError("state-unusable", text, "Choose another site.state.") from error
        connection = open_exclusive(folder / DATABASE)
        try:
            return cls(folder, connection, now, is_adopting=is_adopting)
        except BaseException:
            connection.close()
            raise

    def scoped(self, scope: str, name: str = "") -> SiteStore:
        """Return a view of this store that sees and adds one membership's studies and documents.

        Ledger, audit trail, decisions and what this site's own people signed are the same in all.
        ``name`` is the membership's, for the trail; empty for the first one.
        """
        view = copy.copy(self)
        view.scope = scope
        view.records = SiteRecords(self._connection, scope)
        view.coordinator = f"coordinator {name}".strip()
        return view

    @property
    def on_audit(self) -> Callable[[], None]:
        """Return what is called after each commit with audit records."""
        return self._tail.on_audit

    @on_audit.setter
    def on_audit(self, call: Callable[[], None]) -> None:
        self._tail.on_audit = call

    def close(self) -> None:
        """Give the state folder back."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything inside one durable commit, or nothing of it."""
        with self._lock:
            last = self._tail.last
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for statement, values in self._tail.along.values():
                    self._connection.execute(statement, values)
                yield
                self._connection.execute("COMMIT")
                self._tail.along.clear()
                self._tail.fault = ""
            except BaseException as error:
                self._tail.last = last
                self._tail.revision += 1  # what was read meanwhile is not so
                self._connection.rollback()  # SQLite may have done so already, on a full disk
                self.failed(disk_code(error))
                raise
            if self._tail.last is not last:
                self.on_audit()

    @property
    def fault(self) -> str:
        """Return the code of what keeps this state from being written, empty while nothing does."""
        return self._tail.fault

    def failed(self, code: str) -> None:
        """Note that something in the state folder could not be written; "" is no news."""
        self._tail.fault = code or self._tail.fault

    def write_along(self, name: str, statement: str, values: tuple[object, ...]) -> None:
        """Let a statement go with the next commit: it costs none, and a kill before it loses it.

        A later one of the same ``name`` takes its place.
        """
        with self._lock:
            self._tail.along[name] = (statement, values)

    @contextmanager
    def reading(self) -> Iterator[SiteRecords]:
        """Keep other threads out while reading."""
        with self._lock:
            yield self.records

    @property
    def audit_head(self) -> str:
        """Return the last audit record's ``seq:hash``."""
        return self._tail.last.head if self._tail.last else "0:"

    @property
    def latest_at(self) -> float:
        """Return the latest time on record here; a clock behind it was set back."""
        return self._tail.latest

    @property
    def revision(self) -> tuple[int, int]:
        """Return what changes whenever a document, proposal or charter may have changed.

        The second number is SQLite's own: it tells of changes by any other connection.
        """
        with self._lock:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            return self._tail.revision, int(version)

    @property
    def ledger_head(self) -> str:
        """Return the last ledger entry's ``seq:hash``."""
        seq, digest = self.ledger.head()
        return f"{seq}:{digest}"

    def audit(self, action: str, actor: str, *, study: str = "", **more: str | int) -> None:
        """Append one fact; ``more`` may give round, subject and code."""
        fields = {"round": 0, "subject": "", "code": "", **more}
        draft = AuditRecord(
            0,
            self._now(),
            actor,
            action,
            study,
            int(fields["round"]),
            str(fields["subject"]),
            str(fields["code"]),
        )
        record = append_record(self._tail.last, draft)
        self._insert("audit", record.seq, canonical_json(records.audit_fields(record)))
        self._tail.last = record
        self._tail.latest = max(self._tail.latest, record.at)

    def add_proposal(self, study: str, signed: Signed) -> None:
        """Keep a verified proposal."""
        if self.scope:
            self._insert("origins", study, self.scope)
        self._insert("proposals", study, signed.to_bytes(), self._now())
        self._tail.revision += 1

    def add_decision(self, made: Decision) -> None:
        """Keep what this site decided about a study; of several decisions the newest counts."""
        row = (made.study, made.decision, made.dataset, made.code, made.actor, made.epsilon)
        number = self.records.next_ruling()
        self._insert("rulings", number, *row, made.signed, made.at, made.permit, made.seats)
        self._tail.revision += 1

    def add_delivery(self, number: int, code: str) -> None:
        """Note that the coordinator has our decision, or why it did not take it."""
        self._insert("deliveries_of", number, code, self._now())

    def add_charter(self, version: Version) -> None:
        """Keep a charter that somebody signed."""
        text = canonical_json(version.charter.text)
        self._insert("charters", version.number, version.digest, text)
        self._tail.revision += 1

    def add_ending(self, study: str) -> None:
        """Note that a study ended."""
        self._insert("endings", study, self._now())

    def add_stop(self, study: str, verb: StopVerb, actor: str, *, subject: str = "") -> None:
        """Put on record that a person stopped or resumed a study here, or all of them ("").

        ``subject`` is the digest of the order that resumes.
        """
        self.audit(f"site-{verb}", actor, study=study, subject=subject)
        seq, at = (self._tail.last.seq, self._tail.last.at) if self._tail.last else (0, 0.0)
        self._insert("stops", seq, study, verb, actor, at)

    def add_answer(self, key: tuple[str, int, str, str], answered: Answered) -> None:
        """Keep what is the answer to this work for ever."""
        self._insert("answers", *key, answered.update, answered.size, answered.receipt, self._now())

    def add_document(self, signed: Signed, *, subject: str = "", number: int = 0) -> bool:
        """Keep a verified document under its digest; False if it was kept before.

        Args:
            signed: its signature, and the signer's right, are checked already.
            subject: what it is about, for `SiteRecords.documents`: a study, a permit, a site.
            number: its version or number among those of its kind and subject.
        """
        if self.records.has_document(signed):
            return False
        row = (
            document_key(signed, self.scope),
            signed.kind,
            subject,
            number,
            signed.to_bytes(),
            self._now(),
        )
        self._insert("documents", *row)
        self._tail.revision += 1
        return True

    def secret(self) -> bytes:
        """Return the site's own salt for fingerprints of its files; it never leaves the site."""
        return site_secret(self.folder)

    def _sweep(self) -> None:
        """Delete what a kill left in the spool: bytes that were never an answer."""
        answers = self._connection.execute("SELECT digest FROM answers").fetchall()
        kept = {str(digest).removeprefix("sha256:") for (digest,) in answers}
        for path in self.spool.iterdir():
            if path.name not in kept:
                path.unlink()

    def _require_signed_heads(self) -> None:
        """Refuse to start behind the newest receipt here; older heads hang on the same chains."""
        receipt = self.records.last_receipt()
        if receipt is not None:
            seq, _, digest = receipt.ledger_head.partition(":")
            self.ledger.require_heads([(int(seq), digest)])
            is_settled = int(seq) < self.ledger.adopted_seq
            verify_chain(self.records.audit(), anchor="" if is_settled else receipt.audit_head)

    def _insert(self, table: str, *values: object) -> None:
        marks = ", ".join("?" * len(values))
        self._connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608  # table is ours


def open_readonly(folder: Path) -> sqlite3.Connection:
    """Return a connection that can only read the state of a node, running or not.

    Raises:
        FileError: ``no-state`` where no node ever ran.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise FileError(
            "no-state", f"no node ever ran with the state folder {folder}", "Run: larrey-site run"
        )
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = 1")
    return connection


def _create(connection: sqlite3.Connection) -> AuditRecord | None:
    """Make tables and triggers where they are missing; return the last record of the trail."""
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}) STRICT")
        for verb in ("UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} takes appends only'); END"
            )
        same = " AND ".join(f"{key} = NEW.{key}" for key in _KEYS.get(table, ("study",)))
        connection.execute(  # REPLACE deletes without asking the trigger on DELETE
            f"CREATE TRIGGER IF NOT EXISTS {table}_no_replace BEFORE INSERT ON {table}"  # noqa: S608  # all ours
            f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})"
            f" BEGIN SELECT RAISE(ABORT, '{table} takes appends only'); END"
        )
    return records.verify_audit(connection)
