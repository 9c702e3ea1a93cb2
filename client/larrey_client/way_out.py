"""`larrey-site ledger adopt|split|reset`: the officer's orders, carried out while no node runs.

The command opens the state as the node does, alone; the personal key is read where the officer
sits, signs one order about the state as it is, and is kept nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from larrey_client import officer as orders
from larrey_client.anchors import Anchored, check
from larrey_client.dossier import read_dossier
from larrey_client.officer import Officer, find_loss_or_refuse, make_order
from larrey_client.settings import SiteSettings
from larrey_client.store import SiteStore
from larrey_client.watch import Anchors, known_anchors
from larrey_client.witness import read_anchors
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.passphrase import load_person_key
from larrey_protocol.people import Person, find_person

__all__ = ["adopt_lost", "load_officer", "reset_family", "split_family"]

Json = dict[str, Any]  # Any: JSON values are recursive
_MOST = 1 << 26  # bytes of a file of anchors, from its end


def adopt_lost(settings: SiteSettings, key: Path, anchors: Path | None) -> Json:
    """Take as spent what anchors say and the state here lacks; return what was adopted.

    Raises:
        Refusal: ``nothing-to-adopt``, ``person-unknown``, ``role-not-allowed``.
        UsageError: ``state-locked`` while the node runs.
    """
    officer, site_key = load_officer(settings, key), _site_key(settings)
    with _state(settings, is_adopting=True) as store:
        found = _found(settings, store, site_key.public, anchors)
        before = store.ledger.spent()
        names = [dataset.name for dataset in settings.datasets]
        loss = find_loss_or_refuse(store, found, site_key, names)
        order = make_order(store, "adopt", loss.anchors[-1].signed.digest, officer, at=time.time())
        orders.adopt(store, loss, order, _people(settings, store), site=officer.site)
        check(store, found, site_key)
        after = store.ledger.spent()
        watch = Anchors(store, officer.site, site_key, settings.witness, time.time)
        watch.publish()
        watch.close()
        return {
            "adopted_entry": loss.head[0],
            "ledger_head": store.ledger_head,
            "families": sorted(f for f, units in after.items() if units > before.get(f, 0)),
            "by": officer.person.name,
        }


def split_family(settings: SiteSettings, key: Path, dataset: str, into: str) -> Json:
    """Give a dataset a budget of its own.

    Raises:
        Refusal: ``dataset-unregistered``, ``already-registered``, ``person-unknown``,
            ``role-not-allowed``.
        UsageError: ``state-locked`` while the node runs.
    """
    officer = load_officer(settings, key)
    with _state(settings) as store:
        subject = orders.split_subject(dataset, into)
        order = make_order(store, "split-family", subject, officer, at=time.time())
        orders.split(store, dataset, into, order, _people(settings, store), site=officer.site)
    return {"dataset": dataset, "family": into, "by": officer.person.name}


def reset_family(settings: SiteSettings, key: Path, family: str) -> Json:
    """Free one whole budget of a family again.

    Raises:
        Refusal: ``dataset-unregistered``, ``person-unknown``, ``role-not-allowed``.
        UsageError: ``state-locked`` while the node runs.
    """
    officer = load_officer(settings, key)
    with _state(settings) as store:
        order = make_order(store, "split-family", family, officer, at=time.time())
        orders.reset(store, family, order, _people(settings, store), site=officer.site)
        account = store.ledger.account(family)
    return {"family": family, "resets": account.resets if account else 0, "by": officer.person.name}


def load_officer(settings: SiteSettings, path: Path) -> Officer:
    """Return the person of this site whose key is in a file; their role is checked where it counts.

    Raises:
        Refusal: ``person-unknown``; FileError: of the key's file.
    """
    key = load_person_key(path)
    person = find_person(settings.people, key.public)
    if person is None:
        raise Refusal(
            "person-unknown",
            f"the key in {path} belongs to no person of this site",
            "List its public half under [[people]] in site.toml.",
        )
    return Officer(settings.site.name, person, key)


def _people(settings: SiteSettings, store: SiteStore) -> tuple[Person, ...]:
    """Return whom the signed charter names; site.toml alone opens nothing.

    Raises:
        IntegrityError: ``document-altered``.
    """
    with store.reading() as records:
        return read_dossier(records, settings.consortium.key).entitled(settings.people)


def _site_key(settings: SiteSettings) -> SigningKey:
    return SigningKey.load(settings.identity.signing_key)


def _found(
    settings: SiteSettings, store: SiteStore, key: str, anchors: Path | None
) -> list[Anchored]:
    """Return every anchor in reach; a witness that is away says nothing."""
    known = known_anchors(store, key, settings.witness, is_optional=True)
    if anchors is not None:
        size = min(_MOST, anchors.stat().st_size) if os.access(anchors, os.R_OK) else _MOST
        known += read_anchors(anchors, key, tail=size)
    return known


@contextmanager
def _state(settings: SiteSettings, *, is_adopting: bool = False) -> Iterator[SiteStore]:
    store = SiteStore.open(settings.site.state, time.time, is_adopting=is_adopting)
    try:
        yield store
    finally:
        store.close()
