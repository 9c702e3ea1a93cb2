"""Larrey's Flower ClientApp: one object for the trainer, Flower's simulation and the tests.

A train message brings the model and the study; the data path comes from this node's own
configuration. The reply holds the update (local minus global model) and nothing about the data.
Nothing is kept between rounds but the checked network and the prepared cohort. Noise and sampling
come from the operating system's generator and take no seed.
Privacy of an update: see `larrey_privacy.training`; the reservation is the agent's and comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import nn

from larrey_client.arrays import flat_of, record_of
from larrey_client.data.cohort import cached_cohort
from larrey_client.networks import build, load_flat
from larrey_privacy.admission import admit
from larrey_privacy.cohort import Cohort
from larrey_privacy.losses import loss_named
from larrey_privacy.noise import NoiseStream
from larrey_privacy.sampler import PoissonSampler
from larrey_privacy.training import Correction, TrainingPlan, train_plain, train_round
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import layer_sizes, model_layout
from larrey_protocol.study import DpSgd, Study
from larrey_protocol.tensors import TensorLayout
from larrey_strategies.registry import make_strategy

__all__ = ["app", "local_update", "make_app", "prepare_study"]

_LOSS = "logistic"  # of every model in the registry: one logit, a binary label


@dataclass(frozen=True, slots=True, eq=False)
class _Workplace:
    """What is the same in every round of a study."""

    study: Study
    contract: str  # JSON
    layout: TensorLayout
    network: nn.Module


def make_app(data: str = "", cohort: Cohort | None = None) -> ClientApp:
    """Return the app; it reads its table itself, or trains on a cohort that was read before.

    Args:
        data: a path with ``{partition}`` for the node's number, where a simulation's nodes find
            their tables; used only where neither the node's configuration nor the run's names
            ``data``.
        cohort: what the trainer read, checked and committed to; then nothing is read again.
    """
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        config = message.content["config"]
        arrays = message.content["arrays"]
        if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
            raise LarreyError("message-malformed", "expected 'config' and 'arrays' in the message")
        place = _workplace(_text(config, "study"), str(context.node_config.get("device", "cpu")))
        site = str(config.get("site") or "") or _site_of(place.study, context)
        start = flat_of(arrays, place.layout)
        rows = cohort or cached_cohort(_data_path(context, data), place.contract)
        sequence = int(config.get("ledger-sequence") or 0)  # type: ignore[arg-type]  # a number
        delta = local_update(
            place.study, place.network, rows, site=site, start=start, sequence=sequence
        )
        reply = RecordDict({"arrays": record_of(place.layout, delta), "metrics": MetricRecord({})})
        return Message(reply, reply_to=message)

    return client


def prepare_study(text: str, device: str) -> None:
    """Build and admit a study's network ahead of its first round.

    Raises:
        Refusal: as the first round would.
    """
    _workplace(text, device)


def local_update(
    study: Study,
    network: nn.Module,
    cohort: Cohort,
    *,
    site: str,
    start: NDArray[np.float32],
    sequence: int = 0,
) -> NDArray[np.float32]:
    """Return the update of one round of local training: what a trainer makes of a model.

    Args:
        study: what was approved.
        network: the study's network (`larrey_client.networks.build`), admitted; overwritten.
        cohort: the site's prepared rows.
        site: one that the study invites; gives the public batch size.
        start: the round's global model, flat.
        sequence: of the reservation in the site's ledger; 0 where there is none.
    """
    load_flat(network, start)
    plan, correction = _plan(study, site), _correction(study, start)
    sampler = PoissonSampler()
    if not isinstance(study.file.privacy, DpSgd):
        return train_plain(network, cohort, plan, sampler=sampler, correction=correction).delta
    noise = NoiseStream()
    noise.bind(sequence)
    return train_round(
        network, cohort, plan, noise=noise, sampler=sampler, correction=correction
    ).delta


@lru_cache(maxsize=1)
def _workplace(text: str, device: str) -> _Workplace:
    """Return what a study needs, its network admitted.

    Raises:
        Refusal: a patient could influence another's gradient (`larrey_privacy.admission`).
    """
    study = Study.model_validate_json(text)
    network = build(study)
    admit(network, loss_named(_LOSS), row_shape=layer_sizes(study)[:1])
    contract = study.contract.model_dump_json(by_alias=True)
    return _Workplace(study, contract, model_layout(study), network.to(device))


def _plan(study: Study, site: str) -> TrainingPlan:
    training, privacy = study.file.training, study.file.privacy
    clip, sigma = 1.0, 0.0  # plain training reads neither
    if isinstance(privacy, DpSgd):
        clip, sigma = privacy.clip, privacy.noise_multiplier
    return TrainingPlan(
        local_steps=training.local_steps,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
        clip=clip,
        noise_multiplier=sigma,
        sampling_rate=privacy.sampling_rate,
        expected_batch=study.expected_batch(site),
        max_rows=study.contract.unit.max_rows,
        loss=_LOSS,
    )


def _correction(study: Study, start: NDArray[np.float32]) -> Correction | None:
    """Return the strategy's addition to each noised gradient, None if its paper has none."""
    strategy = make_strategy(study.file.training.strategy, study.file.training.parameters)
    if strategy.correction(start, start, {}) is None:
        return None

    def correction(now: NDArray[np.float32], begin: NDArray[np.float32]) -> NDArray[np.float32]:
        addition = strategy.correction(now, begin, {})
        return np.zeros_like(now) if addition is None else addition

    return correction


def _data_path(context: Context, template: str) -> Path:
    """Return where this node's table is: its own configuration first, then a simulation's."""
    own = context.node_config.get("data")
    if own:
        return Path(str(own))
    path = str(context.run_config.get("data") or template)
    if not path:
        raise LarreyError("data-path-missing", "neither the node nor the run names 'data'")
    return Path(path.replace("{partition}", str(context.node_config.get("partition-id", ""))))


def _site_of(study: Study, context: Context) -> str:
    """Return the site that a simulated node plays: the partition's number in the roster."""
    return study.file.site_names[int(context.node_config["partition-id"])]


def _text(config: ConfigRecord, name: str) -> str:
    value = config.get(name)
    if not isinstance(value, str):
        raise LarreyError("message-malformed", f"expected text '{name}' in the message")
    return value


app = make_app()
