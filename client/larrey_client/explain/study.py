"""What a study asks of this site, in English or French, in the order in which people ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from larrey_client.explain.english import ENGLISH
from larrey_client.explain.french import FRENCH
from larrey_client.explain.plain import duration, plain, shown

__all__ = ["explain_study"]

Json = dict[str, Any]  # Any: JSON values are recursive
Say = Callable[..., str]  # a phrase's key and its values -> the phrase
_WIDTH = 14


def explain_study(view: Json, *, lang: Literal["en", "fr"] = "en", is_full: bool = True) -> str:
    """Return a study in plain words.

    Args:
        view: of `larrey_client.views.study_view`.
        lang: language.
        is_full: everything; otherwise an amendment is told by what it changes alone.
    """
    table = FRENCH if lang == "fr" else ENGLISH

    def say(key: str, /, **values: Any) -> str:  # Any: what format takes
        return table[key].format(**values)

    parts = [*_head(view, say), *_warnings(view, say), ""]
    amends = view["amends"]
    if amends is not None:
        parts += _amendment(amends, say)
    if amends is None or is_full:
        parts += _whole(view, say)
    else:
        parts += ["", say("full", version=amends["parent_version"])]
    if view["state"] == "waiting" or _is_outdated(view):
        parts += ["", _line(say("next"), say("next-line", name=view["name"]))]
    return "\n".join(parts)


def _head(view: Json, say: Say) -> Iterator[str]:
    yield say("title", title=plain(view["title"]), name=view["name"], version=view["version"])
    key, person = view["proposed_by"], view["proposer"]
    by = say("by-person", person=person, key=key) if person else say("by-consortium", key=key)
    for label, text in (
        ("digest", view["digest"]),
        ("proposed-by", by),
        ("state", _state(view, say)),
        ("signatures", _signatures(view["signatures"], say)),
    ):
        yield f"  {say(label):12} {text}"


def _state(view: Json, say: Say) -> str:
    state = say("outdated" if _is_outdated(view) else view["state"])
    if view["state"] == "waiting":
        return state
    is_decision = view["state"] != "ended" and view["decided_by"]
    by = say("by", names=view["decided_by"]) if is_decision else ""
    where = say("for-dataset", dataset=view["dataset"]) if view["dataset"] else ""
    code = say("code", code=view["code"]) if view["code"] else ""
    return f"{state}{by}{where}{code}"


def _is_outdated(view: Json) -> bool:
    """Return whether an approval stands that no longer counts."""
    return view["state"] == "approved" and bool(view["signatures"]["is_outdated"])


def _signatures(signed: Json, say: Say) -> str:
    count, total = len(signed["signed"]), len(signed["needed"])
    key, roles = ("signed-missing" if signed["missing"] else "signed-of"), signed["missing"]
    text = say(key, count=count, total=total, roles=", ".join(roles))
    outdated = say("signed-outdated") if signed["is_outdated"] else ""
    return text + outdated + (say("signed-carried") if signed["carried_from"] else "")


def _warnings(view: Json, say: Say) -> Iterator[str]:
    permit, metrics = view["permit"], ", ".join(view["leaves"]["metrics"])
    has_none = view["privacy"]["mechanism"] == "none"
    facts = [
        (view["altered"], say("warn-altered", what=plain(view["altered"]))),
        (has_none, say("warn-no-privacy")),
        (view["training"]["app"], say("warn-unbounded-app")),
        (metrics, say("warn-metrics", names=metrics)),
        (has_none, say("warn-recorded")),
        (permit is None, say("warn-permit-none")),
        (any(not site["fingerprint"] for site in view["roster"]), say("warn-roster")),
    ]
    if permit is not None:
        is_over = permit["state"] in {"REVOKED", "EXPIRED", "NOT-YET-VALID"}
        facts += [
            (is_over, say("warn-permit-state", state=permit["state"])),
            (not permit["is_countersigned"], say("warn-countersign")),
            (permit["opposition"] == "none", say("warn-opposition")),
        ]
    for cost in view["cost"] if view["state"] == "waiting" else ():
        is_short = cost["share"] is not None and cost["share"] > cost["free_share"]
        facts.append((is_short, say("warn-budget", dataset=cost["dataset"])))
    yield from (f"!! {say('warning')}: {text}" for holds, text in facts if holds)


def _amendment(amends: Json, say: Say) -> Iterator[str]:
    yield _line(
        say("amends"),
        say("amends-line", version=amends["parent_version"], digest=amends["parent"]),
    )
    if not amends["changes"]:
        yield _line(say("changes"), say("change-none"))
    for place, before, after in amends["changes"]:
        text = say("change", place=plain(place), before=shown(before), after=shown(after))
        yield _line(say("changes"), text)
    yield _line("", say("change-sign" if amends["needs_signature"] else "change-free"))


def _whole(view: Json, say: Say) -> Iterator[str]:
    lines = [
        ("purpose", say(view["purpose"])),
        ("question", plain(view["question"])),
        *_permit(view, say),
        ("who", "; ".join(_site(site, say) for site in view["roster"])),
        ("variables", ", ".join(_variable(one, say) for one in view["variables"])),
        ("outcome", _outcome(view["outcome"], say)),
        ("model", _model(view["model"], say)),
        ("rounds", _rounds(view["training"], say)),
        *_algorithm(view["training"], say),
        ("privacy", _privacy(view, say)),
        *(("cost", _cost(cost, say)) for cost in view["cost"]),
        ("leaves", _leaves(view, say)),
        *_rules(view["permit"], say),
        ("until", say("until-line", time=duration(view["longest_s"]))),
    ]
    yield from (_line(say(label), text) for label, text in lines)


def _permit(view: Json, say: Say) -> list[tuple[str, str]]:
    permit = view["permit"]
    if permit is None:
        return [("permit", say("permit-none", reference=view["permit_reference"]))]
    line = say(
        "permit-line",
        reference=permit["reference"],
        version=permit["version"],
        state=permit["state"],
        authority=plain(permit["authority"]),
        basis=permit["legal_basis"],
        start=permit["valid_from"],
        end=permit["valid_until"],
    )
    ethics = say("ethics-line", dpia=plain(permit["dpia"]), ethics=plain(permit["ethics"]))
    return [
        ("permit", line + say("hosting", hosting=plain(permit["hosting"]))),
        ("controllers", shown(permit["controllers"])),
        ("ethics", ethics),
    ]


def _rules(permit: Json | None, say: Say) -> list[tuple[str, str]]:
    if permit is None:
        return []
    exception = plain(permit["opposition_exception"])
    day, least = permit["retention_until"], permit["small_cell"]
    return [
        ("opposition", say(f"opposition-{permit['opposition']}", exception=exception)),
        ("retention", say("retention-line", day=day, least=least)),
    ]


def _site(site: Json, say: Say) -> str:
    return say("site" if site["fingerprint"] else "site-unknown", **site)


def _variable(variable: Json, say: Say) -> str:
    name = plain(variable["name"])
    if variable["kind"] == "category":
        return say("categories", name=name, count=len(variable["values"]))
    if variable["kind"] == "image":
        colour = say("colour" if variable["channels"] > 1 else "grey")
        return say("image", height=variable["height"], width=variable["width"], colour=colour)
    unit = f" {plain(variable['unit'])}" if variable.get("unit") else ""
    low, high = variable["range"]
    return say("range", name=name, low=low, high=high, unit=unit)


def _outcome(outcome: Json, say: Say) -> str:
    columns = [plain(name) for name in outcome["columns"]]
    unit = f" {plain(outcome['unit'])}" if outcome.get("unit") else ""
    match outcome["kind"]:
        case "class":
            return say("outcome-class", name=columns[0], classes=", ".join(outcome["classes"]))
        case "number":
            low, high = outcome["range"]
            return say("range", name=columns[0], low=low, high=high, unit=unit)
        case "survival":
            time, event = columns
            count, end = outcome["intervals"], outcome["end"]
            return say("outcome-time", time=time, event=event, count=count, end=end, unit=unit)
    return columns[0]


def _model(model: Json, say: Say) -> str:
    hidden = say("hidden", layers=model["hidden"]) if model["hidden"] else ""
    if model["layers"]:
        hidden = say("layers", layers=plain(", ".join(model["layers"])))
    return say("model-line", name=model["name"], hidden=hidden, parameters=model["parameters"])


def _rounds(training: Json, say: Say) -> str:
    spare = say("spare", spare=training["spare_rounds"]) if training["spare_rounds"] else ""
    app = say("app", app=plain(training["app"])) if training["app"] else ""
    return say(
        "rounds-line",
        rounds=training["rounds"],
        spare=spare,
        steps=training["local_steps"],
        strategy=plain(training["strategy"]),
        app=app,
    )


def _algorithm(training: Json, say: Say) -> list[tuple[str, str]]:
    """Return how a site trains, how updates become one and what the coordinator does with it."""
    parts = training["algorithm"]
    keys = [f"{part}-{parts[part]}" for part in ("objective", "aggregator", "optimizer") if parts]
    return [("algorithm", "; ".join(say(key) for key in keys))] if keys else []


def _privacy(view: Json, say: Say) -> str:
    privacy = view["privacy"]
    if privacy["mechanism"] == "none":
        return say("no-privacy")
    return say(
        "epsilon",
        epsilon=privacy["epsilon_pld"],
        delta=privacy["delta"],
        unit=plain(view["unit"]).replace("a value of", say("value-of")),
        noise=privacy["noise_multiplier"],
    )


def _cost(cost: Json, say: Say) -> str:
    budget = say("budget", epsilon=cost["budget_epsilon"], delta=cost["budget_delta"])
    if cost["share"] is None:
        return say("cost-unknown", dataset=cost["dataset"], budget=budget)
    fits = "" if cost["share"] <= cost["free_share"] else say("does-not-fit")
    return say(
        "cost-line",
        dataset=cost["dataset"],
        share=cost["share"],
        budget=budget,
        free=cost["free_share"],
        fits=fits,
    )


def _leaves(view: Json, say: Say) -> str:
    leaves = view["leaves"]
    return say(
        "leaves-line",
        bytes=leaves["bytes_per_round"],
        tensors=len(leaves["tensors"]),
        stays=say("stays", names=plain(", ".join(leaves["local"]))) if leaves["local"] else "",
        noised="" if view["privacy"]["mechanism"] == "none" else say("noised"),
        rounded=say("rounded", encoding=encoding)
        if (encoding := leaves["encoding"]) != "float32"
        else "",
        metrics=_metrics(view, say),
    )


def _metrics(view: Json, say: Say) -> str:
    """Return what an app's other handlers tell, which may well be a count, and what nobody does."""
    names = view["leaves"]["metrics"]
    if not names:
        return say("no-metrics")
    key = "metrics-many" if len(names) > 1 else "metrics-one"
    calls = say("and").join(view["training"]["calls"][1:])
    return say(key, names=", ".join(names), calls=calls)


def _line(label: str, text: str) -> str:
    return f"{label:{_WIDTH - 1}} {text}"
