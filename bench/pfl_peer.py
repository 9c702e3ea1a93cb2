"""The peer: pfl-research 0.6 with a numpy model, in a virtual environment of its own.

``python pfl_peer.py SITES ROUNDS`` prints seconds a round as JSON. pfl's own backend samples the
users, runs the algorithm's local training, weighs, sums and averages; the model holds one numpy
vector, as pfl's own numpy models do.
"""

# ruff: noqa: D101, D102  pfl names these methods and says what they are for
from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

import numpy as np
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import FederatedAlgorithm
from pfl.common_types import Population
from pfl.context import CentralContext
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import AlgorithmHyperParams, ModelHyperParams
from pfl.metrics import Metrics
from pfl.model.base import Model
from pfl.stats import MappedVectorStatistics
from tiny_job import PARAMETERS, SITES_WITH_ROWS, rows_of, update


@dataclass(frozen=True)
class Rounds(AlgorithmHyperParams):
    cohort: int
    rounds: int


class Flat(Model):
    def __init__(self):
        self.flat = np.zeros(PARAMETERS, np.float32)

    def save(self, dir_path):
        raise NotImplementedError

    def load(self, dir_path):
        raise NotImplementedError

    def apply_model_update(self, statistics):
        self.flat = self.flat + statistics["flat"]
        return self, Metrics()


class Averaging(FederatedAlgorithm):
    def get_next_central_contexts(
        self, model, iteration, algorithm_params, model_train_params, model_eval_params=None
    ):
        if iteration == algorithm_params.rounds:
            return None, model, Metrics()
        context = CentralContext(
            current_central_iteration=iteration,
            do_evaluation=False,
            cohort_size=algorithm_params.cohort,
            population=Population.TRAIN,
            model_train_params=model_train_params,
            model_eval_params=None,
            algorithm_params=algorithm_params,
            seed=iteration,
        )
        return (context,), model, Metrics()

    def simulate_one_user(self, model, user_dataset, central_context):
        features, labels = user_dataset.raw_data
        delta = update(model.flat, features, labels)
        return MappedVectorStatistics({"flat": delta}, weight=1.0), Metrics()

    def process_aggregated_statistics(self, central_context, aggregate_metrics, model, statistics):
        statistics.average()
        return model.apply_model_update(statistics)


class Clock:
    def __init__(self):
        self.seconds, self.since = [], time.perf_counter()

    def on_train_begin(self, *, model):
        self.since = time.perf_counter()
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        now = time.perf_counter()
        self.seconds.append(now - self.since)
        self.since = now
        return False, Metrics()

    def on_train_end(self, *, model):
        pass


def main(sites: int, rounds: int) -> None:
    data = [rows_of(site) for site in range(min(sites, SITES_WITH_ROWS))]
    sampler = get_user_sampler("minimize_reuse", list(range(sites)))
    dataset = FederatedDataset(
        lambda user: Dataset(data[user % SITES_WITH_ROWS], user_id=str(user)), sampler
    )
    clock, model = Clock(), Flat()
    Averaging().run(
        Rounds(sites, rounds),
        SimulatedBackend(training_data=dataset, val_data=dataset),
        model,
        ModelHyperParams(),
        callbacks=[clock],
        send_metrics_to_platform=False,
    )
    assert np.abs(model.flat).max() > 0
    json.dump(clock.seconds, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
