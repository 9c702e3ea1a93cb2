"""The price of privacy and the worth of federation on the UCI heart table, 20 splits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from bench.harness import Comparison, Figure, finish
from larrey_lab.evaluation import Interval
from larrey_lab.heart import read_heart
from larrey_lab.rehearsal import cohorts_of
from larrey_lab.utility import CENTRAL, PRIVATE, WITHOUT, Utility, measure
from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.study import DpSgd, Study, load_study

_STUDY = Path(__file__).parent.parent / "examples" / "heart" / "study.toml"
_SPLITS, _HELD_OUT, _REPEATS = 20, 0.3, 5


def main() -> int:
    torch.set_num_threads(1)
    study = load_study(_STUDY)
    cohorts = cohorts_of(read_heart(), study)
    start = time.perf_counter()
    utility = measure(study, cohorts, seeds=range(_SPLITS), held_out=_HELD_OUT, repeats=_REPEATS)
    seconds = time.perf_counter() - start
    notes = [
        "auc_dp_eps1_gap: federated without DP minus with DP, same rounds and learning rate.",
        "auc_gain_over_alone: against the patient-weighted mean of hospitals' own models at the",
        "same epsilon and with the same settings, all scored on the pooled held-out patients.",
        f"Trainings with DP are repeated {_REPEATS} times a split and their AUC averaged.",
        f"Intervals widen for overlapping splits (Nadeau and Bengio 2003); {seconds:.1f} s.",
    ]
    return finish("heart", "make bench-heart", figures(study, utility), notes=notes)


def figures(study: Study, utility: Utility) -> list[Figure]:
    count = f"{utility.splits} splits of {utility.patients} held-out patients"

    return [
        estimate("auc_dp_eps1_gap", utility.dp_gap, count, "<=", 0.01),
        estimate("auc_gain_over_alone", utility.gain, count, ">=", 0.03),
        estimate("auc_dp_eps1", utility.arm(PRIVATE).pooled, count),
        estimate("auc_federated", utility.arm(WITHOUT).pooled, count),
        estimate("auc_central", utility.arm(CENTRAL).pooled, count),
        estimate("auc_dp_eps1_gap_to_central", utility.central_gap, count),
        Figure("epsilon", epsilon_of(study), "per patient, add/remove, PLD", "<=", 1.0),
    ]


def estimate(
    name: str,
    interval: Interval,
    count: str,
    comparison: Comparison = "",
    target: float | None = None,
) -> Figure:
    pair = (interval.low, interval.high)
    return Figure(name, interval.value, "AUC", comparison, target, pair, count)


def epsilon_of(study: Study) -> float:
    privacy, training = study.file.privacy, study.file.training
    if not isinstance(privacy, DpSgd):
        raise TypeError("the bench needs a private study")
    steps = training.local_steps * training.rounds_held
    mechanism = Mechanism(privacy.noise_multiplier, privacy.sampling_rate, steps)
    return epsilon_pld(mechanism, privacy.delta)


if __name__ == "__main__":
    sys.exit(main())
