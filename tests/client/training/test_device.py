"""A device that goes away has a code of its own, and the next request meets a new process."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from larrey_client.device import is_device_lost, require_device
from larrey_client.frames import memory_file, seal
from larrey_client.trainer_link import TrainerLink, TrainTask
from larrey_client.trainer_process import Limits
from larrey_protocol.encodings import decode, encode
from larrey_protocol.envelope import check_update, read_encoded
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout, phase_layout
from larrey_protocol.tensors import pack


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        torch.AcceleratorError("CUDA error: the launch timed out and was terminated"),
        RuntimeError("CUDA error: no CUDA-capable device is detected"),
        RuntimeError("Can't initialize NVML"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("Found no NVIDIA driver on your system."),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        AssertionError("Torch not compiled with CUDA enabled"),
        caused(ValueError("the step failed"), RuntimeError("CUDA error: unknown error")),
    ],
)
def test_what_torch_says_of_a_lost_device_is_known(error: Exception) -> None:
    assert is_device_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("CUDA error: in a text that quotes it"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        caused(RuntimeError("CUDA error"), RuntimeError("device-side assert triggered")),
        MemoryError(),
    ],
)
def test_what_depends_on_the_rows_or_the_model_is_not_a_lost_device(error: Exception) -> None:
    assert not is_device_lost(error)


def test_causes_that_go_round_in_a_circle_are_looked_at_once_in_a_while() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_device_lost(first)


def test_the_processor_is_always_there_and_another_device_is_tried() -> None:
    require_device("cpu")
    with pytest.raises(LarreyError, match="device-lost"):
        require_device("cuda:99")


@pytest.mark.system
def test_a_trainer_without_its_device_says_so_before_epsilon_is_touched_and_is_ended(
    make_study, table
):
    link = TrainerLink.start(Limits(device="cuda:99", readable=(table.parent,)), warm=False)
    try:
        with pytest.raises(LarreyError, match="device-lost"):
            link.load(make_study(), site="alpha", data=table)
        assert not link.alive
    finally:
        link.stop()


@pytest.mark.system
def test_a_standard_app_that_loses_its_device_is_reported_and_the_process_is_replaced(
    make_study, table, apps, cold_link
):
    study = make_study(app="lost")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:device_lost")
    first = cold_link.pid
    model = seal(memory_file("model", [pack(model_layout(study), np.zeros(5, np.float32))]))
    try:
        with pytest.raises(LarreyError, match="device-lost"):
            cold_link.train(TrainTask(study.digest, 1, "train", "alpha"), model, timeout_s=60)
        assert not cold_link.alive
        with pytest.raises(LarreyError, match="device-lost"):
            cold_link.train(TrainTask(study.digest, 1, "train", "alpha"), model, timeout_s=60)
        assert cold_link.pid != first
    finally:
        os.close(model)


@pytest.mark.system
def test_an_update_leaves_the_trainer_in_the_encoding_of_its_study(
    make_study, table, apps, cold_link
):
    start = np.linspace(-1, 1, 5).astype(np.float32)
    change = (start + np.float32(1)) - start
    for encoding in ("float16", "int8"):
        study = make_study(app="shift", encoding=encoding)
        cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one")
        model = seal(memory_file("model", [pack(model_layout(study), start)]))
        update = cold_link.train(TrainTask(study.digest, 1, "train", "alpha"), model, timeout_s=60)
        layout = phase_layout(study, "train")
        check_update(update, layout, norm_bound=3.0)
        values = decode(*read_encoded(update, layout, 0, 5), np.empty(5, np.float32))
        assert np.array_equal(values, decode(*encode(encoding, change), np.empty(5, np.float32)))
        os.close(update)
        os.close(model)
