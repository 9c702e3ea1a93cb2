"""A list of layers has the shapes that it says, and says which layer does not fit."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from larrey_protocol.layers import MAX_PARAMETERS, Layer, Place, chain, group_count
from larrey_protocol.model_file import Convolutional, Model, ResNet, kinds

IMAGE = (3, 28, 20)
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_LAYERS: TypeAdapter[tuple[Layer, ...]] = TypeAdapter(tuple[Layer, ...])
_MODEL: TypeAdapter[Model] = TypeAdapter(Model)


def walk(*layers: Any, inputs: tuple[int, ...] = IMAGE, outputs: int = 2) -> tuple[Place, ...]:
    rows = [{"layer": one} if isinstance(one, str) else one for one in layers]
    return chain(_LAYERS.validate_python(rows), inputs, outputs)


def conv(channels: int = 8, **more: int) -> dict[str, Any]:
    return {"layer": "conv", "channels": channels, **more}


def test_shapes_follow_one_another() -> None:
    found = walk(conv(8, stride=2), "group-norm", "relu", "max-pool", "global-average-pool")
    assert [place.after for place in found] == [
        (8, 14, 10), (8, 14, 10), (8, 14, 10), (8, 7, 5), (8,), (2,)
    ]  # fmt: skip


def test_the_layer_to_the_outputs_is_added_and_has_the_labels_width() -> None:
    (only,) = walk(inputs=(5,), outputs=4)
    assert only.entries == (("0.weight", (4, 5)), ("0.bias", (4,)))


def test_a_residual_whose_shapes_agree_has_no_shortcut() -> None:
    inner = [{"layer": "relu"}, conv(8)]
    place = walk(conv(8), {"layer": "residual", "layers": inner}, "flatten")[1]
    assert place.shortcut is None
    assert [name for name, _ in place.entries] == ["1.1.weight", "1.1.bias"]


def test_a_residual_that_changes_shape_has_a_convolution_beside_it() -> None:
    inner = [conv(16, stride=2)]
    place = walk({"layer": "residual", "layers": inner}, "global-average-pool")[0]
    assert dict(place.entries) == {
        "0.0.weight": (16, 3, 3, 3), "0.0.bias": (16,),
        "0.shortcut.weight": (16, 3, 1, 1), "0.shortcut.bias": (16,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "inputs", "said"),
    [
        ([conv()], (5,), r"layer 1 \(conv\) needs an image; found 5 values"),
        ([{"layer": "linear", "width": 3}], IMAGE, "layer 1 .* flat row: put flatten"),
        ([conv(6), "group-norm"], IMAGE, r"layer 2 \(group-norm\): 6 channels are not 8 groups"),
        (["max-pool"] * 5, IMAGE, r"layer 5 \(max-pool\) needs 2 pixels a side, found 3 × 1 × 1"),
        (["max-pool"], (9,), "needs an image"),
        (["global-average-pool"], (9,), "needs an image"),
        ([conv()], IMAGE, "outputs needs a flat row: put flatten"),
        ([conv(4096)], (1, 512, 512), "layer 1 .* values a row, at most"),
        (
            [{"layer": "residual", "layers": [{"layer": "flatten"}]}], IMAGE,
            "begins with 3 × 28 × 20",
        ),
        (
            [{"layer": "residual", "layers": [{"layer": "max-pool", "size": 3}]}], IMAGE,
            r"layer 1 \(residual\) ends with 3 × 9 × 6; a shortcut of stride 4 gives 3 × 7 × 5",
        ),
        (
            [{"layer": "residual", "layers": [conv(), {"layer": "linear", "width": 1}]}], IMAGE,
            r"layer 1 \(residual\), layer 2 \(linear\) needs a flat row",
        ),
        (["flatten", {"layer": "linear", "width": 4096}], (3, 128, 128), "parameters, at most"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_the_number_of_its_layer(
    layers: list[Any], inputs: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        walk(*layers, inputs=inputs)


@pytest.mark.parametrize(
    "layer",
    [
        "batch-norm",
        {"layer": "conv"},
        {"layer": "conv", "channels": 4, "kernel": 2},
        {"layer": "relu", "width": 3},
        {"layer": "residual", "layers": []},
        {"layer": "residual", "layers": [{"layer": "residual", "layers": [{"layer": "relu"}]}]},
    ],
)
def test_the_list_of_layers_is_closed(layer: Any) -> None:
    with pytest.raises(ValidationError):
        walk(layer)


def test_channels_fall_into_as_many_equal_groups_as_there_may_be() -> None:
    assert [group_count(n) for n in (1, 6, 8, 12, 13, 32)] == [1, 6, 8, 6, 1, 8]


@pytest.mark.parametrize("blocks", [(1,), (2, 1), (1, 1, 1, 1)])
def test_a_residual_network_halves_its_image_at_each_stage_but_the_first(
    blocks: tuple[int, ...],
) -> None:
    model = ResNet(name="resnet", width=4, blocks=blocks)
    *_, pooled, _ = found = chain(model.chain, IMAGE, 1)
    half = 2 ** (len(blocks) - 1)
    assert pooled.before == (4 * half, -(-28 // half), -(-20 // half))
    assert sum(bool(place.shortcut) for place in found) == len(blocks) - 1


def test_a_convolutional_network_is_what_its_channels_say() -> None:
    found = chain(Convolutional(name="cnn", channels=(4, 6), hidden=9).chain, IMAGE, 3)
    assert [place.after for place in found[-3:]] == [(9,), (9,), (3,)]
    assert found[-3].before == (6 * 7 * 5,)
    assert sum(math.prod(shape) for place in found for _, shape in place.entries) < MAX_PARAMETERS


def test_whoever_reads_the_study_is_told_the_layers() -> None:
    assert kinds(ResNet(name="resnet", blocks=(3,))) == [
        "conv", "3 residual", "group-norm", "relu", "global-average-pool"
    ]  # fmt: skip


def test_every_example_of_the_page_is_a_model() -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names = [_MODEL.validate_python(tomllib.loads(text)["model"]).name for text in examples]
    assert names == ["logistic", "mlp", "cnn", "resnet", "layers"]


def test_the_page_names_every_layer() -> None:
    text = PAGE.read_text("utf-8")
    named = set(re.findall(r'"const": "([a-z-]+)"', json.dumps(_LAYERS.json_schema())))
    assert len(named) == 6
    assert all(f"`{name}`" in text for name in named)
