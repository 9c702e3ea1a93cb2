"""Whether training failed because the machine's shared memory was full.

Containers have 64 MiB in /dev/shm unless asked for more. Who writes there beyond that ends by a bus
error (SIGBUS), and torch says of its loader's workers what it saw. Nothing of it depends on what a
row holds, so it has a code of its own, ``shared-memory-full``, with the remedy.
"""

from __future__ import annotations

from larrey_protocol.errors import LarreyError

__all__ = ["REMEDY", "is_shared_memory_full", "shared_memory_full"]

REMEDY = (
    "Start the container with --shm-size=1g (Kubernetes: an emptyDir of medium Memory at the"
    " place), or let the app load without workers (num_workers=0)."
)
_MARKS = (
    "killed by signal: Bus error",
    "out of shared memory",
    "insufficient shared memory",
    "unable to allocate shared memory",
    "unable to write to file </torch_",
)  # torch 2.13, torch/csrc/DataLoader.cpp, torch/utils/data/_utils, ATen/MapAllocator.cpp


def is_shared_memory_full(error: BaseException) -> bool:
    """Return whether an error says so, as torch puts it."""
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _MARKS)


def shared_memory_full() -> LarreyError:
    """Return the error to report."""
    return LarreyError(
        "shared-memory-full", "a process of the training wrote to full shared memory", REMEDY
    )
