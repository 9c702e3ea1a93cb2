"""Anchors: where this site's ledger and audit trail stood, signed by the site, kept outside it.

A chain cannot show that its tail was cut off, nor that an old copy was put back. Whoever keeps an
anchor can: the coordinator, the other sites, a file or log on another machine. Only the site's own
signature counts, so that nobody can invent a future head. A head that is missing here is refused;
the way out takes what the anchors say was spent as spent, and needs the officer's personal key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from larrey_client.families import families_on_record
from larrey_client.family_tags import families_by_tag, tags_of
from larrey_client.store import SiteStore
from larrey_protocol.decisions import Anchor, AnchoredSpend
from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, open_signed, sign

__all__ = [
    "MAX_ANCHOR",
    "Anchored",
    "Loss",
    "check",
    "find_loss",
    "has_audit_head",
    "make_anchor",
    "open_anchor",
]

MAX_ANCHOR = 1 << 17  # bytes; a thousand families, the most that an anchor names, take 70 KiB
_WAY_OUT = (
    "Restore the newest copy of the site's state; where there is none, the data protection officer"
    " takes what the anchor says as spent: larrey-site ledger adopt --key FILE."
)


@dataclass(frozen=True, slots=True)
class Anchored:
    """A verified anchor of this site."""

    signed: Signed
    anchor: Anchor

    @property
    def head(self) -> tuple[int, str]:
        """Return number and hash of the ledger's last entry then."""
        return _parse(self.anchor.ledger_head)

    @property
    def audit_seq(self) -> int:
        """Return the number of the trail's last record then."""
        return _parse(self.anchor.audit_head)[0]

    @property
    def spent(self) -> dict[str, int]:
        """Return the whole units that each family had used, by its tag."""
        return {one.family: one.units for one in self.anchor.spent}

    @property
    def rank(self) -> tuple[int, int]:
        """Return what grows from anchor to anchor."""
        return self.head[0], self.audit_seq


@dataclass(frozen=True, slots=True)
class Loss:
    """What this site's state lacks, by the anchors.

    Attributes:
        head: of the highest anchor that is not covered.
        units: what each family must be taken to have used: the most that any such anchor says,
            and what was used here since the newest anchor that is still in the chain.
        anchors: those that are not covered, highest last.
        is_ledger: the ledger is behind, not the audit trail alone.
    """

    head: tuple[int, str]
    units: Mapping[str, int]
    anchors: tuple[Anchored, ...]
    is_ledger: bool


def make_anchor(store: SiteStore, site: str, key: SigningKey, at: float) -> Signed:
    """Return where ledger and audit trail stand, signed."""
    with store.reading():
        used = store.ledger.spent()
        spent = sorted((tag, used[family]) for family, tag in tags_of(key, used).items())
        anchor = Anchor(
            site=site,
            ledger_head=store.ledger_head,
            audit_head=store.audit_head,
            spent=tuple(AnchoredSpend(family=tag, units=units) for tag, units in spent),
            at=at,
        )
    return sign(anchor, key)


def open_anchor(data: bytes, key: str) -> Anchored:
    """Return an anchor that ``key`` signed.

    Raises:
        IntegrityError: ``wrong-signer``, ``bad-signature``, ``wrong-document`` or
            ``malformed-document``.
    """
    if len(data) > MAX_ANCHOR:
        raise IntegrityError("malformed-document", f"an anchor is over {MAX_ANCHOR} bytes")
    signed = Signed.from_bytes(data)
    return Anchored(signed, open_signed(signed, Anchor, key))


def find_loss(
    store: SiteStore, anchors: Iterable[Anchored], key: SigningKey, datasets: Iterable[str] = ()
) -> Loss | None:
    """Return what the anchors under a site's key know and this state does not, else None.

    Families are called by their names where the state or ``datasets`` names them, else by the tag:
    nobody can say any more which they were.
    """
    known = sorted(anchors, key=lambda one: one.rank)
    with store.reading() as records:
        placed = families_on_record(records.connection).values()
        spent = _named(key, {*datasets, *placed, *store.ledger.spent()})
        behind = [one for one in known if not store.ledger.covers(one.head, spent(one))]
        lost = [one for one in known if one in behind or not _has_audit(store, one)]
        if not lost:
            return None
        common = [one for one in known if store.ledger.has_head(one.head)]
        return Loss(
            lost[-1].head,
            _units(
                [spent(one) for one in lost],
                spent(common[-1]) if common else store.ledger.spent(),
                store.ledger.spent(),
            ),
            tuple(lost),
            bool(behind),
        )


def has_audit_head(store: SiteStore, head: str) -> bool:
    """Return whether the audit trail once had this head."""
    seq, digest = _parse(head)
    row = store.records.connection.execute(
        "SELECT record FROM audit WHERE seq = ?", (seq,)
    ).fetchone()
    return seq == 0 or (row is not None and json.loads(row[0])["hash"] == digest)


def check(store: SiteStore, anchors: Iterable[Anchored], key: SigningKey) -> None:
    """Return if this state holds everything that the anchors under a site's key say.

    Raises:
        IntegrityError: ``ledger-behind`` or ``audit-behind-anchor``, with how far and the way out.
    """
    loss = find_loss(store, anchors, key)
    if loss is None:
        return
    with store.reading():
        here, records = store.ledger.head()[0], store.audit_head.partition(":")[0]
        missing = [f for f, units in loss.units.items() if units > store.ledger.spent().get(f, 0)]
    if loss.is_ledger:
        spent = f" and had spent more on {', '.join(missing)}" if missing else ""
        text = f"this site signed entry {loss.head[0]} of its ledger{spent}; here it ends at {here}"
        raise IntegrityError("ledger-behind", text, _WAY_OUT)
    seq = max(one.audit_seq for one in loss.anchors)
    text = (
        f"this site signed record {seq} of its audit trail, which is not the one here ({records})"
    )
    raise IntegrityError("audit-behind-anchor", text, _WAY_OUT)


def _named(key: SigningKey, families: Iterable[str]) -> Callable[[Anchored], dict[str, int]]:
    """Return what reads an anchor's units by family: its name where it is known, else its tag."""
    names = families_by_tag(key, families)
    return lambda one: {names.get(tag, tag): units for tag, units in one.spent.items()}


def _units(
    lost: Sequence[Mapping[str, int]], base: Mapping[str, int], now: Mapping[str, int]
) -> dict[str, int]:
    families = sorted({family for spent in lost for family in spent})
    since = {family: max(0, units - base.get(family, 0)) for family, units in now.items()}
    return {
        family: max(spent.get(family, 0) for spent in lost) + since.get(family, 0)
        for family in families
    }


def _has_audit(store: SiteStore, one: Anchored) -> bool:
    """Return whether the trail has the head, or lost it before an adoption that settled it."""
    return one.head[0] < store.ledger.adopted_seq or has_audit_head(store, one.anchor.audit_head)


def _parse(head: str) -> tuple[int, str]:
    seq, _, digest = head.partition(":")
    return int(seq), digest
