"""A study and a ledger in plain words, for the person who must decide. Pure text from values.

Where epsilon is named, so are its unit, neighbours, delta and accountant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "explain_isolation",
    "explain_ledger",
    "explain_status",
    "explain_studies",
    "explain_study",
]

Json = dict[str, Any]  # Any: JSON values are recursive

_PURPOSES = {
    "public-interest": "the public interest in health",
    "policy-making": "policy making and regulation",
    "statistics": "official statistics",
    "education": "teaching in health care",
    "scientific-research": "scientific research",
    "improving-care": "improving care",
}


def explain_study(view: Json) -> str:
    """Return what a study asks of this site, in the order in which people ask."""
    sites = ", ".join(f"{site['name']} ({site['patients']} or more)" for site in view["sites"])
    parts = [
        f"{_plain(view['title'])}  ({view['name']} version {view['version']})",
        f"  digest      {view['digest']}",
        f"  proposed by the consortium key {view['proposed_by']}",
        f"  state       {_state(view)}",
        "",
        f"What for      {_PURPOSES[view['purpose']]}",
        f"Question      {_plain(view['question'])}",
        f"Who           {sites}",
        f"Variables     {', '.join(_variable(v) for v in view['variables'])}",
        f"Outcome       {view['outcome']}",
        f"Model         {_model(view['model'])}",
        f"Rounds        {_rounds(view['training'])}",
        f"Privacy       {_privacy(view)}",
        *_costs(view),
        f"What leaves   {_leaves(view)}",
        f"Until when    {_until(view)}",
    ]
    if view["state"] == "waiting":
        parts += ["", f"Next          larrey-site study approve {view['name']}   or   refuse"]
    return "\n".join(parts)


def explain_studies(views: Sequence[Json]) -> str:
    """Return one line a study."""
    if not views:
        return "No study was proposed to this site yet."
    lines = [f"{'STUDY':24} {'STATE':10} {'DATASET':16} {'DIGEST':14} CODE"]
    for view in views:
        digest = view["digest"].removeprefix("sha256:")[:12]
        lines.append(
            f"{view['name']:24} {view['state']:10} {view['dataset'] or '-':16}"
            f" {digest:14} {view['code'] or '-'}"
        )
    return "\n".join(lines)


def explain_ledger(views: Sequence[Json]) -> str:
    """Return each dataset's budget and who uses it."""
    return "\n\n".join(_budget(view) for view in views)


def explain_status(status: Json) -> str:
    """Return how a running node is."""
    connection = "connected" if status["is_connected"] else f"not connected: {status['trouble']}"
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status["studies"].items()))
    return "\n".join(
        [
            f"{status['site']}: {connection}",
            f"  coordinator {status['coordinator']}",
            f"  studies     {counts or 'none'}",
            f"  epsilon     {'exact' if status['epsilon_ready'] else 'being computed'} in receipts",
            f"  ledger      {status['ledger_head'][:24]}",
            f"  audit       {status['audit_head'][:24]}",
            *explain_isolation(status["isolation"]),
        ]
    )


def explain_isolation(isolation: Json) -> list[str]:
    """Return how the process that trains is kept apart, and what this machine cannot enforce."""
    stands = ", ".join(isolation["stands"]) or "not known yet"
    missing = [f"{name} ({_plain(why)})" for name, why in isolation["missing"].items()]
    lines = [f"  isolation   {stands}"]
    return [*lines, f"              not enforced here: {', '.join(missing)}"] if missing else lines


def _plain(text: str) -> str:
    """Return foreign text on one line, without what could forge or hide another line."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _state(view: Json) -> str:
    if view["state"] == "waiting":
        return "waiting for a decision of this site"
    by = f" by {view['decided_by']}" if view["decided_by"] else ""
    code = f", code {view['code']}" if view["code"] else ""
    where = f" for dataset {view['dataset']}" if view["dataset"] else ""
    return f"{view['state']}{by}{where}{code}"


def _variable(variable: Json) -> str:
    if variable["kind"] == "category":
        return f"{variable['name']} ({len(variable['values'])} categories)"
    unit = f" {_plain(variable['unit'])}" if variable.get("unit") else ""
    low, high = variable["range"]
    return f"{variable['name']} ({low:g} to {high:g}{unit})"


def _model(model: Json) -> str:
    hidden = f", hidden layers {model['hidden']}" if model["hidden"] else ""
    return f"{model['name']}{hidden}, {model['parameters']} parameters"


def _rounds(training: Json) -> str:
    spare = f" and {training['spare_rounds']} spare" if training["spare_rounds"] else ""
    app = f", by the standard Flower app '{_plain(training['app'])}'" if training["app"] else ""
    steps = f"{training['local_steps']} training steps each"
    return f"{training['rounds']}{spare}, {steps}, combined by {_plain(training['strategy'])}{app}"


def _privacy(view: Json) -> str:
    privacy, unit = view["privacy"], view["unit"]
    if privacy["mechanism"] == "none":
        return "NO differential privacy: nothing bounds what the model tells about a person"
    return (
        f"epsilon {privacy['epsilon_pld']:.3g} at delta {privacy['delta']:g} per {unit} at this"
        " site, add/remove neighbours, by PLD, over all rounds and spare rounds;"
        f" noise multiplier {privacy['noise_multiplier']:g}"
    )


def _costs(view: Json) -> list[str]:
    return [f"Cost          {_cost(cost)}" for cost in view["cost"]]


def _cost(cost: Json) -> str:
    budget = f"epsilon {cost['budget_epsilon']:g} at delta {cost['budget_delta']:g}"
    if cost["share"] is None:
        return f"{cost['dataset']}: no epsilon describes it; the budget ({budget}) says nothing"
    fits = "" if cost["share"] <= cost["free_share"] else "; it does NOT fit"
    return (
        f"{cost['dataset']}: {cost['share']:.1%} of the budget ({budget} for all work ever);"
        f" {cost['free_share']:.1%} is free{fits}"
    )


def _leaves(view: Json) -> str:
    size = view["leaves"]["bytes_per_round"]
    noised = "" if view["privacy"]["mechanism"] == "none" else ", clipped and noised"
    return (
        f"per round one model update of {size} bytes ({len(view['leaves']['tensors'])} tensors"
        f"{noised}), its checked size and norm, and a signed receipt; {_metrics(view)}"
    )


def _metrics(view: Json) -> str:
    """Return what an app's other handlers tell, which may well be a count, and what nobody does."""
    names = view["leaves"]["metrics"]
    if not names:
        return "no row, no count, no text"
    numbers = f"the exact number{'s' if len(names) > 1 else ''} {', '.join(names)}"
    calls = view["training"]["calls"][1:]
    return f"and {numbers}, as its {' and '.join(calls)} compute, with a receipt; no row, no text"


def _until(view: Json) -> str:
    hours = view["longest_s"] / 3600
    return (
        f"the last round, at most {hours:.3g} hours of rounds; unused spare rounds are given back"
    )


def _budget(view: Json) -> str:
    head = (
        f"{view['dataset']}: budget epsilon {view['epsilon']:g} at delta {view['delta']:g} per"
        f" {view['unit']}, add/remove, for all work ever\n"
        f"  used {view['used_share']:.1%}, held {view['held_share']:.1%},"
        f" free {view['free_share']:.1%}; all work so far together: epsilon at most"
        f" {view['epsilon_spent']:.3g}"
    )
    warning = "\n  some work here has no epsilon at all" if view["has_unbounded"] else ""
    return head + warning + "".join(f"\n  {_study(study)}" for study in view["studies"])


def _study(study: Json) -> str:
    name = study["name"] or study["study"][:19]
    rounds = f"{study['rounds_used']} of {study['rounds_total']} rounds"
    if study["is_unbounded"]:
        return f"{name}: {rounds}, without differential privacy"
    ended = ", ended" if study["is_closed"] else ""
    return (
        f"{name}: {rounds}{ended}, {study['used_share']:.1%} used, {study['held_share']:.1%} held;"
        f" PLD epsilon {study['epsilon_spent']:.3g} of {study['epsilon_approved']:.3g}"
    )
