"""Anchors of sites: the coordinator is one of the witnesses of where each site's ledger stood.

Of each signing key the newest anchor is kept, and never let go for a lower one; a site gets its own
back whenever it lists its studies, and those of the others with each request, to keep for them. A
coordinator cannot invent one, only withhold; the site's other witnesses are there for that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from larrey_protocol.decisions import Anchor
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.signed import Signed, open_signed

if TYPE_CHECKING:
    from larrey_server.journal import Journal
    from larrey_server.registry import Registry

__all__ = ["SCHEMA", "AnchorBook", "AnchorRow", "newest_anchor", "put_anchor", "within"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS anchors (
    signer TEXT PRIMARY KEY, ledger INTEGER NOT NULL, audit INTEGER NOT NULL,
    document BLOB NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS anchors_no_delete BEFORE DELETE ON anchors
    BEGIN SELECT RAISE(ABORT, 'anchors only grow'); END;
CREATE TRIGGER IF NOT EXISTS anchors_only_grow BEFORE UPDATE ON anchors
    WHEN NEW.signer <> OLD.signer OR (NEW.ledger, NEW.audit) <= (OLD.ledger, OLD.audit)
    BEGIN SELECT RAISE(ABORT, 'anchors only grow'); END;
"""
_MAX_BYTES = 1 << 17  # of one anchor; a thousand families, the most that one names, fit
_MAX_TOLD_BYTES = 1 << 20  # of all anchors beside one request


@dataclass(frozen=True, slots=True)
class AnchorRow:
    """The newest anchor under one signing key, with the numbers of its two heads."""

    signer: str
    ledger: int
    audit: int
    document: bytes  # Signed Anchor, travelling form


def put_anchor(db: sqlite3.Connection, row: AnchorRow) -> bool:
    """Keep an anchor, in the caller's transaction; False if one as new is kept already."""
    cursor = db.execute(
        "INSERT INTO anchors VALUES (?1, ?2, ?3, ?4) ON CONFLICT (signer) DO UPDATE SET"
        " ledger = excluded.ledger, audit = excluded.audit, document = excluded.document"
        " WHERE (excluded.ledger, excluded.audit) > (anchors.ledger, anchors.audit)",
        (row.signer, row.ledger, row.audit, row.document),
    )
    return cursor.rowcount == 1


def newest_anchor(db: sqlite3.Connection, signer: str) -> AnchorRow | None:
    """Return what is kept under a signing key."""
    sql = "SELECT signer, ledger, audit, document FROM anchors WHERE signer = ?"
    row = db.execute(sql, (signer,)).fetchone()
    return AnchorRow(*row) if row else None


class AnchorBook:
    """What the coordinator knows of its sites' ledgers; thread-safe as the journal is."""

    def __init__(self, journal: Journal, registry: Registry) -> None:
        self._journal = journal
        self._registry = registry

    def take(self, site: str, data: bytes) -> bool:
        """Keep a site's own anchor; False if it is no news.

        Raises:
            IntegrityError: it is too long, or this site did not sign it about itself.
        """
        if len(data) > _MAX_BYTES:
            raise IntegrityError("malformed-document", f"an anchor of {site} is too long")
        return self._keep(site, Signed.from_bytes(data), at_once=False)

    def hear(self, signed: Signed) -> str:
        """Keep an anchor that any site tells, of itself or another; return whose news it is.

        Returns an empty name if one as new is kept already.

        Raises:
            IntegrityError: whom it names did not sign it.
            Refusal: ``unknown-site`` where no member has this key.
        """
        sites = self._registry.sites.items()
        site = next((name for name, m in sites if m.signing_key == signed.signer), "")
        if not site:
            raise Refusal("unknown-site", "no member signs with the key of this anchor")
        return site if self._keep(site, signed) else ""

    def of(self, site: str) -> list[bytes]:
        """Return a site's own newest anchor, or none."""
        member = self._registry.sites.get(site)
        row = self._journal.newest_anchor(member.signing_key) if member else None
        return [row.document] if row else []

    def of_others(self, site: str, sites: Iterable[str]) -> list[bytes]:
        """Return the newest anchors of the other sites, as many as go beside one request.

        The short ones first, so that nobody's long one leaves the others without a witness.
        """
        found = sorted((data for one in sites if one != site for data in self.of(one)), key=len)
        return list(within(_MAX_TOLD_BYTES, found))

    def _keep(self, site: str, signed: Signed, *, at_once: bool = True) -> bool:
        if len(signed.document) > _MAX_BYTES:
            raise IntegrityError("malformed-document", f"an anchor of {site} is too long")
        anchor = open_signed(signed, Anchor, self._registry.sites[site].signing_key)
        if anchor.site != site:
            raise IntegrityError("wrong-signer", f"{site} signed an anchor of {anchor.site}")
        ledger, audit = _number(anchor.ledger_head), _number(anchor.audit_head)
        row = AnchorRow(signed.signer, ledger, audit, signed.to_bytes())
        return self._journal.keep_anchor(row, at_once=at_once)


def _number(head: str) -> int:
    return int(head.partition(":")[0])


def within(limit: int, documents: Iterable[bytes]) -> Iterator[bytes]:
    """Yield documents as long as they fit into ``limit`` bytes together."""
    for data in documents:
        limit -= len(data)
        if limit < 0:
            return
        yield data
