"""The coordinator's book of law: rosters, key changes and permits, as the consortium signed them.

The consortium's key pinned in ``coordinator.toml`` is the root; each key change is signed by the
key that it replaces. Nothing is believed before its signature verifies, nothing kept is ever
changed: the newest roster and the newest version of a permit count.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable

from larrey_protocol.audit import AuditRecord
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.permit import Permit, permit_state, succeeds
from larrey_protocol.roster import EMPTY, KeyChange, Roster, name_of, open_under
from larrey_protocol.signed import Signed, open_signed
from larrey_server.journal import DocumentRow, Journal

__all__ = ["LawBook", "PermitVersion"]

PermitVersion = tuple[str, Permit]  # digest of the signed permit, and what it says


class LawBook:
    """Rosters and permits over the journal; thread-safe."""

    def __init__(self, journal: Journal, anchor: str, clock: Callable[[], float]) -> None:
        """Read what is kept.

        Args:
            journal: where it is kept.
            anchor: the consortium's public key that the coordinator's settings pin.
            clock: seconds since 1970, of the audit records.
        """
        self._journal = journal
        self._clock = clock
        self._lock = threading.RLock()
        self._permits: dict[str, list[PermitVersion]] = {}
        self._kept = {
            row.digest
            for kind in ("keychange", "roster", "permit")
            for row in journal.documents(kind)
        }
        self._consortium = self._follow(anchor)
        self._roster = self._newest_roster()
        for row in journal.documents("permit"):
            signed = Signed.from_bytes(row.document)
            permit = open_signed(signed, Permit, signed.signer)  # its right was checked when taken
            self._permits.setdefault(permit.reference, []).append((row.digest, permit))

    @property
    def consortium(self) -> str:
        """Return the consortium's present public key."""
        with self._lock:
            return self._consortium

    def roster(self) -> Roster:
        """Return the newest roster, an empty one before the first."""
        with self._lock:
            return self._roster

    def versions(self, reference: str) -> tuple[PermitVersion, ...]:
        """Return every version of a permit, oldest first."""
        with self._lock:
            return tuple(self._permits.get(reference, ()))

    def newest(self, reference: str) -> PermitVersion | None:
        """Return the version of a permit that counts, None where it is unknown."""
        versions = self.versions(reference)
        return versions[-1] if versions else None

    def state(self, reference: str) -> str:
        """Return how a permit stands today (UTC), UNKNOWN where it is not known."""
        newest = self.newest(reference)
        return permit_state(newest[1], self.today()) if newest else "UNKNOWN"

    def today(self) -> dt.date:
        """Return the present day in UTC."""
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC).date()

    def permits(self, reference: str = "") -> list[bytes]:
        """Return the signed permits, of one reference where it is given, oldest first."""
        return [row.document for row in self._journal.documents("permit", reference or None)]

    def rosters(self) -> list[bytes]:
        """Return the signed key changes and rosters, oldest first: each verifies in turn."""
        rows = [*self._journal.documents("keychange"), *self._journal.documents("roster")]
        return [row.document for row in sorted(rows, key=lambda row: row.seq)]

    def take_roster(self, signed: Signed) -> bool:
        """Keep a roster or a key change; False if it was kept before.

        Raises:
            IntegrityError: the consortium's present key did not sign it.
            Refusal: ``roster-stale`` for a version that does not grow, ``key-unchanged``.
        """
        with self._lock:
            if signed.digest in self._kept:
                return False
            if signed.kind == "keychange":
                self._take_key(signed)
            else:
                self._take_roster(signed)
            return True

    def take_permit(self, signed: Signed) -> Permit:
        """Keep the next version of a permit and return it; the same one again changes nothing.

        Raises:
            IntegrityError: nobody with the right signed it, or ``permit-chain-broken``.
            Refusal: ``role-not-allowed``.
        """
        with self._lock:
            if signed.digest in self._kept:
                return open_signed(signed, Permit, signed.signer)
            permit = open_under(
                signed, Permit, "permit", consortium=self._consortium, roster=self._roster
            )
            known = self._permits.setdefault(permit.reference, [])
            succeeds(known, permit)
            action = f"permit-{permit.permit.state.lower()}"
            self._keep(signed, permit.reference, permit.permit.version, action)
            known.append((signed.digest, permit))
            return permit

    def _take_key(self, signed: Signed) -> None:
        change = open_signed(signed, KeyChange, self._consortium)
        if change.old != self._consortium:
            raise IntegrityError("wrong-signer", "the key change replaces another key")
        if change.new == change.old:
            raise Refusal("key-unchanged", "the key change names the same key twice")
        self._keep(signed, "", 0, "consortium-key-changed")
        self._consortium = change.new

    def _take_roster(self, signed: Signed) -> None:
        roster = open_signed(signed, Roster, self._consortium)
        if roster.version <= self._roster.version:
            raise Refusal(
                "roster-stale",
                f"expected a roster after version {self._roster.version}, found {roster.version}",
                "Draft it anew: larrey roster draft > roster.toml",
            )
        self._keep(signed, "", roster.version, "roster-signed")
        self._roster = roster

    def _keep(self, signed: Signed, subject: str, number: int, action: str) -> None:
        """Keep a document; who signed it is who did it, whoever's connection brought it."""
        actor = name_of(signed.signer, consortium=self._consortium, roster=self._roster)
        row = DocumentRow(signed.kind, subject, number, signed.digest, signed.to_bytes())
        self._journal.keep(row, AuditRecord(0, self._clock(), actor, action, subject=signed.digest))
        self._kept.add(signed.digest)

    def _follow(self, anchor: str) -> str:
        """Return the last key of the chain that the pinned key belongs to."""
        for row in self._journal.documents("keychange"):
            signed = Signed.from_bytes(row.document)
            if signed.signer == anchor:
                anchor = open_signed(signed, KeyChange, anchor).new
        return anchor

    def _newest_roster(self) -> Roster:
        rows = self._journal.documents("roster")
        if not rows:
            return EMPTY
        signed = Signed.from_bytes(rows[-1].document)
        return open_signed(signed, Roster, signed.signer)
