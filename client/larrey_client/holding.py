"""What an approval takes at this site: rows that meet the contract, and budget for every round.

Amounts are the ledger's; this only says for which study, on which family, and when.
"""

from __future__ import annotations

import logging

from larrey_client.cost import round_mechanism, unit_of
from larrey_client.extract.taking import renewed_rows
from larrey_client.families import family_of
from larrey_client.loading import load_rows
from larrey_client.node import Node
from larrey_client.settings import Dataset
from larrey_client.store import SiteStore
from larrey_privacy.accounting import spend_cost
from larrey_privacy.filter import make_filter
from larrey_privacy.ledger import Hold
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import Refusal
from larrey_protocol.study import Study

__all__ = ["held", "hold", "release", "require_unit", "rounds_free", "rounds_left", "units_found"]

logger = logging.getLogger(__name__)

_TRAINER_PATIENCE_S = 5.0


def held(store: SiteStore, dataset: str, study: str) -> Hold | None:
    """Return what a study holds of a dataset's budget."""
    with store.reading():
        return store.ledger.held(family_of(store, dataset), study)


def rounds_free(store: SiteStore, dataset: Dataset, study: Study, parent: str) -> int | None:
    """Return how many rounds the budget can still hold, None where no epsilon describes them.

    What the parent still holds counts as free: it is given back when its child is approved.
    """
    one = round_mechanism(study)
    if not isinstance(one, Mechanism):
        return None
    with store.reading():
        account = store.ledger.account(family_of(store, dataset.name))
    if account is None:
        budget = make_filter(dataset.epsilon, dataset.delta)
        return budget.capacity_units // spend_cost(one, budget)
    before = account.holds.get(parent)
    given_back = before.bound_units - before.used_units if before else 0
    return (account.free_units + given_back) // spend_cost(one, account.filter)


def rounds_left(found: Hold) -> int:
    """Return how many of the held rounds are neither used nor given back."""
    return 0 if found.is_closed else found.rounds_total - found.rounds_used


def require_unit(store: SiteStore, dataset: Dataset, study: Study) -> None:
    """Return if the study protects the units that the dataset's budget was made for.

    Raises:
        Refusal: ``unit-differs``.
    """
    with store.reading():
        account = store.ledger.account(family_of(store, dataset.name))
    if account is not None and account.unit != unit_of(study):
        raise Refusal(
            "unit-differs",
            f"the study protects one {unit_of(study)}, the budget of '{dataset.name}' one"
            f" {account.unit}",
            "Ask for a contract with the same unit.",
        )


def units_found(node: Node, study: Study, dataset: Dataset) -> int | None:
    """Return how many patients the data hold, None while the trainer is busy.

    Raises:
        DataError: the data do not meet the contract.
    """
    renewed_rows(node.settings, dataset)  # before the turn: a database takes its time
    if not node.trainer_turn.acquire(timeout=_TRAINER_PATIENCE_S):
        logger.warning("study=%s data are checked at the first round", study.name)
        return None
    try:
        return load_rows(node, study, dataset).units
    finally:
        node.trainer_turn.release()


def hold(
    store: SiteStore, dataset: Dataset, study: Study, at: str, *, rounds: int | None = None
) -> None:
    """Keep budget for a study, in the caller's transaction.

    Args:
        store: of the node.
        dataset: registered.
        study: approved.
        at: a note.
        rounds: fewer than the study's, where an amended version goes on with what was left.

    Raises:
        Refusal: ``dataset-unregistered``, ``budget-exhausted``.
    """
    family, training = family_of(store, dataset.name), study.file.training
    total, one = training.rounds_held if rounds is None else rounds, round_mechanism(study)
    store.ledger.hold(
        family,
        study.digest,
        one.over(total) if isinstance(one, Mechanism) else one,
        total,
        at,
        spare_rounds=min(training.spare_rounds, total - 1),
    )


def release(store: SiteStore, dataset: str, study: str, at: str) -> None:
    """Give back what a study no longer needs, in the caller's transaction; debits stay."""
    family = family_of(store, dataset)
    if store.ledger.held(family, study) is not None:
        store.ledger.release(family, study, at)
