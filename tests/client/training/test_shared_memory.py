"""Full shared memory has a code of its own, whoever notices it first."""

from __future__ import annotations

import os

import numpy as np
import pytest

from larrey_client.frames import memory_file, seal
from larrey_client.shared_memory import is_shared_memory_full
from larrey_client.trainer_link import TrainTask
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout
from larrey_protocol.tensors import pack


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is …"), True),
        (RuntimeError("unable to write to file </torch_7_1>: No space left on device"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), False),
        (ValueError("killed by signal: Bus error"), False),
    ],
)
def test_what_torch_says_of_full_shared_memory_is_known(error: Exception, is_it: bool) -> None:
    assert is_shared_memory_full(error) is is_it


@pytest.mark.system
def test_a_training_that_ends_by_a_bus_error_is_reported_with_the_remedy(
    make_study, table, apps, cold_link
):
    study = make_study(app="bus")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:bus_error")
    model = seal(memory_file("model", [pack(model_layout(study), np.zeros(5, np.float32))]))
    try:
        with pytest.raises(LarreyError, match="shared-memory-full") as caught:
            cold_link.train(TrainTask(study.digest, 1, "train", "alpha"), model, timeout_s=60)
    finally:
        os.close(model)
    assert "--shm-size" in caught.value.next_step


@pytest.mark.system
def test_an_app_whose_loader_ran_out_of_shared_memory_is_reported_alike(
    make_study, table, apps, cold_link
):
    study = make_study(app="loader")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:loader_died")
    model = seal(memory_file("model", [pack(model_layout(study), np.zeros(5, np.float32))]))
    try:
        with pytest.raises(LarreyError, match="shared-memory-full"):
            cold_link.train(TrainTask(study.digest, 1, "train", "alpha"), model, timeout_s=60)
    finally:
        os.close(model)
