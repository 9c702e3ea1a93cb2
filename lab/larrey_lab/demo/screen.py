"""What a person sees while the demo runs: steps, a live table, a closing summary. On stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from larrey_lab.evaluation import Interval
from larrey_lab.facts import DemoFacts
from larrey_lab.federation.processes import typed
from larrey_lab.utility import CENTRAL, PRIVATE, WITHOUT, alone_at

__all__ = ["Screen"]

Facts = Mapping[str, Any]  # Any: JSON of the coordinator's events

_STATES = {
    "working": "training",
    "checking": "update being checked",
    "answered": "update accepted",
    "away": "not connected",
    "idle": "done",
}


class Screen:
    """Words and tables for a person; the seconds count from its making."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds since the command began."""
        return time.monotonic() - self._start

    def step(self, words: str) -> None:
        """Say what happens now."""
        self._console.print(f"[dim]{self.seconds:5.1f} s[/dim]  {escape(words)}", soft_wrap=True)

    def detail(self, words: str) -> None:
        """Say something about the step."""
        self._console.print(f"         [dim]{escape(words)}[/dim]", soft_wrap=True)

    @contextmanager
    def watching(self, budgets: Mapping[str, float]) -> Iterator[ProgressTable]:
        """Show a table that follows the coordinator's events."""
        progress = ProgressTable(budgets)
        with Live(progress, console=self._console, refresh_per_second=10):
            yield progress
        self._console.print()

    def counting(self, total: int, words: str) -> _Counter:
        """Return a callable that shows how many of ``total`` are done."""
        return _Counter(self._console, total, words)

    def summary(self, facts: DemoFacts, folder: str) -> None:
        """Show the table, the proofs and where to go next."""
        self._console.print()
        self._console.print(_utility_table(facts))
        gain, gap = facts.utility.gain, facts.utility.dp_gap
        self._console.print(
            f"Federation is worth [bold]{gain.value:+.3f}[/bold] AUC over a hospital alone at the"
            f" same epsilon [{gain.low:+.3f}, {gain.high:+.3f}];"
            f" privacy costs [bold]{gap.value:.3f}[/bold] [{gap.low:.3f}, {gap.high:.3f}]."
        )
        self._console.print(
            "[dim]The demo owns all four public files, so it computed this table itself from "
            "exported models and held-out rows; no hospital sent a score.[/dim]\n"
        )
        for hospital in facts.hospitals:
            mark = "[green]intact[/green]" if hospital.is_verified else "[red]BROKEN[/red]"
            self._console.print(
                f"  {hospital.title:<14} epsilon {hospital.epsilon_by_round[-1]:.2f},"
                f" {hospital.used_share:.0%} of its budget; ledger ({hospital.ledger_entries}) and"
                f" audit ({hospital.audit_records}) {mark}"
            )
        self._console.print(f"\nFiles in [bold]{folder}/[/bold]")
        for file in facts.files:
            self._console.print(f"  {file.path:<20} {file.what}")
        self._console.print(
            f"\nNext: open {folder}/report.html; read examples/heart/study.toml, change a number"
            f" and run `{typed('larrey')} study check` on it; or `{typed('larrey')} demo --keep`"
            " for a running sandbox."
        )


class ProgressTable:
    """The live table: a row a site, a title with round and time left."""

    def __init__(self, budgets: Mapping[str, float]) -> None:
        self._budgets = budgets
        self._status: Facts = {}

    def show(self, status: Facts) -> None:
        """Take the coordinator's newest facts."""
        self._status = status

    def __rich__(self) -> Table:
        """Return the table as of now."""
        status = self._status
        left = status.get("deadline_s")
        rounds = f"round {status.get('round') or 1} of {status.get('rounds', '?')}"
        tail = f", {left:.0f} s left to answer" if left is not None else ""
        table = Table(title=rounds + tail, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("hospital", "state", "epsilon of this study", "budget of its dataset"):
            table.add_column(heading)
        for row in status.get("sites", ()):
            epsilon = row.get("epsilon")
            spent = "–" if epsilon is None else f"{epsilon:.2f}"
            state = _STATES.get(row["state"], row["state"])
            if row.get("code"):
                state = Text(f"{state}: {row['code']}", style="yellow")
            table.add_row(row["site"], state, spent, f"{self._budgets.get(row['site'], 0):g}")
        return table


class _Counter:
    """Shows progress of the comparison on one line."""

    def __init__(self, console: Console, total: int, words: str) -> None:
        self._live = Live("", console=console, refresh_per_second=10, transient=True)
        self._total, self._words = total, words

    def __enter__(self) -> _Counter:
        self._live.start()
        self(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, done: int) -> None:
        """Show that ``done`` are done."""
        self._live.update(Text(f"         {self._words}: {done} of {self._total}", style="dim"))


def _utility_table(facts: DemoFacts) -> Table:
    utility = facts.utility
    table = Table(
        title=f"AUC with 95 % interval over {utility.splits} splits. Headline: pooled, the"
        f" {utility.patients} held-out\npatients of all hospitals. DP rows: ε"
        f" {facts.epsilon:g} per patient at δ {facts.delta:g}, PLD.",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("trained on", no_wrap=True)
    table.add_column("pooled", style="bold", no_wrap=True)
    for hospital in facts.hospitals:
        table.add_column(hospital.title.removesuffix(" Long Beach"), no_wrap=True)
    rows = [(PRIVATE, "all four, DP"), (WITHOUT, "all four, no DP")]
    rows += [
        (alone_at(h.name), f"{h.title.removesuffix(' Long Beach')} only, DP")
        for h in facts.hospitals
    ]
    rows += [(CENTRAL, "one place, no DP")]
    for name, words in rows:
        arm = utility.arm(name)
        cells = [arm.by_site[hospital.name] for hospital in facts.hospitals]
        table.add_row(words, *map(_cell, [arm.pooled, *cells]))
    return table


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "too few"
    return f"{interval.value:.3f}\n[dim]{interval.low:.2f}–{interval.high:.2f}[/dim]"
