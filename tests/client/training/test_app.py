"""The ClientApp as Flower calls it: in process, and in Flower's simulation engine."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import (
    DEFAULT_TTL,
    ConfigRecord,
    Context,
    Message,
    Metadata,
    RecordDict,
)

from larrey_client.app import app, make_app
from larrey_client.arrays import flat_of, record_of
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import initial_parameters, model_layout

has_ray = importlib.util.find_spec("ray") is not None


def _message(study, **config) -> Message:
    layout = model_layout(study)
    text = study.model_dump_json(by_alias=True)
    content = RecordDict(
        {
            "arrays": record_of(layout, initial_parameters(study)),
            "config": ConfigRecord({"study": text, "round": 1, **config}),
        }
    )
    metadata = Metadata(0, "m", 0, 0, "", "1", time.time(), DEFAULT_TTL, "train")
    return Message(content=content, metadata=metadata)


def _context(run=None, **node) -> Context:
    return Context(run_id=0, node_id=0, node_config=node, state=RecordDict(), run_config=run or {})


def test_a_reply_holds_the_update_and_nothing_about_the_data(make_study, private, table):
    study = make_study(private)
    context = _context(data=str(table))
    reply = app(_message(study, site="alpha"), context)
    assert set(reply.content) == {"arrays", "metrics"}
    assert dict(reply.content["metrics"]) == {}
    assert np.isfinite(flat_of(reply.content["arrays"], model_layout(study))).all()
    assert dict(context.state) == {}


def test_an_update_carries_the_noise_of_every_step_that_the_study_states(
    make_study, private, table
):
    privacy = private | {"noise_multiplier": 1000.0}  # beside it the patients do not show
    study = make_study(privacy, model={"name": "mlp", "hidden": [64, 64]}, local_steps=4)
    reply = app(_message(study, site="alpha"), _context(data=str(table)))
    update = flat_of(reply.content["arrays"], model_layout(study))
    step = study.file.training.learning_rate * 1000.0 * privacy["clip"] / 12
    # 4,545 coordinates: six standard errors of the spread are 0.063.
    assert update.std() == pytest.approx(step * 2.0, rel=0.063)


def test_patients_are_drawn_with_the_rate_that_the_study_states(make_study, table):
    study = make_study({"mechanism": "none", "sampling_rate": 1e-12})
    reply = app(_message(study, site="alpha"), _context(data=str(table)))
    assert not flat_of(reply.content["arrays"], model_layout(study)).any()


def test_torchs_seed_does_not_reach_the_noise(make_study, private, table):
    import torch

    study, updates = make_study(private), []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002  the global generator is what is tried
        reply = app(_message(study, site="alpha"), _context(data=str(table)))
        updates.append(flat_of(reply.content["arrays"], model_layout(study)))
    assert not np.array_equal(*updates)


@pytest.mark.parametrize("where", ["run", "app"])
def test_a_simulated_node_finds_its_table_and_site_by_its_partition(make_study, table, where):
    study = make_study()
    table.rename(table.with_name("site-0.csv"))
    template = str(table.with_name("site-{partition}.csv"))
    node = {"partition-id": 0, "num-partitions": 1}
    if where == "run":
        reply = app(_message(study), _context({"data": template}, **node))
    else:
        reply = make_app(data=template)(_message(study), _context(**node))
    assert np.abs(flat_of(reply.content["arrays"], model_layout(study))).max() > 0


def test_the_nodes_own_path_wins_over_the_runs(make_study, table):
    context = _context({"data": "/nowhere.csv"}, data=str(table))
    assert app(_message(make_study(), site="alpha"), context).has_content()


def test_without_a_path_there_is_no_training(make_study):
    with pytest.raises(LarreyError, match="data-path-missing"):
        app(_message(make_study(), site="alpha"), _context())


def test_a_message_without_a_study_is_refused(make_study, table):
    message = _message(make_study())
    message.content["config"] = ConfigRecord({"round": 1})
    with pytest.raises(LarreyError, match="message-malformed"):
        app(message, _context(data=str(table)))


@pytest.mark.system
@pytest.mark.skipif(not has_ray, reason="needs Ray: run `make simulation`")
def test_the_same_app_runs_in_flowers_simulation_engine(make_study, table, tmp_path):
    table.rename(table.with_name("site-0.csv"))
    study = tmp_path / "study.json"
    study.write_text(make_study().model_dump_json(by_alias=True))
    module = Path(__file__).with_name("simulate.py")
    command = [
        sys.executable,
        str(module),
        str(study),
        str(table.with_name("site-{partition}.csv")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("norm ")[1]) > 0
