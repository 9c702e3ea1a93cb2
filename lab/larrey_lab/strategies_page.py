"""The page of strategies, made from the classes themselves: `larrey_lab.reference` writes it."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from larrey_protocol.errors import LarreyError
from larrey_strategies import local_tensors
from larrey_strategies.combinations import RULES, Setting, check
from larrey_strategies.ranges import Range
from larrey_strategies.registry import (
    AGGREGATORS,
    OBJECTIVES,
    OPTIMIZERS,
    PRESETS,
    AlgorithmWords,
    word_of,
)

__all__ = ["PAGE", "strategies_page"]

PAGE = "strategies.md"
_QUORUM = 100  # enough for every rule with the values below
_SETTINGS = {
    "per-site DP": Setting(_QUORUM, per_site_dp=True),
    "secure aggregation": Setting(_QUORUM, secure_aggregation=True),
    "claim to third parties": Setting(_QUORUM, third_party_claim=True),
    "a standard Flower app": Setting(_QUORUM, app=True),
}
_HEAD = """# Strategies

Generated from `larrey_strategies` by `python -m larrey_lab.reference`.

A study names one strategy in its table `[training]`; the paper's parameters stand in
`[training.parameters]`. A strategy is a local objective, an aggregator and a server optimizer; any
of the three may be another's: `objective`, `aggregator`, `optimizer`, and
`[training.aggregator_parameters]`. A parameter goes to every part that has it. Why it is so:
[ADR 0018](adr/0018-parts-of-an-algorithm.md).

```toml
[training]
strategy = "fedprox"
optimizer = "fedadam"
aggregator = "trimmed-mean"
parameters = {mu = 0.1, eta = 0.05}
aggregator_parameters = {beta = 0.2}
```
"""
_OWN = """
## A model of the site's own

MR-MTL and local tensors give each site a model of its own, made of noised steps that were paid for.
After a study has ended a hospital may also run `larrey-site study personalise`: fine-tuning
(`--lambda 0`) or Ditto (Li, Hu, Beirami, Smith 2021, equation 1, https://arxiv.org/abs/2012.04221),
in the trainer, from the final model that `larrey study model` saves. That model has no noise: it
and its scores stay in the site's state folder until the study is closed, and no message names them
(P19).
"""


def strategies_page() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD.rstrip(), "", "## Strategies", ""]
    lines += ["| strategy | objective | aggregator | optimizer |", "|---|---|---|---|"]
    for name, preset in PRESETS.items():
        parts = f"{preset.objective} | {preset.aggregator} | {preset.optimizer}"
        lines.append(f"| `{name}` | {parts} |")
    tables: list[tuple[str, Mapping[str, type]]] = [
        ("Local objectives", OBJECTIVES),
        ("Aggregators", AGGREGATORS),
        ("Server optimizers", OPTIMIZERS),
    ]
    told: dict[str, str] = {}  # where each paper is quoted
    for title, parts_of in tables:
        lines += ["", f"## {title}"]
        for name, kind in parts_of.items():
            lines += ["", f"### {name}", "", *_part(kind, told.get(kind.__module__, ""))]
            told.setdefault(kind.__module__, name)
    lines += ["", "## Local tensors", "", "`[training] local`, with any algorithm:", ""]
    lines += [*_quoted(local_tensors), "", *_OWN.strip().split("\n")]
    return "\n".join([*lines, "", *_combinations()]) + "\n"


def _part(kind: type, elsewhere: str) -> Iterator[str]:
    """Yield what a part is, its paper and departures unless told before, and its parameters."""
    yield from (_text(kind).split("\n\n")[0], "")
    if elsewhere:
        yield f"The paper is told under [{elsewhere}](#{elsewhere})."
    else:
        yield from _quoted(sys.modules[kind.__module__])
    if getattr(kind, "weighted", True) is False:
        yield from ("", "Every site counts the same, whatever its number of patients.")
    rows = list(_parameters(kind))
    if rows:
        yield from ("", "| parameter | range | default | what it is |", "|---|---|---|---|", *rows)


def _quoted(paper: ModuleType) -> Iterator[str]:
    yield from (f"> {line}".rstrip() for line in _text(paper).split("\n"))


def _text(documented: type | ModuleType) -> str:
    return inspect.cleandoc(documented.__doc__ or "").replace("``", "`")


def _parameters(kind: type) -> Iterator[str]:
    hints = get_type_hints(kind, include_extras=True)
    whole: Any = kind  # Any: a Protocol cannot say that its classes are dataclasses
    for field in dataclasses.fields(whole):
        hint = hints[field.name]
        notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        allowed = next((str(note) for note in notes if isinstance(note, Range)), "")
        number = "whole, " if get_args(hint)[:1] == (int,) else ""
        what = next((note for note in notes if isinstance(note, str)), "")
        default = "none" if field.default is dataclasses.MISSING else f"{field.default:g}"
        yield f"| `{word_of(field.name)}` | {number}{allowed} | {default} | {what} |"


def _combinations() -> Iterator[str]:
    """Yield the table of what combines with a study, then every refusal with its reason."""
    yield from ("## What combines", "")
    yield "A study that does not fit is refused before anybody signs, with one of these codes."
    yield ""
    yield f"| strategy | {' | '.join(_SETTINGS)} |"
    yield "|---" * (len(_SETTINGS) + 1) + "|"
    for name in PRESETS:
        verdicts = [_verdict(_words(name), setting) for setting in _SETTINGS.values()]
        yield f"| `{name}` | {' | '.join(verdicts)} |"
    yield from ("", "Objective and optimizer, under the mean and under any other aggregator:", "")
    yield from ("| objective | optimizer | mean | any other |", "|---|---|---|---|")
    for objective, optimizer in itertools.product(OBJECTIVES, OPTIMIZERS):
        mean = _verdict(_of(objective, "mean", optimizer))
        (other,) = {_verdict(_of(objective, a, optimizer)) for a in AGGREGATORS if a != "mean"}
        yield f"| {objective} | {optimizer} | {mean} | {other} |"
    yield ""
    yield "SCAFFOLD, FedDyn and MR-MTL come whole: one half of any is `parts-mismatch`."
    yield from ("", "| code | why | what to do |", "|---|---|---|")
    for rule in RULES:
        yield f"| `{rule.code}` | {rule.reason} | {rule.next_step} |"


def _verdict(words: AlgorithmWords, setting: Setting | None = None) -> str:
    try:
        refusal = check(words, setting or Setting(_QUORUM))
    except LarreyError as error:
        return f"`{error.code}`"
    return f"`{refusal.code}`" if refusal else "yes"


def _words(name: str) -> AlgorithmWords:
    preset = PRESETS[name]
    return _of(preset.objective, preset.aggregator, preset.optimizer)


def _of(objective: str, aggregator: str, optimizer: str) -> AlgorithmWords:
    """Return words with some valid value for every parameter that has no default."""
    common = _example(OBJECTIVES[objective]) | _example(OPTIMIZERS[optimizer])
    own = _example(AGGREGATORS[aggregator])
    return AlgorithmWords("fedavg", common, objective, aggregator, optimizer, own)


def _example(kind: type) -> dict[str, float]:
    whole: Any = kind  # Any: as above
    needed = [f for f in dataclasses.fields(whole) if f.default is dataclasses.MISSING]
    hints = get_type_hints(kind)
    return {word_of(field.name): 2 if hints[field.name] is int else 0.25 for field in needed}
