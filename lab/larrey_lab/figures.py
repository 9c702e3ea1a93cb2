"""The report's plots: matplotlib, as SVG text that stands inside the page.

One colour means one thing everywhere: teal is federation with DP, grey without, sand a hospital
alone. Shapes repeat what colours say.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from larrey_lab.evaluation import Interval
from larrey_lab.facts import DemoFacts, HospitalFacts, RoundFacts
from larrey_lab.utility import CENTRAL, PRIVATE, WITHOUT, Utility, alone_at

__all__ = ["auc_figure", "curve_figure", "epsilon_figure", "rounds_figure"]

INK, MUTED, RULE = "#1f2933", "#616e7c", "#dde3ea"
TEAL, GREY, SAND = "#0f766e", "#7b8794", "#b7791f"
_STYLE: Any = {  # Any: matplotlib types its settings by literal names
    "svg.fonttype": "none",
    "svg.hashsalt": "larrey",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
}
_PAGE_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


@rc_context(_STYLE)
def auc_figure(utility: Utility, hospitals: Sequence[HospitalFacts]) -> str:
    """Return one dot with its 95 % interval for each way to train."""
    alone = [(alone_at(h.name), f"{h.title} alone", SAND, "D") for h in hospitals]
    rows = [
        (CENTRAL, "all rows in one place", GREY, "s"),
        (WITHOUT, "federated, without DP", GREY, "o"),
        (PRIVATE, "federated, with DP", TEAL, "o"),
        *alone,
    ]
    figure, axes = _canvas(6.9, 0.36 * len(rows) + 0.75)
    lows = [_dot(axes, i, utility.arm(row[0]).pooled, row[2:]) for i, row in enumerate(rows)]
    axes.set_yticks(range(len(rows)), [label for _, label, _, _ in rows])
    axes.get_yticklabels()[2].set_fontweight("bold")
    axes.invert_yaxis()
    axes.set_xlim(max(0.0, min(lows) - 0.02), 1.0)
    axes.axhline(2.5, color=RULE, linewidth=0.8)
    axes.grid(axis="x")
    axes.set_xlabel("AUC")
    return _svg(figure, "auc")


@rc_context(_STYLE)
def curve_figure(facts: DemoFacts) -> str:
    """Return AUC after each round: mean over splits with interval, and this run's own points."""
    figure, axes = _canvas(6.9, 2.7)
    numbers = range(1, len(facts.utility.curve) + 1)
    private, plain = facts.utility.curve, facts.utility.curve_without
    axes.fill_between(
        numbers, [p.low for p in private], [p.high for p in private], color=TEAL, alpha=0.13, lw=0
    )
    axes.plot(numbers, [p.value for p in plain], color=GREY, ls=(0, (4, 2)), label="without DP")
    axes.plot(numbers, [p.value for p in private], color=TEAL, lw=2, label="with DP")
    _run_points(axes, facts.rounds)
    axes.set_xticks(numbers)
    axes.set_xlabel("round")
    axes.set_ylabel("AUC")
    axes.grid(axis="y")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return _svg(figure, "curve")


@rc_context(_STYLE)
def epsilon_figure(facts: DemoFacts) -> str:
    """Return each hospital's epsilon of this study, round after round, below what was approved."""
    figure, axes = _canvas(6.9, 2.3)
    groups: dict[tuple[float, ...], list[str]] = {}
    for hospital in facts.hospitals:
        groups.setdefault(hospital.epsilon_by_round, []).append(hospital.title)
    last = max(len(steps) for steps in groups)
    for shade, (steps, titles) in enumerate(groups.items()):
        rounds = [*range(len(steps) + 1), last + 0.4]
        style = "-" if shade == 0 else (0, (2, 1 + shade))
        label = "all hospitals" if len(groups) == 1 else ", ".join(titles)
        axes.step(
            rounds,
            [0.0, *steps, *steps[-1:]],
            where="post",
            color=TEAL,
            ls=style,
            lw=2,
            label=label,
        )
    axes.axhline(facts.epsilon, color=SAND, lw=1.2, ls=(0, (4, 2)))
    axes.text(0.08, facts.epsilon * 1.03, f"approved: {facts.epsilon:g}", color=SAND, fontsize=9)
    axes.set_xlim(0, last + 0.4)
    axes.set_ylim(0, facts.epsilon * 1.2)
    axes.set_xticks(range(last + 1))
    axes.set_xlabel("rounds done")
    axes.set_ylabel("epsilon spent")
    axes.grid(axis="y")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return _svg(figure, "epsilon")


@rc_context(_STYLE)
def rounds_figure(by_round: Sequence[float], measure: str) -> str:
    """Return one training's score after each round; ``measure`` is its name."""
    figure, axes = _canvas(6.9, 2.7)
    axes.plot(range(1, len(by_round) + 1), by_round, color=TEAL, lw=2, marker="o", ms=3)
    axes.set_xlabel("round")
    axes.set_ylabel(measure)
    axes.grid(axis="y")
    return _svg(figure, "rounds")


def _dot(axes: Any, place: int, interval: Interval, look: Sequence[str]) -> float:
    """Draw one estimate; return its lower end. ``axes`` is Any: matplotlib has no stubs."""
    color, marker = look
    axes.plot([interval.low, interval.high], [place, place], color=color, lw=2.2, alpha=0.45)
    axes.plot(interval.value, place, marker=marker, color=color, ms=6.5)
    axes.text(
        1.005,
        place,
        f"{interval.value:.3f}",
        va="center_baseline",
        transform=axes.get_yaxis_transform(),
    )
    return interval.low


def _run_points(axes: Any, rounds: Sequence[RoundFacts]) -> None:  # Any: no stubs
    axes.plot(
        [r.number for r in rounds],
        [r.auc for r in rounds],
        ls="",
        marker="o",
        ms=5,
        markerfacecolor="white",
        color=TEAL,
        label="this run",
    )


def _canvas(width: float, height: float) -> tuple[Any, Any]:  # Any: matplotlib has no stubs
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any, name: str) -> str:  # Any: matplotlib has no stubs
    """Return the figure as SVG whose ids begin with ``name`` and whose text has the page's font."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"(font: [^;\"]*?)'DejaVu Sans'[^;\"]*", rf"\g<1>{_PAGE_FONT}", text)
