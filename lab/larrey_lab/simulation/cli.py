"""The command `larrey study simulate`. Words for people on stderr, ``--json`` on stdout."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from larrey_lab.simulation.data import Simulated
    from larrey_lab.simulation.page import SimulationFacts
    from larrey_lab.simulation.run import Outcome

__all__ = ["Bar", "command"]

_EXAMPLES = """examples:
  larrey study simulate examples/heart/study.toml --data heart
  larrey study simulate study.toml --data tables/
  larrey study simulate study.toml --data table.csv --sites 20 --partition dirichlet:0.3
  larrey study simulate study.toml --data table.csv --sites 1000 --partition iid --engine ray

Runs every round on this machine, without servers: the same study file, the same training, the same
aggregation. For public or synthetic data: settings tried on patients' data cost their epsilon, and
nothing counts it here. Writes simulation.json and report.html into --out.
"""
_WARNING = "public or synthetic data only: settings tried on patients' data cost their epsilon\n"
_WIDTH = 30


def command(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``simulate`` to the verbs of `larrey study`."""
    parser = verbs.add_parser(
        "simulate",
        help="run a study on this machine, on public or synthetic data",
        description="Run a study's rounds on this machine, on public or synthetic data.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", type=Path, help="study.toml; its contract lies beside it")
    add(
        "--data",
        required=True,
        help="folder with a table a site (<site>.csv or .parquet), one table, or heart, rand",
    )
    add("--engine", choices=("local", "ray"), default="local", help="one process, or Ray")
    add(
        "--sites", type=int, help="deal the patients to N sites (default: the study's)", metavar="N"
    )
    add(
        "--partition",
        help="natural, iid or dirichlet:A (label skew); natural where --sites is not given and"
        " there is a table a site, else iid",
    )
    add("--held-out", type=float, default=0.3, help="share of patients (default: 0.3)")
    add("--present", type=float, default=1.0, help="share of sites in a round (default: 1)")
    add("--seed", type=int, default=0, help="of split, partition and presence (default: 0)")
    add("--out", type=Path, default=Path("runs/simulation"), help="folder of the report")
    add("--json", action="store_true", help="print the facts as JSON on stdout")
    parser.set_defaults(run=_run)


class Bar:
    """How far the simulation is: one line that is written over; nothing unless on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._shown = stream, -1

    def __call__(self, done: int, of_all: int) -> None:
        """Show ``done`` of ``of_all`` answers, at most a hundred times."""
        percent = 100 * done // of_all
        if percent == self._shown or not self._stream.isatty():
            return
        self._shown = percent
        bar = ("█" * (percent * _WIDTH // 100)).ljust(_WIDTH, "░")
        end = "\n" if done == of_all else ""
        self._stream.write(f"\r{bar} {percent:3d} %, {done} of {of_all} answers{end}")
        self._stream.flush()


def _run(options: argparse.Namespace) -> int:
    from larrey_lab.simulation.data import read_sites, simulated
    from larrey_lab.simulation.page import render
    from larrey_lab.simulation.partition import parse_partition
    from larrey_lab.simulation.ray import require_ray
    from larrey_lab.simulation.rounds import Share, plan_of
    from larrey_lab.simulation.run import simulate
    from larrey_protocol.study import load_study

    study, present = load_study(options.file), Share(options.present, options.seed)
    plan_of(study)  # what it names exists, before anything is read
    partition = parse_partition(options.partition) if options.partition else None
    if options.engine == "ray":
        require_ray()
    sys.stderr.write(_WARNING)
    cohorts = read_sites(study, options.data)
    is_natural = options.sites is None and len(cohorts) == len(study.file.sites)
    partition = partition or parse_partition("natural" if is_natural else "iid")
    what = simulated(
        study,
        cohorts,
        partition,
        sites=options.sites,
        held_out=options.held_out,
        seed=options.seed,
    )
    outcome = simulate(what, engine=options.engine, present=present, progress=Bar(sys.stderr))
    facts = _facts(what, outcome, options, str(partition))
    text = json.dumps(facts.as_json(), allow_nan=False)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "simulation.json").write_text(text + "\n", encoding="utf-8")
    (options.out / "report.html").write_text(render(facts), encoding="utf-8")
    if options.json:
        sys.stdout.write(text + "\n")
    _say(facts, options.out)
    return 0


def _say(facts: SimulationFacts, out: Path) -> None:
    cost = "no differential privacy"
    if facts.epsilon is not None:
        cost = f"would cost epsilon {facts.epsilon:.3g} at delta {facts.delta:g}"
    sys.stderr.write(
        f"{facts.study}: {len(facts.sites)} sites ({facts.partition}), {facts.rounds} rounds in"
        f" {facts.seconds:.1f} s; {facts.measure_words} {facts.score} on"
        f" {facts.held_out_patients} held-out patients;"
        f" {cost}\nwritten: {out}/report.html, {out}/simulation.json\n"
    )


def _facts(
    what: Simulated, outcome: Outcome, options: argparse.Namespace, partition: str
) -> SimulationFacts:
    import numpy as np

    from larrey_lab.simulation.page import SimulationFacts
    from larrey_privacy.accounting import epsilon_pld
    from larrey_privacy.mechanism import Mechanism
    from larrey_protocol.study import DpSgd

    study, training = what.study, what.study.file.training
    privacy = study.file.privacy
    epsilon = delta = None
    if isinstance(privacy, DpSgd):
        steps = training.local_steps * training.rounds
        mechanism = Mechanism(privacy.noise_multiplier, privacy.sampling_rate, steps)
        epsilon, delta = epsilon_pld(mechanism, privacy.delta), privacy.delta
    return SimulationFacts(
        study=study.name,
        version=study.file.study.version,
        title=study.file.study.title,
        digest=study.digest,
        strategy=training.strategy,
        engine=options.engine,
        partition=partition,
        seed=options.seed,
        present=options.present,
        rounds=training.rounds,
        sites=study.file.site_names,
        patients=tuple(cohort.patients for cohort in what.split.training.values()),
        held_out_patients=len(np.unique(what.split.held_out.patient)),
        task=study.contract.label.kind,
        measure=outcome.measure.name,
        measure_unit=outcome.measure.unit,
        score_by_round=outcome.by_round,
        score=outcome.final,
        score_by_site=outcome.by_site,
        own_score_by_site=outcome.own_by_site,
        other_scores=outcome.others,
        epsilon=epsilon,
        delta=delta,
        unit=study.contract.unit.name,
        seconds=outcome.seconds,
    )
