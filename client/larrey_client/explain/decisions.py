"""Permits, the charter and what a signature amounts to, for the person who signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from larrey_client.explain.plain import plain, shown, table

__all__ = ["explain_decided", "explain_permit", "explain_permits", "explain_policy"]

Json = dict[str, Any]  # Any: JSON values are recursive


def explain_decided(made: Json) -> str:
    """Return what one person's signature about a study amounts to."""
    if made["decision"] == "waiting":
        missing = " and ".join(made["missing"])
        return f"signed by {made['by']} for dataset {made['dataset']}; still to sign: {missing}"
    where = f" for dataset {made['dataset']}" if made["dataset"] else ""
    sent = "the coordinator knows" if made["is_sent"] else "the coordinator is told when it answers"
    return f"{made['decision']} by {made['by']}{where}; {sent}"


def explain_permits(views: Sequence[Json]) -> str:
    """Return one line a permit."""
    if not views:
        return "No permit came to this site yet."
    rows = [
        (view["reference"], view["version"], view["state"], view["valid_until"], _signed(view))
        for view in views
    ]
    return table(("PERMIT", "VERSION", "STATE", "UNTIL", "COUNTERSIGNED"), rows)


def explain_permit(view: Json) -> str:
    """Return everything that the newest version of a permit says, and the versions."""
    lines = [f"{view['reference']} version {view['version']}, {view['state']}", ""]
    for part, values in view["permit"].items():
        entries = values.items() if isinstance(values, dict) else [(part, _datasets(values))]
        lines += [f"  {name.replace('_', ' '):22} {shown(value)}" for name, value in entries]
    lines += ["", "Versions"]
    for one in view["versions"]:
        signed = "countersigned" if one["is_countersigned"] else "NOT countersigned"
        lines.append(
            f"  {one['version']:<3} {one['state']:9} decided {one['decided_on']}, until"
            f" {one['valid_until']}, {signed}  {one['digest']}"
        )
    if not view["is_countersigned"]:
        words = f"larrey-site permit countersign {view['reference']} --document FILE --key dpo.key"
        lines += ["", f"Next          {words}"]
    return "\n".join(lines)


def explain_policy(view: Json) -> str:
    """Return what site.toml protects, what is signed of it, and the difference."""
    state = "in effect" if view["is_in_effect"] else "NOT in effect: the gate refuses everything"
    keys = " -> ".join(view["consortium"])
    lines = [
        f"{view['site']}: policy version {view['version']}, {state}",
        f"  digest      {view['digest']}",
        f"  consortium  {keys}",
        f"  approvals   {' and '.join(view['approvals'])}",
        *(f"  {p['role']:11} {p['name']} {p['fingerprint']}" for p in view["people"]),
    ]
    if view["altered"]:
        lines.append(f"!! a kept document was altered: {plain(view['altered'])}")
    if view["changes"]:
        lines += ["", "Not signed yet"]
        lines += [f"  {place}: {_change(old, new)}" for place, old, new in view["changes"]]
    if view["missing"]:
        roles = " and ".join(view["missing"])
        lines += ["", f"Next          larrey-site policy sign --key KEY   by {roles}"]
    return "\n".join(lines)


def _signed(view: Json) -> str:
    return "yes" if view["is_countersigned"] else "NO"


def _change(old: Any, new: Any) -> str:  # Any: JSON values
    return shown(new) if old is None else f"{shown(old)} -> {shown(new)}"


def _datasets(values: Sequence[Json]) -> str:
    return ", ".join(f"{value['site']}/{value['dataset']}" for value in values)
