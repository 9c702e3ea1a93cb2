"""What the consortium vouches for at this site: its key, its roster, the versions of its permits.

Everything arrives through the coordinator and is believed only under the key that site.toml pins,
or its successor signed by the key before. Rosters only grow, permits form a chain. What does not
verify is put on record and dropped; it never stops the node. The questions at the top are pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from larrey_client.apart import apart
from larrey_client.store import SiteStore
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import IntegrityError, LarreyError
from larrey_protocol.people import require_right
from larrey_protocol.permit import Permit, succeeds
from larrey_protocol.roster import EMPTY, KeyChange, Roster, open_under
from larrey_protocol.signed import Signed, open_signed

__all__ = ["Intake", "Permits", "is_entitled", "permit_chains", "trusted_keys", "trusted_rosters"]

logger = logging.getLogger(__name__)

_MAX_BYTES = 4 << 20  # of one document; ten thousand datasets in a permit take 1 MiB
_MAX_REJECTED = 100  # put on record in one run of the node; each is a durable commit
Permits = Mapping[str, tuple[tuple[str, Permit], ...]]  # reference -> (signed digest, permit)


def trusted_keys(pinned: str, changes: Iterable[Signed]) -> tuple[str, ...]:
    """Return the pinned key and its successors, newest last; of two successors the first counts.

    Raises:
        IntegrityError: a key change does not verify.
    """
    next_of: dict[str, str] = {}
    for signed in changes:
        change = open_signed(signed, KeyChange, signed.signer)
        if change.old == signed.signer:
            next_of.setdefault(change.old, change.new)
    keys = [pinned]
    while (new := next_of.get(keys[-1])) and new not in keys:
        keys.append(new)
    return tuple(keys)


def trusted_rosters(keys: Sequence[str], rosters: Iterable[Signed]) -> tuple[Roster, ...]:
    """Return the rosters that one of the keys signed, by version; at least the empty one.

    Raises:
        IntegrityError: a roster does not verify.
    """
    opened = [(open_signed(signed, Roster, signed.signer), signed.signer) for signed in rosters]
    ours = (roster for roster, signer in opened if signer in keys)
    return (EMPTY, *sorted(ours, key=lambda roster: roster.version))


def permit_chains(
    keys: Sequence[str], rosters: Sequence[Roster], permits: Iterable[Signed]
) -> Permits:
    """Return every permit's versions, oldest first, as far as they form a chain.

    Raises:
        IntegrityError: a permit does not verify.
    """
    opened = [(signed, open_signed(signed, Permit, signed.signer)) for signed in permits]
    ours = [(s.digest, p) for s, p in opened if is_entitled(s.signer, "permit", keys, rosters)]
    chains: dict[str, tuple[tuple[str, Permit], ...]] = {}
    for digest, permit in sorted(ours, key=lambda one: one[1].permit.version):
        known = chains.get(permit.reference, ())
        try:
            succeeds(known, permit)
        except IntegrityError:
            continue
        chains[permit.reference] = (*known, (digest, permit))
    return chains


def is_entitled(signer: str, right: str, keys: Sequence[str], rosters: Sequence[Roster]) -> bool:
    """Return whether a kept document's signer once had the right: a trusted key or a person."""
    if signer in keys:
        return True
    for roster in rosters:
        try:
            require_right(roster.people, signer, right)
        except LarreyError:
            continue
        return True
    return False


class Intake:
    """Takes in what the coordinator passes on from the consortium; for one thread."""

    def __init__(self, store: SiteStore, pinned: str) -> None:
        self._store = store
        self._pinned = pinned
        self._rejected: set[str] = set()

    def take(self, rosters: Iterable[bytes], permits: Iterable[bytes]) -> bool:
        """Keep what is new and verifies; return whether anything was."""
        pairs = ((rosters, self._roster_or_key), (permits, self._permit))
        kept = []
        for documents, keep in pairs:
            for data in documents:
                with apart("a document of the consortium"):
                    kept.append(self._one(data, keep))
        return any(kept)

    def _one(self, data: bytes, keep: Callable[[Signed], None]) -> bool:
        digest = digest_bytes(data)  # with its signature: a forged copy shuts out no true one
        if digest in self._rejected:
            return False
        try:
            if len(data) > _MAX_BYTES:
                raise IntegrityError("malformed-document", "a document is larger than any can be")
            signed = Signed.from_bytes(data)
            with self._store.reading() as records:
                if records.has_document(signed):
                    return False
            keep(signed)
        except LarreyError as error:
            self._reject(digest, error)
            return False
        return True

    def _roster_or_key(self, signed: Signed) -> None:
        keys, rosters = self._trusted()
        if signed.kind == KeyChange.__name__.lower():
            change = open_signed(signed, KeyChange, keys[-1])
            if change.old != keys[-1] or change.new in keys:
                raise IntegrityError("wrong-signer", "a key change does not follow our key")
            self._keep(signed, "key-changed", "", len(keys))
            logger.warning("the consortium's key changed; see `larrey-site policy show`")
            return
        roster = open_signed(signed, Roster, keys[-1])
        if roster.version <= rosters[-1].version:
            raise IntegrityError(
                "roster-stale",
                f"version {roster.version} of the roster came, {rosters[-1].version} is known",
            )
        self._keep(signed, "roster-received", "", roster.version)

    def _permit(self, signed: Signed) -> None:
        keys, rosters = self._trusted()
        permit = open_under(signed, Permit, "permit", consortium=keys[-1], roster=rosters[-1])
        with self._store.reading() as records:
            chains = permit_chains(keys, rosters, records.documents("permit", permit.reference))
        succeeds(chains.get(permit.reference, ()), permit)
        self._keep(signed, "permit-received", permit.reference, permit.permit.version)

    def _trusted(self) -> tuple[tuple[str, ...], tuple[Roster, ...]]:
        with self._store.reading() as records:
            keys = trusted_keys(self._pinned, records.documents("keychange"))
            return keys, trusted_rosters(keys, records.documents("roster"))

    def _keep(self, signed: Signed, action: str, subject: str, number: int) -> None:
        with self._store.transaction():
            self._store.add_document(signed, subject=subject, number=number)
            self._store.audit(action, signed.signer, subject=signed.digest)
        logger.info("%s subject=%s number=%d", action, subject, number)

    def _reject(self, digest: str, error: LarreyError) -> None:
        if len(self._rejected) >= _MAX_REJECTED:
            return
        self._rejected.add(digest)
        logger.error("a document of the consortium was rejected: %s", error)
        with self._store.transaction():
            self._store.audit(
                "document-rejected", self._store.coordinator, subject=digest, code=error.code
            )
