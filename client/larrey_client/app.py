"""Larrey's Flower ClientApp: one object for the trainer, Flower's simulation and the tests.

A train message brings the model and the study; the data path comes from this node's own
configuration. The reply holds the update (local minus global model) and nothing about the data.
Nothing is kept between rounds but the checked network, the prepared cohort and, where the study's
objective has one, the site's state of the algorithm in Flower's context: who calls the app says
what is in force (`larrey_client.remembering`). Noise and sampling come from the operating system's
generator and take no seed.
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
from larrey_client.remembering import (
    KEPT,
    NOTHING,
    NOTHING_KNOWN,
    Known,
    flat_state,
    incoming_layout,
    kept_layout,
    leaving,
    next_state,
    own_model,
    parted,
    state_now,
    state_of,
)
from larrey_privacy.admission import admit
from larrey_privacy.cohort import Cohort
from larrey_privacy.losses import loss_named
from larrey_privacy.noise import NoiseStream
from larrey_privacy.sampler import PoissonSampler
from larrey_privacy.training import Correction, TrainingPlan, train_plain, train_round
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout
from larrey_protocol.study import DpSgd, Study
from larrey_protocol.tasks import label_values, loss_name
from larrey_protocol.tensors import TensorLayout
from larrey_strategies.contract import State
from larrey_strategies.local_tensors import local_spans, scattered
from larrey_strategies.of_study import algorithm_of

__all__ = ["app", "local_update", "make_app", "network_of", "prepare_study"]


@dataclass(frozen=True, slots=True, eq=False)
class _Workplace:
    """What is the same in every round of a study."""

    study: Study
    contract: str  # JSON
    layout: TensorLayout  # of what a request brings
    model: TensorLayout
    kept: TensorLayout  # of what the site keeps; without entries where it keeps nothing
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
        start, shared = parted(place.study, flat_of(arrays, place.layout))
        state = _kept(context, place.kept)
        rows = cohort or cached_cohort(_data_path(context, data), place.contract)
        sequence = int(config.get("ledger-sequence") or 0)  # type: ignore[arg-type]  # a number
        delta = local_update(
            place.study, place.network, rows,
            site=site, start=start, sequence=sequence, known=Known(shared, state),
        )  # fmt: skip
        if place.kept.entries:
            after = next_state(place.study, start=start, known=Known(shared, state), delta=delta)
            context.state[KEPT] = record_of(place.kept, flat_state(place.kept, after))
        arrays = record_of(place.model, leaving(place.study, delta))
        reply = RecordDict({"arrays": arrays, "metrics": MetricRecord({})})
        return Message(reply, reply_to=message)

    return client


def network_of(text: str, device: str) -> nn.Module:
    """Return a study's network, built and admitted; whoever uses it overwrites its values.

    Raises:
        Refusal: as the first round would.
    """
    return _workplace(text, device).network


def prepare_study(text: str, device: str) -> None:
    """Build and admit a study's network ahead of its first round.

    Raises:
        Refusal: as the first round would.
    """
    _workplace(text, device)


def local_update(  # noqa: PLR0913 - a round's own facts, by name
    study: Study,
    network: nn.Module,
    cohort: Cohort,
    *,
    site: str,
    start: NDArray[np.float32],
    sequence: int = 0,
    known: Known = NOTHING_KNOWN,
) -> NDArray[np.float32]:
    """Return the update of one round of local training: what a trainer makes of a model.

    Of local tensors too, which do not leave (`larrey_client.remembering.leaving`).

    Args:
        study: what was approved.
        network: the study's network (`larrey_client.networks.build`), admitted; overwritten.
        cohort: the site's prepared rows.
        site: one that the study invites; gives the public batch size.
        start: the round's global model, flat.
        sequence: of the reservation in the site's ledger; 0 where there is none.
        known: what the algorithm knows beside the model.
    """
    known = Known(known.shared, state_now(study, known))
    load_flat(network, own_model(study, start, known))
    plan, correction = _plan(study, site), _correction(study, start, known)
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
    admit(
        network,
        loss_named(loss_name(study.contract)),
        row_shape=(study.contract.feature_count,),
        labels=label_values(study.contract),
    )
    contract = study.contract.model_dump_json(by_alias=True)
    return _Workplace(
        study,
        contract,
        incoming_layout(study),
        model_layout(study),
        kept_layout(study),
        network.to(device),
    )


def _kept(context: Context, layout: TensorLayout) -> State:
    """Return what Flower's context holds of the site's state, empty before the first round."""
    record = context.state.get(KEPT)
    if not layout.entries or not isinstance(record, ArrayRecord):
        return NOTHING
    return state_of(layout, flat_of(record, layout))


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
        loss=loss_name(study.contract),
    )


def _correction(study: Study, start: NDArray[np.float32], known: Known) -> Correction | None:
    """Return the objective's addition to each noised gradient, None if its paper has none."""
    algorithm, spans = algorithm_of(study), local_spans(study)
    if algorithm.correction(start, start, known.state, known.shared) is None:
        return None

    def correction(now: NDArray[np.float32], _: NDArray[np.float32]) -> NDArray[np.float32]:
        addition = algorithm.correction(now, start, known.state, known.shared)
        return np.zeros_like(now) if addition is None else scattered(addition, spans)

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
