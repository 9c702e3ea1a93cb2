"""Whether training failed because its device went away. Imports torch only where one is tried.

A container can lose its GPU while it runs (a reloaded service manager on cgroup v2 takes the
device away: "NVML: Unknown Error"), a driver can fall off the bus. That is nobody's data and
nobody's study, so it has a code of its own, ``device-lost``. Running out of memory and assertions
on the device depend on what is computed; they stay ``trainer-failed``.
"""

from __future__ import annotations

from collections.abc import Iterator

from larrey_protocol.errors import LarreyError

__all__ = ["device_lost", "is_device_lost", "require_device"]

_MOST_CAUSES = 8
_OF_THE_DEVICE = (
    "CUDA error",
    "CUDA driver",
    "CUDA unknown error",
    "CUDA initialization",
    "Found no NVIDIA driver",
    "HIP error",
    "NVML",
    "No CUDA GPUs are available",
    "Torch not compiled with CUDA enabled",
    "cuBLAS error",
    "cuDNN error",
    "CUBLAS_STATUS_",
    "CUDNN_STATUS_",
)  # torch 2.13, c10/cuda/CUDAException.h and torch/cuda/__init__.py
_OF_THE_WORK = ("device-side assert", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_device_lost(error: BaseException) -> bool:
    """Return whether an error, or what caused it, says that the device does not answer."""
    chain = list(_causes(error))
    if any(mark in str(one) for one in chain for mark in _OF_THE_WORK):
        return False
    return any(_is_of_device(one) for one in chain)


def _is_of_device(error: BaseException) -> bool:
    if type(error).__name__ == "AcceleratorError":  # torch's own, for any failed call of a device
        return True
    is_plain = isinstance(error, RuntimeError | AssertionError)
    return is_plain and any(mark in str(error) for mark in _OF_THE_DEVICE)


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def device_lost() -> LarreyError:
    """Return the error to report; it says nothing of what the device said."""
    return LarreyError(
        "device-lost",
        "the device of the training does not answer",
        'Look at nvidia-smi in the trainer\'s container; trainer.device = "cpu" needs none.',
    )


def require_device(device: str) -> None:
    """Return if the device answers; asked before epsilon is reserved.

    Raises:
        LarreyError: ``device-lost``.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device).item()
    except Exception as error:
        if is_device_lost(error):
            raise device_lost() from None
        raise
