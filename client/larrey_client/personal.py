"""A site's own model after the last shared round: fine-tuning and Ditto, in the trainer.

Li, Hu, Beirami, Smith 2021, "Ditto: fair and robust federated learning through personalization",
equation 1, https://arxiv.org/abs/2012.04221: the site minimises ``F_k(v) + lambda/2 * |v - w|^2``,
where ``w`` is the study's final model; lambda = 0 is fine-tuning. Departures: it is trained once
``w`` is final, so that nothing of it can reach the shared model (P18); steps are plain heavy-ball
descent over sampled batches, as many as the person asks for.

There is no noise: the model tells about the patients it was trained on, and so does its score.
Neither may leave the site (P19).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from larrey_client.networks import load_flat
from larrey_privacy.cohort import Cohort
from larrey_privacy.losses import loss_named
from larrey_privacy.sampler import PoissonSampler
from larrey_privacy.training import TrainingPlan, train_plain
from larrey_protocol.study import Study
from larrey_protocol.tasks import loss_name

__all__ = ["Personal", "mean_loss", "personal_model"]

Vector = NDArray[np.float32]
_ROWS = 4096  # scored at once


@dataclass(frozen=True, slots=True)
class Personal:
    """How a personal model is trained.

    Attributes:
        lambda_: pull to the final model, at least 0.
        steps: at least 1.
        learning_rate: above 0.
    """

    lambda_: float
    steps: int
    learning_rate: float


def personal_model(
    study: Study, network: nn.Module, cohort: Cohort, *, site: str, final: Vector, how: Personal
) -> Vector:
    """Return the site's own model, trained from the study's final one; it is no DP output.

    Raises:
        UsageError: ``plan-impossible``.
    """
    training = study.file.training
    plan = TrainingPlan(
        local_steps=how.steps,
        learning_rate=how.learning_rate,
        momentum=training.momentum,
        clip=1.0,  # plain training reads neither
        noise_multiplier=0.0,
        sampling_rate=study.file.privacy.sampling_rate,
        expected_batch=study.expected_batch(site),
        max_rows=study.contract.unit.max_rows,
        loss=loss_name(study.contract),
    )
    pull = np.float32(how.lambda_)
    load_flat(network, final.copy())  # torch wants to write to what it reads
    done = train_plain(
        network, cohort, plan, sampler=PoissonSampler(), correction=lambda now, w: pull * (now - w)
    )
    return final + done.delta


def mean_loss(study: Study, network: nn.Module, model: Vector, cohort: Cohort) -> float:
    """Return a model's mean loss over rows, by the study's own loss."""
    loss = loss_named(loss_name(study.contract))
    load_flat(network, model.copy())
    network.eval()
    device, total = next(network.parameters()).device, 0.0
    with torch.no_grad():
        for first in range(0, len(cohort.label), _ROWS):
            rows = np.arange(first, min(first + _ROWS, len(cohort.label)))
            x = torch.from_numpy(cohort.features[rows]).to(device)
            y = torch.from_numpy(cohort.label[rows]).to(device)
            total += float(loss(network(x), y).sum())
    return total / len(cohort.label)
