"""The report of a demonstration: one HTML page that needs nothing else, now or in ten years.

Styles and plots stand inside the page, there is no script, and its content policy forbids every
request. Words first, then figures, then what the figures do not say. Input: `DemoFacts` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from larrey_lab.evaluation import MIN_CLASS, Interval
from larrey_lab.facts import DemoFacts, HospitalFacts, RoundFacts
from larrey_lab.figures import auc_figure, curve_figure, epsilon_figure
from larrey_lab.utility import CENTRAL, PRIVATE, WITHOUT, Arm, alone_at

__all__ = ["render"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_BADGES = {"COMPLETE": "", "PARTIAL": "warn", "FAILED": "bad"}
_LIMITS = """
This is a demonstration, not a medical device. The patients were examined in the 1980s; nobody
should be treated by this model.

Epsilon bounds what the updates and the model reveal about one patient's presence and values. It
does not cover timing, who took part in a round, or the public patient numbers, and it does not
hide what is true of patients in general.

The coordinator sees each hospital's noised update. The guarantee holds against it, as against
anyone; updates are not also encrypted towards it.

The example's learning rate, clipping and number of rounds were chosen on these public files, which
flatters all rows of the table a little. On hospital data such a search would itself cost epsilon.

HELD_OUT held-out patients leave wide intervals; differences smaller than them should not be read
as findings.

All programs ran on one machine, over the same encrypted channels as between hospitals but without
their distances, firewalls and loads.
"""
_DOTS = (
    "Mean AUC on the held-out patients of all hospitals; bars are 95 % intervals. Teal: federation"
    " with DP. Sand: one hospital alone with the same DP. Grey: without DP."
)
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def render(facts: DemoFacts) -> str:
    """Return the whole page."""
    style = files("larrey_lab").joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        _header,
        _what_happened,
        _table,
        _learning,
        _privacy,
        _participation,
        _refusal,
        _limits,
        _proof,
    )
    body = "\n".join(section(facts) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(facts.title)} · Larrey</title><style>{style}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(facts: DemoFacts) -> str:
    badge = f'<span class="badge {_BADGES.get(facts.outcome, "")}">{escape(facts.outcome)}</span>'
    return (
        f'<header><p class="eyebrow">Larrey · study {escape(facts.study)}, version'
        f" {facts.version}</p><h1>{escape(facts.title)}</h1>"
        f'<p class="lead">{escape(facts.question)}</p>'
        f'<p class="meta">{badge} &ensp;{escape(facts.finished_at)} &ensp;approved document'
        f" <code>{escape(_short(facts.digest))}</code></p></header>"
    )


def _what_happened(facts: DemoFacts) -> str:
    hospitals = _word(len(facts.hospitals))
    return f"""<h2>What happened</h2>
<p>{hospitals.capitalize()} hospitals trained one model together, and no patient's row left any of
them. In each of {len(facts.rounds)} rounds a hospital received the shared model, improved it on its
own patients, limited how much any one patient could move it, added noise, and sent only that
change, checked and signed. The coordinator averaged the changes; it never saw a patient.</p>
<div class="tiles">{_tiles(facts)}</div>
<p class="note">First round after {facts.seconds_to_first_round:.0f} s, end after
{facts.seconds_total:.0f} s. AUC is the chance that the model ranks a patient with the disease above
one without: 0.5 is a coin, 1 is perfect. The last two figures and the table are means over
{facts.utility.splits} splits.</p>"""


def _tiles(facts: DemoFacts) -> str:
    run, gap, gain = facts.run, facts.utility.dp_gap, facts.utility.gain
    tiles = (
        (
            f"{run.value:.3f}",
            f"AUC of this run's model, {facts.run_patients} held-out patients, {_range(run)}",
        ),
        (f"{facts.epsilon:g}", f"epsilon per patient at most, at delta {_small(facts.delta)}"),
        (
            _signed(-gap.value),
            f"change of AUC by differential privacy, {_signed(-gap.high)} to {_signed(-gap.low)}",
        ),
        (
            _signed(gain.value),
            f"gain of AUC over a hospital alone at the same epsilon, {_range(gain)}",
        ),
    )
    return "".join(
        f'<div class="tile"><b>{escape(number)}</b><span>{escape(words)}</span></div>'
        for number, words in tiles
    )


def _table(facts: DemoFacts) -> str:
    utility = facts.utility
    rows = [(PRIVATE, "Federated, with DP", "main"), (WITHOUT, "Federated, without DP", "")]
    rows += [(alone_at(h.name), f"{h.title} alone", "") for h in facts.hospitals]
    rows.append((CENTRAL, "All rows in one place", ""))
    heads = "".join(f"<th>{escape(h.title)}</th>" for h in facts.hospitals)
    lines = "".join(
        _arm(utility.arm(name), label, kind, facts.hospitals) for name, label, kind in rows
    )
    return f"""<h2>How good are the models?</h2>
<p>Each row is one way to train, judged on patients it never saw: first all hospitals' together,
then each hospital's own. A hospital alone used the same noise, and so spent the same epsilon, as in
the federation; the shared model is a mean of changes, whose independent noises partly cancel.</p>
<div class="wide"><table><thead><tr><th>trained</th><th>all held-out</th>{heads}</tr></thead>
<tbody>{lines}</tbody></table></div>
<p class="note">Mean AUC and 95 % interval over {utility.splits} random splits with
{utility.held_out:.0%} of the patients held out ({utility.patients} in each); intervals allow for
the overlap of splits. “Too few”: fewer than {MIN_CLASS} held-out patients of a class. The demo
could compute this table because all four files are public; hospitals' held-out rows stay with
them.</p>
{_figure(auc_figure(utility, facts.hospitals), _DOTS)}"""


def _learning(facts: DemoFacts) -> str:
    caption = (
        "AUC on all held-out patients after each round: mean over the splits with its 95 %"
        " interval (band), without DP (dashed), and the models of this very run (circles)."
    )
    return f"<h2>How the model learned</h2>{_figure(curve_figure(facts), caption)}"


def _privacy(facts: DemoFacts) -> str:
    lines = "".join(_spending(hospital) for hospital in facts.hospitals)
    caption = "Epsilon that this study has spent at each hospital, below what was approved."
    return f"""<h2>What privacy was spent</h2>
<div class="statement">Unit: {escape(facts.unit)}. Neighbours: {escape(facts.relation)}.
Approved: epsilon {facts.epsilon:g} at delta {_small(facts.delta)}, for all rounds and spare rounds.
Accountant: {escape(facts.accountant)}. Mechanism: {escape(facts.mechanism)}.</div>
<table class="left"><thead><tr><th>hospital</th><th>patients</th><th>epsilon of this study</th>
<th>budget of the data set, all studies</th></tr></thead><tbody>{lines}</tbody></table>
<p class="note">Patients: the public bound in the study. The bar is the share of the budget used,
as the ledger's own filter counts it; hatched is set aside for spare rounds. Each hospital's ledger
refuses what does not fit, whoever asks. A patient known to several hospitals is covered by the sum
of their epsilons.</p>
{_figure(epsilon_figure(facts), caption)}"""


def _participation(facts: DemoFacts) -> str:
    heads = "".join(f"<th>{round_.number}</th>" for round_ in facts.rounds)
    lines = "".join(_attendance(hospital, facts.rounds) for hospital in facts.hospitals)
    return f"""<h2>Who took part</h2>
<div class="wide"><table class="matrix"><thead><tr><th>round</th>{heads}</tr></thead>
<tbody>{lines}</tbody></table></div>
<p class="note">✓ contributed. Anything else is named by its code. A missing hospital delays a
round by at most its deadline; the certificate in this folder holds the same matrix, signed.</p>"""


def _refusal(facts: DemoFacts) -> str:
    refusal = facts.refusal
    spent = f"epsilon {refusal.epsilon_spent:g}" if refusal.epsilon_spent else "nothing"
    site = escape(_title(facts, refusal.site))
    return f"""<h2>A study that was refused</h2>
<div class="refused"><p>To show who decides, a second study, <b>{escape(refusal.study)}</b>, asked
for {escape(refusal.asked)}; {site} allows {escape(refusal.allowed)}. The hospital's own program
refused it with the code <code>{escape(refusal.code)}</code>. Spent: {spent}.</p></div>"""


def _limits(facts: DemoFacts) -> str:
    held_out = str(facts.utility.patients)
    points = (
        " ".join(text.split()) for text in _LIMITS.replace("HELD_OUT", held_out).split("\n\n")
    )
    return f"<h2>What this does not say</h2><ul>{_items(escape(point) for point in points)}</ul>"


def _proof(facts: DemoFacts) -> str:
    checks = "".join(_check(hospital) for hospital in facts.hospitals)
    rows = "".join(
        f"<tr><td><code>{escape(f.path)}</code></td><td>{escape(f.what)}</td>"
        f'<td class="digest"><code>{escape(_short(f.digest))}</code></td></tr>'
        for f in facts.files
    )
    return f"""<h2>What can be checked</h2>
<table class="left"><thead><tr><th>hospital</th><th>ledger</th><th>audit trail</th><th>hash
chains</th></tr></thead><tbody>{checks}</tbody></table>
<table class="left"><thead><tr><th>file in this folder</th><th>what it is</th><th>sha256, first
digits</th></tr></thead><tbody>{rows}</tbody></table>
<footer>Made by <code>larrey demo</code>. Study document
<code>{escape(facts.digest)}</code>.</footer>"""


def _arm(arm: Arm, label: str, kind: str, hospitals: Sequence[HospitalFacts]) -> str:
    cells = "".join(_cell(arm.by_site.get(hospital.name)) for hospital in hospitals)
    return f'<tr class="{kind}"><th>{escape(label)}</th>{_cell(arm.pooled)}{cells}</tr>'


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return '<td class="few">too few</td>'
    return f"<td>{interval.value:.3f}<small>{_range(interval)}</small></td>"


def _spending(hospital: HospitalFacts) -> str:
    spent = hospital.epsilon_by_round[-1] if hospital.epsilon_by_round else 0.0
    used, held = 100 * hospital.used_share, 100 * hospital.held_share
    return (
        f"<tr><td>{escape(hospital.title)}</td><td>{hospital.patients}</td><td>{spent:.2f}</td>"
        f'<td><div class="bar"><i class="held" style="width:{used + held:.1f}%"></i>'
        f'<i style="width:{used:.1f}%"></i></div>{used:.1f} % used, {held:.1f} % set aside of'
        f" epsilon {hospital.budget:g}</td></tr>"
    )


def _attendance(hospital: HospitalFacts, rounds: Sequence[RoundFacts]) -> str:
    cells = "".join(_mark(round_.sites, hospital.name) for round_ in rounds)
    return f"<tr><th>{escape(hospital.title)}</th>{cells}</tr>"


def _mark(sites: Mapping[str, str], name: str) -> str:
    what = sites.get(name, "absent")
    if what == "contributed":
        return '<td><span class="mark" title="contributed">✓</span></td>'
    return f'<td><span class="mark off">{escape(what)}</span></td>'


def _check(hospital: HospitalFacts) -> str:
    kind, words = ("", "intact") if hospital.is_verified else ("bad", "BROKEN")
    return (
        f"<tr><td>{escape(hospital.title)}</td><td>{hospital.ledger_entries} entries</td>"
        f"<td>{hospital.audit_records} records</td>"
        f'<td><span class="badge {kind}">{words}</span></td></tr>'
    )


def _figure(svg: str, caption: str) -> str:
    words = escape(caption)
    labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{words}" ', 1)
    return f"<figure>{labelled}<figcaption>{words}</figcaption></figure>"


def _items(points: Iterable[str]) -> str:
    return "".join(f"<li>{point}</li>" for point in points)


def _range(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _small(value: float) -> str:
    """Return e.g. ``1e-5``."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _title(facts: DemoFacts, site: str) -> str:
    return next((h.title for h in facts.hospitals if h.name == site), site)


def _word(count: int) -> str:
    return _WORDS[count] if count < len(_WORDS) else str(count)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
