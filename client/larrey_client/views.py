"""What people ask a node: studies and proofs; as JSON values, from a read-only connection.

The same functions answer inside a running node and in a command while none runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from larrey_client.cost import round_mechanism, study_facts, unit_of
from larrey_client.decision_pages import signing_view
from larrey_client.families import families_on_record
from larrey_client.records import Known, SiteRecords
from larrey_client.settings import Dataset, SiteSettings
from larrey_privacy.accounting import spend_cost
from larrey_privacy.filter import make_filter
from larrey_privacy.ledger import Account
from larrey_privacy.ledger_store import Ledger
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.audit import GENESIS, verify_chain
from larrey_protocol.contract import Contract
from larrey_protocol.errors import IntegrityError, Refusal, UsageError
from larrey_protocol.keys import fingerprint
from larrey_protocol.model_file import Dense, kinds
from larrey_protocol.models import model_layout, phase_layout
from larrey_protocol.signed import Receipt, Signed, open_signed
from larrey_protocol.study import DpSgd, Study
from larrey_strategies.local_tensors import local_names
from larrey_strategies.registry import words_of

__all__ = ["studies_view", "study_view", "verify_view"]

Json = dict[str, Any]  # Any: JSON values are recursive


def studies_view(connection: sqlite3.Connection, settings: SiteSettings) -> list[Json]:
    """Return one line a study, oldest first, and whose signature it has."""
    known = SiteRecords(connection).known()
    return [
        _line(one)
        | {"membership": settings.member_name(one.scope)}
        | {"signatures": signing_view(connection, settings, one)["signatures"]}
        for one in known
    ]


def study_view(connection: sqlite3.Connection, settings: SiteSettings, reference: str) -> Json:
    """Return everything a person needs to decide about a study.

    Raises:
        UsageError: ``study-unknown`` or ``study-ambiguous``.
    """
    known = SiteRecords(connection).newest(reference)
    study, file = known.study, known.study.file
    ledger, placed = Ledger.open(connection), families_on_record(connection)
    contract = study.contract
    epsilon = known.decision.epsilon if known.decision else -1.0
    if epsilon < 0:
        epsilon = study_facts(study, None).epsilon
    return (
        _line(known)
        | signing_view(connection, settings, known)
        | {
            "title": file.study.title,
            "question": file.study.question,
            "purpose": file.study.purpose,
            "proposed_by": fingerprint(known.signer),
            "unit": unit_of(study),
            "variables": _variables(contract),
            "outcome": _outcome(contract),
            "model": {
                "name": file.model.name,
                "hidden": list(file.model.hidden) if isinstance(file.model, Dense) else [],
                "layers": [] if isinstance(file.model, Dense) else kinds(file.model),
                "parameters": model_layout(study).size,
            },
            "training": {
                "rounds": file.training.rounds,
                "spare_rounds": file.training.spare_rounds,
                "local_steps": file.training.local_steps,
                "strategy": file.training.strategy,
                "algorithm": _algorithm(study),
                "app": file.training.app,
                "calls": list(file.training.calls),
            },
            "privacy": file.privacy.model_dump() | {"epsilon_pld": epsilon},
            "cost": [
                _cost(study, dataset, ledger.account(placed.get(dataset.name, dataset.name)))
                for dataset in settings.datasets
            ],
            "leaves": {
                "bytes_per_round": phase_layout(study, "train").nbytes,
                "encoding": file.training.encoding,
                "local": _local(study),
                "tensors": [name for name, _ in model_layout(study).entries],
                "metrics": list(file.training.metrics),
            },
            "longest_s": file.training.rounds_held * file.rounds.deadline_s,
        }
    )


def verify_view(connection: sqlite3.Connection, key: str) -> Json:
    """Return counts and heads after checking ledger, audit trail and every receipt against them.

    Raises:
        IntegrityError: ``ledger-damaged``, ``ledger-behind``, ``audit-broken``,
            ``audit-behind-anchor``, ``wrong-signer`` or ``bad-signature``.
    """
    ledger = Ledger.open(connection)  # verifies the whole chain and every rule
    trail = list(SiteRecords(connection).audit())
    last = verify_chain(trail)
    receipts = [open_signed(signed, Receipt, key) for signed in _receipts(connection)]
    ledger.require_heads(_head(receipt.ledger_head) for receipt in receipts)
    heads = {record.head for record in trail}
    for receipt in receipts:
        is_settled = _head(receipt.ledger_head)[0] < ledger.adopted_seq
        if receipt.audit_head not in heads and not is_settled:
            raise IntegrityError(
                "audit-behind-anchor",
                f"the receipt of round {receipt.round} names an audit record that is not here",
                "Records were removed or an old copy was restored; open an incident.",
            )
    seq, digest = ledger.head()
    return {
        "ledger_entries": seq,
        "ledger_head": f"{seq}:{digest}",
        "audit_records": len(trail),
        "audit_head": last.head if last else f"0:{GENESIS}",
        "receipts": len(receipts),
        "is_intact": True,
    }


def _algorithm(study: Study) -> Json:
    """Return the names of the three parts; none where this software does not know them."""
    try:
        return asdict(words_of(study.file.training).parts())
    except UsageError:
        return {}


def _local(study: Study) -> list[str]:
    """Return the tensors that stay here; none where the study is refused for what it names."""
    try:
        return list(local_names(study))
    except Refusal:
        return []


def _line(known: Known) -> Json:
    study, decision = known.study, known.decision
    return {
        "name": study.name,
        "version": study.file.study.version,
        "digest": study.digest,
        "state": known.state,
        "dataset": decision.dataset if decision else "",
        "code": decision.code if decision else "",
        "decided_by": decision.actor if decision else "",
        "is_delivered": known.is_delivered,
        "proposed_at": known.proposed_at,
    }


def _variables(contract: Contract) -> list[Json]:
    if contract.image is not None:
        return [{"name": "image", "kind": "image", **contract.image.model_dump()}]
    return [_variable(column.model_dump()) for column in contract.columns]


def _outcome(contract: Contract) -> Json:
    label = contract.label
    told: Json = {"kind": label.kind, "columns": list(label.columns)}
    match label.kind:
        case "class":
            return told | {"classes": [one.name for one in label.classes]}
        case "number":
            return told | {"unit": label.unit, "range": label.range}
        case "survival":
            return told | {
                "unit": label.unit,
                "intervals": len(label.edges),
                "end": label.edges[-1],
            }
    return told


def _variable(column: Mapping[str, Any]) -> Json:  # Any: pydantic dump
    return {key: column[key] for key in ("name", "kind", "unit", "range", "values") if column[key]}


def _cost(study: Study, dataset: Dataset, account: Account | None) -> Json:
    """Return what all rounds and spare rounds take from a dataset's budget; 1.0 is all of it."""
    budget = account.filter if account else make_filter(dataset.epsilon, dataset.delta)
    capacity = account.capacity_units if account else budget.capacity_units
    one = round_mechanism(study)
    share = None
    if isinstance(one, Mechanism) and isinstance(study.file.privacy, DpSgd):
        share = spend_cost(one, budget) * study.file.training.rounds_held / capacity
    free = (account.free_units if account else capacity) / capacity
    return {
        "dataset": dataset.name,
        "share": share,
        "free_share": free,
        "budget_epsilon": budget.epsilon,
        "budget_delta": budget.delta,
    }


def _receipts(connection: sqlite3.Connection) -> list[Signed]:
    rows = connection.execute("SELECT receipt FROM answers ORDER BY at").fetchall()
    return [Signed.from_bytes(bytes(receipt)) for (receipt,) in rows]


def _head(text: str) -> tuple[int, str]:
    seq, _, digest = text.partition(":")
    return int(seq), digest
