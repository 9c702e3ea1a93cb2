"""The price of privacy and of federation on the RAND health-insurance table, 5 splits by person."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from bench.harness import Figure, finish
from bench.heart import epsilon_of, estimate
from larrey_lab.rand import read_rand
from larrey_lab.rehearsal import cohorts_of
from larrey_lab.utility import CENTRAL, PRIVATE, WITHOUT, Utility, measure
from larrey_protocol.study import Study, load_study

_STUDY = Path(__file__).parent.parent / "examples" / "rand" / "study.toml"
_SPLITS, _HELD_OUT, _REPEATS = 5, 0.2, 3


def main() -> int:
    torch.set_num_threads(1)
    study = load_study(_STUDY)
    cohorts = cohorts_of(read_rand(), study)
    start = time.perf_counter()
    utility = measure(study, cohorts, seeds=range(_SPLITS), held_out=_HELD_OUT, repeats=_REPEATS)
    seconds = time.perf_counter() - start
    notes = [
        "Both gaps are against the central regression; persons, not rows, are held out.",
        f"Sampled or noised trainings are repeated {_REPEATS} times a split, AUC averaged.",
        f"Intervals widen for overlapping splits (Nadeau and Bengio 2003); {seconds:.1f} s.",
    ]
    return finish("rand", "make bench-rand", figures(study, utility), notes=notes)


def figures(study: Study, utility: Utility) -> list[Figure]:
    count = f"{utility.splits} splits of {utility.patients} held-out persons"

    return [
        estimate("auc_central", utility.arm(CENTRAL).pooled, count),
        estimate("auc_federated_gap", utility.federated_gap, count, "<=", 0.01),
        estimate("auc_dp_eps3_gap", utility.central_gap, count, "<=", 0.015),
        estimate("auc_federated", utility.arm(WITHOUT).pooled, count),
        estimate("auc_dp_eps3", utility.arm(PRIVATE).pooled, count),
        estimate("auc_gain_over_alone", utility.gain, count),
        Figure("epsilon", epsilon_of(study), "per person, add/remove, PLD", "<=", 3.0),
    ]


if __name__ == "__main__":
    sys.exit(main())
