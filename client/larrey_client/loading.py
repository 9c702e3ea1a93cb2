"""One way to have the trainer read a dataset for a study: which rows, and without whom."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from larrey_client.data.opposition import day_of, entries, excluded, strictest
from larrey_client.data.reading import Reading
from larrey_client.extract.snapshots import rows_of
from larrey_client.registrar import rescan
from larrey_client.settings import Dataset, SiteSettings
from larrey_client.sources_settings import ImageSource
from larrey_protocol.contract import Contract
from larrey_protocol.errors import DataError
from larrey_protocol.permit import Permit
from larrey_protocol.study import Study

if TYPE_CHECKING:
    from larrey_client.node import Node
    from larrey_client.trainer_link import Loaded

__all__ = ["load_rows", "opposition_of", "reading_of"]


def load_rows(node: Node, study: Study, dataset: Dataset) -> Loaded:
    """Have the trainer read and check a dataset; the caller has the trainer's turn.

    Raises:
        DataError: the rows do not meet the contract, or there are none; ``opposition-unreadable``.
        Refusal: ``families-bridged`` where the rows gained a patient of another cohort family.
        LarreyError: as `larrey_client.trainer_link.TrainerLink.load`.
    """
    settings = node.settings
    permit = node.cases.dossier.permit(study.file.study.permit)[1]
    rule = settings.app(study.file.training.app or "")
    ready = node.metrics.data_ready.labels(dataset.name)
    secret, now = node.store.secret(), node.now()
    try:
        rescan(node, dataset)
        loaded = node.trainer.load(
            study,
            site=node.site,
            data=rows_of(dataset, settings.site.state),
            app=rule.module if rule else None,
            reading=reading_of(settings, dataset, study.contract, permit, secret=secret, now=now),
        )
    except DataError:
        ready.set(0)
        raise
    ready.set(1)
    return loaded


def reading_of(
    settings: SiteSettings,
    dataset: Dataset,
    contract: Contract,
    permit: Permit | None,
    *,
    secret: bytes,
    now: float,
) -> Reading:
    """Return how a dataset is read: its files' folder, and without those who object.

    Raises:
        DataError: ``opposition-unreadable``.
    """
    origin = dataset.origin
    day = opposition_of(contract, permit, now)[1]
    out = excluded(entries(settings.site.state), day, now) if day else frozenset()
    return Reading(secret, out, origin.root if isinstance(origin, ImageSource) else None)


def opposition_of(
    contract: Contract, permit: Permit | None, now: float
) -> tuple[str, dt.date | None]:
    """Return whose objections count and their last day; the stricter of contract and permit holds.

    Where no permit is on record, those of today count, which is more than any permit's day. None
    stands for nobody's.
    """
    rule = contract.exclusions.opposition
    if permit is not None:
        rule = strictest(rule, permit.rules.opposition)
    if rule == "none":
        return rule, None
    if rule == "permit" and permit is not None:
        return rule, permit.permit.decided_on
    return rule, day_of(now)
