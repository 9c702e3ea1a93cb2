"""Tensors that stay at the sites: which they are, what of an update leaves, what is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from larrey_client.remembering import (
    LOCAL,
    NOTHING,
    Known,
    kept_layout,
    leaving,
    next_state,
    own_model,
)
from larrey_protocol.encodings import decode, encode
from larrey_protocol.envelope import check_update, require_zeros
from larrey_protocol.errors import Refusal
from larrey_protocol.models import initial_parameters, model_layout, phase_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from larrey_strategies.drift import update_bound
from larrey_strategies.local_tensors import gathered, local_names, local_spans, shared_size
from larrey_strategies.of_study import algorithm_of, require_algorithm
from tests.strategies.algorithms import PARAMETERS, vector
from tests.strategies.test_of_study import make


def deep(*local: str, **training: Any) -> Study:
    study = make(local=list(local), **training).model_dump(mode="json", by_alias=True)
    study["file"]["model"] = {"name": "mlp", "hidden": [6, 5]}
    return Study.model_validate(study)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), ()),
        (("0.*",), ("0.weight", "0.bias")),
        (("*.bias",), ("0.bias", "1.bias", "2.bias")),
        (("?.bias", "2.*"), ("0.bias", "1.bias", "2.weight", "2.bias")),
    ],
)
def test_patterns_name_tensors_of_the_model_in_its_order(patterns, names):
    study = deep(*patterns)
    layout, flat = model_layout(study), vector(1, model_layout(study).size)
    assert local_names(study) == names
    views = dict(zip((n for n, _ in layout.entries), layout.views(flat), strict=True))
    wanted = np.concatenate([np.empty(0, np.float32), *(views[n].ravel() for n in names)])
    assert gathered(flat, local_spans(study)).tobytes() == wanted.tobytes()
    assert shared_size(study) == layout.size - wanted.size


@pytest.mark.parametrize("patterns", [("0.*", "3.*"), ("*",), ("?.weight", "*.bias")])
def test_a_pattern_without_a_tensor_and_a_model_without_a_common_one_are_refused(patterns):
    with pytest.raises(Refusal) as refused:
        require_algorithm(deep(*patterns))
    assert refused.value.code == "local-tensors-unfit"
    assert "'0.weight'" in refused.value.next_step


@pytest.mark.parametrize("pattern", ["", "[0-9].*", "0 .*", "../x", "é", "a" * 101])
def test_the_syntax_is_closed(pattern):
    with pytest.raises(ValidationError):
        deep(pattern)


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_zeros_leave_for_what_stays_and_the_border_tells_one_bit(encoding, tmp_path: Path):
    study = deep("0.*", encoding=encoding)
    layout, delta = phase_layout(study, "train"), vector(3, model_layout(study).size)
    sent = leaving(study, delta)
    assert not gathered(sent, local_spans(study)).any()
    assert np.count_nonzero(sent) == shared_size(study)
    last = local_spans(study)[-1][1] - 1
    for place, value, is_sound in ((0, 0.0, True), (0, -3.0, False), (last, 3.0, False)):
        sent[place] = value
        path = tmp_path / "update"
        path.write_bytes(pack(layout, sent))
        descriptor = os.open(path, os.O_RDONLY)
        try:
            check_update(descriptor, layout, norm_bound=1e3)
            if is_sound:
                require_zeros(descriptor, layout, local_spans(study))
            else:
                with pytest.raises(Refusal, match="stays at the site") as refused:
                    require_zeros(descriptor, layout, local_spans(study))
                assert refused.value.code == "update-wrong-tensors"
        finally:
            os.close(descriptor)
        sent[place] = 0.0


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "feddyn", "mr-mtl", "fedprox"])
def test_a_site_goes_on_from_its_own_tensors_and_the_common_ones(strategy):
    """What stays moves by all that training moved, unrounded; the rest as without local tensors."""
    words = {"strategy": strategy, "parameters": PARAMETERS.get(strategy, {}), "encoding": "int8"}
    study, plain = deep("0.*", **words), deep(**words)
    spans, first = local_spans(study), initial_parameters(study)
    size = first.size
    shared = {name: vector(9, size) for name in algorithm_of(study).shared}
    kept, kept_plain = NOTHING, NOTHING
    for number in range(3):
        start, delta = vector(10 + number, size), vector(20 + number, size)
        known, known_plain = Known(shared, kept), Known(shared, kept_plain)
        model, reference = own_model(study, start, known), own_model(plain, start, known_plain)
        own = gathered(first, spans) + sum(
            gathered(vector(20 + n, size), spans) for n in range(number)
        )
        assert np.allclose(gathered(model, spans), own, atol=1e-6)
        assert model[spans[-1][1] :].tobytes() == reference[spans[-1][1] :].tobytes()
        kept = next_state(study, start=start, known=known, delta=delta)
        sent = leaving(study, delta)
        kept_plain = next_state(plain, start=start, known=known_plain, delta=sent)
        for name, values in kept_plain.items():
            assert kept[name].tobytes() == values.tobytes()
    assert {name for name, _ in kept_layout(study).entries} == set(kept)
    assert set(kept) == {*kept_plain, LOCAL}


def test_the_border_allows_no_more_for_what_cannot_be_sent():
    assert update_bound(deep("0.*"), "alpha") < update_bound(deep(), "alpha")


def test_an_encoding_of_zeros_is_zeros():
    values = np.zeros(10, np.float32)
    for encoding in ("float16", "int8"):
        assert not decode(*encode(encoding, values), values.copy()).any()
