"""What a simulation leaves: one JSON document, and one HTML page that needs nothing else.

The page has the style and the content policy of the demonstration's report. It says first what it
is not: no hospital took part, no ledger counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from typing import Any

from larrey_lab.evaluation import Interval
from larrey_lab.figures import rounds_figure

__all__ = ["SimulationFacts", "render"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class SimulationFacts:
    """Everything that the page says.

    Attributes:
        digest: of the study as it was simulated, with the simulated sites.
        engine, partition: as asked; seed: of the split and of who takes part.
        present: share of the sites in a round.
        patients: of each site's training rows, in roster order.
        held_out_patients: of all sites together.
        task: the kind of the contract's label.
        measure, measure_unit: name and unit of the task's headline score.
        score_by_round, score, score_by_site, own_score_by_site, other_scores: as of
            `larrey_lab.simulation.run.Outcome`.
        epsilon: what the rounds that were simulated would cost a patient at a hospital, by PLD at
            ``delta``; None without differential privacy.
        unit: whose privacy that is.
    """

    study: str
    version: int
    title: str
    digest: str
    strategy: str
    engine: str
    partition: str
    seed: int
    present: float
    rounds: int
    sites: tuple[str, ...]
    patients: tuple[int, ...]
    held_out_patients: int
    task: str
    measure: str
    measure_unit: str
    score_by_round: tuple[float, ...]
    score: Interval
    score_by_site: Mapping[str, float | None]
    own_score_by_site: Mapping[str, float | None]
    other_scores: Mapping[str, float]
    epsilon: float | None
    delta: float | None
    unit: str
    seconds: float

    def as_json(self) -> dict[str, Any]:  # Any: JSON values are recursive
        """Return the document as JSON values."""
        return asdict(self) | {
            "score_by_site": dict(self.score_by_site),
            "own_score_by_site": dict(self.own_score_by_site),
            "other_scores": dict(self.other_scores),
        }

    @property
    def measure_words(self) -> str:
        """Return e.g. "AUC", or "MAE in mmol/L"."""
        return f"{self.measure} in {self.measure_unit}" if self.measure_unit else self.measure


def render(facts: SimulationFacts) -> str:
    """Return the whole page."""
    style = files("larrey_lab").joinpath("report.css").read_text(encoding="utf-8")
    body = "\n".join(
        (_header(facts), _what(facts), _learning(facts), _sites(facts), _limits(facts))
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(facts.title)} · simulated · Larrey</title><style>{style}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(facts: SimulationFacts) -> str:
    return (
        '<header><p class="eyebrow">Larrey · simulation of study'
        f" {escape(facts.study)}, version {facts.version}</p><h1>{escape(facts.title)}</h1>"
        '<p class="meta"><span class="badge warn">SIMULATED</span> &ensp;no hospital took part'
        f" &ensp;document <code>{escape(facts.digest[7:19])}</code></p></header>"
    )


def _what(facts: SimulationFacts) -> str:
    final, words_of = facts.score, escape(facts.measure_words)
    others = ", ".join(f"{name} {value:.3f}" for name, value in facts.other_scores.items())
    cost = "none" if facts.epsilon is None else f"{facts.epsilon:.3g}"
    words = "no differential privacy" if facts.delta is None else f"delta {facts.delta:g}"
    tiles = (
        (f"{final.value:.3f}", f"{words_of} at the end, {final.low:.3f} to {final.high:.3f}"),
        (str(len(facts.sites)), f"sites, {escape(facts.partition)}"),
        (str(facts.rounds), f"rounds of {escape(facts.strategy)}, {facts.seconds:.1f} s"),
        (cost, f"epsilon that these rounds would cost a {escape(facts.unit)}, {words}"),
    )
    cells = "".join(f'<div class="tile"><b>{a}</b><span>{b}</span></div>' for a, b in tiles)
    return f"""<h2>What was simulated</h2>
<p>All rounds of the study ran on one machine (engine {escape(facts.engine)}) with the hospital's
own training and the coordinator's own aggregation, without servers, gates and ledgers. In each
round {facts.present:.0%} of the sites took part. {sum(facts.patients)} patients trained,
{facts.held_out_patients} were held out.</p>
<div class="tiles">{cells}</div>
<p class="note">{words_of} on the held-out patients of all sites together, interval over patients
(bootstrap). Further scores there: {escape(others)}. Seed of splits: {facts.seed}; noise and
sampling take none.</p>"""


def _learning(facts: SimulationFacts) -> str:
    measure = facts.measure_words
    words = escape(f"{measure} on all held-out patients after each round.")
    figure = rounds_figure(facts.score_by_round, measure).replace(
        "<svg ", f'<svg role="img" aria-label="{words}" ', 1
    )
    return (
        f"<h2>How the model learned</h2><figure>{figure}<figcaption>{words}</figcaption></figure>"
    )


def _sites(facts: SimulationFacts) -> str:
    owns = facts.own_score_by_site
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{patients}</td>{_cell(facts.score_by_site, name)}"
        f"{_cell(owns, name) if owns else ''}</tr>"
        for name, patients in zip(facts.sites, facts.patients, strict=True)
    )
    measure = escape(facts.measure_words)
    own = f"<th>{measure} of its own model there</th>" if owns else ""
    return f"""<h2>Sites</h2>
<div class="wide"><table><thead><tr><th>site</th><th>training patients</th><th>{measure} on its own
held-out patients</th>{own}</tr></thead><tbody>{lines}</tbody></table></div>"""


def _cell(by_site: Mapping[str, float | None], name: str) -> str:
    if name not in by_site:
        return "<td>–</td>"
    value = by_site[name]
    return '<td class="few">too few</td>' if value is None else f"<td>{value:.3f}</td>"


def _limits(facts: SimulationFacts) -> str:
    return f"""<h2>What this does not say</h2><ul>
<li>Simulate with public or synthetic data only. Settings that were tried on patients' data cost
their epsilon, and nothing here counts it.</li>
<li>Sites of a partition are dealt from one data set; real hospitals differ in more than the
share of their outcomes.</li>
<li>No deadline, lost connection or refusal happened; times say nothing of a real federation.</li>
</ul><footer>Made by <code>larrey study simulate</code>. Study document
<code>{escape(facts.digest)}</code>.</footer>"""
