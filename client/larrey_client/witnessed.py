"""Anchors kept here: of other sites, for whom this site is a witness, and of this site itself.

One row a signer, the newest: the table never grows beyond the sites that are known. What is kept is
given back when asked; nothing else follows from another site's anchor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from larrey_client.anchors import MAX_ANCHOR, Anchored, open_anchor
from larrey_client.store import SiteStore
from larrey_protocol.decisions import Anchor
from larrey_protocol.errors import IntegrityError
from larrey_protocol.roster import Seat
from larrey_protocol.signed import Signed, open_signed

__all__ = ["keep_own", "keep_witnessed", "kept_own", "witnessed"]

logger = logging.getLogger(__name__)

_TABLE = """CREATE TABLE IF NOT EXISTS witnessed (
    holder TEXT PRIMARY KEY, signed BLOB NOT NULL
) STRICT"""
_UPSERT = (
    "INSERT INTO witnessed VALUES (?1, ?2)"
    " ON CONFLICT (holder) DO UPDATE SET signed = excluded.signed"
)


def keep_witnessed(
    store: SiteStore, seats: Iterable[Seat], anchors: Iterable[bytes], *, at_once: bool = True
) -> int:
    """Keep other sites' anchors that are newer than those kept; return how many.

    Args:
        store: of this site.
        at_once: in a commit of their own; else with the next one, that of the round they came with.
        seats: the sites that count, as the consortium's roster names them.
        anchors: signed, from anywhere; what no seat signed is passed over.
    """
    known = {seat.key: seat.name for seat in seats}
    found = [one for data in anchors if (one := _of_a_seat(bytes(data), known)) is not None]
    newest = {one.signed.signer: one for one in sorted(found, key=lambda one: one.rank)}
    return _keep(store, newest, at_once=at_once)


def witnessed(store: SiteStore, seats: Iterable[Seat]) -> list[bytes]:
    """Return the newest anchor of each of these sites, in their travelling form."""
    found = [_kept(store, seat.key, seat.key) for seat in seats]
    return [one.signed.to_bytes() for one in found if one is not None]


def keep_own(store: SiteStore, anchored: Anchored, *, where: str = "") -> None:
    """Keep this site's own anchor if it is the newest; ``where`` names what else holds it."""
    _keep(store, {f"{where} {anchored.signed.signer}".strip(): anchored})


def kept_own(store: SiteStore, key: str, *, where: str = "") -> list[Anchored]:
    """Return this site's own newest kept anchor, or none."""
    kept = _kept(store, f"{where} {key}".strip(), key)
    return [kept] if kept else []


def _of_a_seat(data: bytes, known: dict[str, str]) -> Anchored | None:
    """Return the anchor if one of the seats signed it for itself, else None."""
    if len(data) > MAX_ANCHOR:
        return None
    try:
        signed = Signed.from_bytes(data)
        if signed.signer not in known:
            return None
        anchored = Anchored(signed, open_signed(signed, Anchor, signed.signer))
    except IntegrityError as error:
        logger.debug("an anchor was passed over code=%s", error.code)
        return None
    return anchored if known[signed.signer] == anchored.anchor.site else None


def _keep(store: SiteStore, found: Mapping[str, Anchored], *, at_once: bool = True) -> int:
    """Keep what is newer than what its holder has, in one durable commit; return how many."""
    news = [
        (holder, one.signed.to_bytes())
        for holder, one in found.items()
        if (kept := _kept(store, holder, one.signed.signer)) is None or kept.rank < one.rank
    ]
    for holder, data in news:
        store.write_along(f"witnessed {holder}", _UPSERT, (holder, data))
    if news and at_once:
        with store.transaction():
            pass
    return len(news)


def _kept(store: SiteStore, holder: str, key: str) -> Anchored | None:
    """Return what is kept; a row that somebody changed is none, as one that was deleted is."""
    with store.reading() as records:
        records.connection.execute(_TABLE)
        row = records.connection.execute(
            "SELECT signed FROM witnessed WHERE holder = ?", (holder,)
        ).fetchone()
    try:
        return open_anchor(bytes(row[0]), key) if row else None
    except IntegrityError:
        return None
