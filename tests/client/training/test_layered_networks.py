"""Networks of layers are what the study says, and patients stand alone in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from larrey_client.app import local_update
from larrey_client.networks import build, load_flat
from larrey_privacy.admission import admit
from larrey_privacy.batch import Batch, trainable
from larrey_privacy.clipping import clipped_sum
from larrey_privacy.cohort import Cohort
from larrey_privacy.losses import loss_named
from larrey_protocol.errors import Refusal
from larrey_protocol.model_file import places
from larrey_protocol.models import initial_parameters, model_layout
from larrey_protocol.study import Study

CONV = {"layer": "conv", "channels": 4}
NORM = {"layer": "group-norm", "groups": 2}
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "channels": [4, 6], "hidden": 5},
    "cnn without hidden layer": {"name": "cnn", "channels": [3]},
    "resnet": {"name": "resnet", "width": 2, "blocks": [1, 2]},
    "every layer": {
        "name": "layers",
        "layers": [
            CONV | {"kernel": 5, "stride": 2},
            NORM,
            {"layer": "gelu"},
            {"layer": "residual", "layers": [{"layer": "tanh"}, CONV]},
            {"layer": "residual", "layers": [NORM, {"layer": "relu"}, CONV | {"channels": 6}]},
            {"layer": "max-pool"},
            {"layer": "average-pool"},
            {"layer": "flatten"},
            {"layer": "linear", "width": 3},
            {"layer": "relu"},
        ],
    },
    "pooled": {"name": "layers", "layers": [CONV, {"layer": "global-average-pool"}]},
    "flat": {"name": "layers", "layers": [{"layer": "flatten"}]},
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


@pytest.fixture
def make_picture_study(
    make_study: Callable[..., Study], private: dict[str, Any]
) -> Callable[..., Study]:
    def make(model: dict[str, Any], **training: Any) -> Study:
        study = make_study(private).model_dump(mode="json", by_alias=True)
        del study["contract"]["columns"]
        study["contract"]["image"] = {"height": 10, "width": 9, "channels": 3}
        study["file"]["model"] = model
        study["file"]["training"] |= training
        return Study.model_validate(study)

    return make


def pixels(rows: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).random((rows, 270), np.float32)


@every_model
def test_tensors_and_shapes_are_those_of_the_study(make_picture_study, model):
    study = make_picture_study(model)
    network = build(study)
    found = tuple((name, tuple(p.shape)) for name, p in network.named_parameters())
    assert found == model_layout(study).entries
    assert not any(parameter.any() for parameter in network.parameters())
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_children():
        module.register_forward_hook(
            lambda _, __, value, name=name: seen.update({name: tuple(value.shape[1:])})
        )
    network(torch.from_numpy(pixels(2)))
    expected = {place.name: place.after for place in places(study.contract, study.file.model)}
    assert {name: shape for name, shape in seen.items() if name != "image"} == expected


@every_model
def test_each_patient_stands_alone_and_is_clipped_alone(make_picture_study, model):
    study = make_picture_study(model)
    network, loss = build(study), loss_named("logistic")
    admit(network, loss, row_shape=(270,))
    load_flat(network, initial_parameters(study))
    batch = Batch(
        torch.from_numpy(pixels(7)), torch.tensor([0.0, 1, 1, 0, 1, 0, 1]), torch.tensor([2, 1, 4])
    )
    total, first = 0.0, 0
    for count in batch.counts.tolist():
        rows = slice(first, first + count)
        value = loss(network(batch.features[rows]), batch.label[rows]).mean()
        parts = torch.autograd.grad(value, trainable(network))
        gradient = torch.cat([part.flatten() for part in parts]).double()
        total, first = total + gradient * min(1.0, 0.1 / float(gradient.norm())), first + count
    found = clipped_sum(network, loss, batch, clip=0.1)
    assert torch.allclose(found.total, total, rtol=1e-4, atol=1e-6)


def test_pixels_arrive_row_after_row_with_their_channels_together(make_picture_study):
    network = build(make_picture_study(MODELS["cnn"]))
    row = torch.arange(270.0)[None]
    image = network.get_submodule("image")(row)
    assert image.shape == (1, 3, 10, 9)
    assert image[0, 2, 4, 5] == (4 * 9 + 5) * 3 + 2


def test_building_layers_leaves_torchs_random_state_alone(make_picture_study):
    before = torch.random.get_rng_state()
    build(make_picture_study(MODELS["every layer"]))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_scales_begin_at_one_and_weights_by_he(make_picture_study):
    study = make_picture_study(MODELS["every layer"])
    layout = model_layout(study)
    values = layout.views(initial_parameters(study))
    start = dict(zip(dict(layout.entries), values, strict=True))
    assert (start["1.weight"] == 1).all()
    assert not start["1.bias"].any()
    limit = (6 / (3 * 5 * 5)) ** 0.5
    assert 0.8 * limit < np.abs(start["0.weight"]).max() <= limit


def test_layers_that_do_not_fit_the_contract_are_no_study(make_picture_study, make_study):
    with pytest.raises(ValueError, match="outputs needs a flat row"):
        make_picture_study({"name": "layers", "layers": [CONV]})
    with pytest.raises(ValueError, match="needs an image"):
        make_study(model=MODELS["cnn"])


def test_columns_pass_through_layers_that_need_no_image(make_study):
    layers = [{"layer": "linear", "width": 6}, {"layer": "group-norm", "groups": 3}]
    study = make_study(model={"name": "layers", "layers": layers})
    assert build(study)(torch.zeros(5, 4)).shape == (5, 1)


def test_a_network_of_layers_learns_under_differential_privacy(make_picture_study):
    random = np.random.default_rng(1)
    label = random.integers(0, 2, 400).astype(np.float32)
    bright = np.repeat(label, 270).reshape(400, 270) * 0.4
    features = (random.random((400, 270)) * 0.6 + bright).astype(np.float32)
    cohort = Cohort(features, label, np.arange(400))
    study = make_picture_study(
        {"name": "cnn", "channels": [4]}, local_steps=25, learning_rate=0.5, momentum=0.5
    )
    data = study.model_dump(mode="json", by_alias=True)
    data["file"]["sites"] = [{"name": "alpha", "patients": 400}]
    data["file"]["privacy"] |= {"sampling_rate": 0.2, "noise_multiplier": 1.0, "clip": 1.0}
    study = Study.model_validate(data)
    network, start = build(study), initial_parameters(study)
    delta = local_update(study, network, cohort, site="alpha", start=start)
    load_flat(network, start + delta)
    with torch.no_grad():
        found = network(torch.from_numpy(features))[:, 0].numpy() > 0
    assert (found == (label > 0)).mean() > 0.9


def test_a_layer_that_normalises_over_patients_is_refused_where_it_is_built():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten())
    with pytest.raises(Refusal, match="model-buffers"):
        admit(network, loss_named("cross-entropy"), row_shape=(3, 2, 2))
