"""The torch modules hold exactly the tensors that the protocol says travel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from larrey_client.arrays import flat_of, record_of
from larrey_client.networks import build, export_flat, load_flat
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import initial_parameters, model_layout

MODELS = [
    {"name": "logistic"},
    {"name": "mlp", "hidden": [3]},
    {"name": "mlp", "hidden": [5, 2, 4]},
]


@pytest.mark.parametrize("model", MODELS)
def test_parameter_names_and_shapes_are_those_of_the_layout(make_study, model):
    study = make_study(model=model)
    found = [(name, tuple(p.shape)) for name, p in build(study).named_parameters()]
    assert tuple(found) == model_layout(study).entries


@pytest.mark.parametrize("model", MODELS)
def test_a_flat_vector_survives_the_network(make_study, model):
    study = make_study(model=model)
    flat = initial_parameters(study) + np.arange(model_layout(study).size, dtype=np.float32)
    network = build(study)
    load_flat(network, flat)
    np.testing.assert_array_equal(export_flat(network), flat)


def test_a_vector_of_another_size_is_refused(make_study):
    with pytest.raises(ValueError, match="parameters"):
        load_flat(build(make_study()), np.zeros(99, np.float32))


def test_building_leaves_torchs_random_state_alone(make_study):
    before = torch.random.get_rng_state()
    build(make_study(model={"name": "mlp", "hidden": [8]}))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_mlp_computes_what_its_layout_says(make_study):
    study = make_study(model={"name": "mlp", "hidden": [3]})
    layout = model_layout(study)
    flat = np.random.default_rng(0).normal(size=layout.size).astype(np.float32)
    w0, b0, w1, b1 = layout.views(flat)
    network = build(study)
    load_flat(network, flat)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    expected = np.maximum(x @ w0.T + b0, 0) @ w1.T + b1
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), expected, atol=1e-5)


def test_named_arrays_are_what_flower_itself_would_write(make_study):
    layout = model_layout(make_study(model={"name": "mlp", "hidden": [3]}))
    flat = np.arange(layout.size, dtype=np.float32)
    record = record_of(layout, flat)
    for values, expected in zip(record.to_numpy_ndarrays(), layout.views(flat), strict=True):
        np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(flat_of(record, layout), flat)


def test_arrays_that_flower_wrote_from_torch_are_read(make_study):
    from flwr.app import ArrayRecord

    study = make_study(model={"name": "mlp", "hidden": [3]})
    network = build(study)
    load_flat(network, np.arange(model_layout(study).size, dtype=np.float32))
    record = ArrayRecord(network.state_dict())
    np.testing.assert_array_equal(flat_of(record, model_layout(study)), export_flat(network))


def test_arrays_of_another_shape_are_refused(make_study):
    from flwr.app import Array, ArrayRecord

    record = ArrayRecord({"0.weight": Array(np.zeros((4, 1))), "0.bias": Array(np.zeros(1))})
    with pytest.raises(LarreyError, match="reply-wrong-tensors"):
        flat_of(record, model_layout(make_study()))
