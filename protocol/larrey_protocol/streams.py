"""How both ends of the border carry large files: stream windows and reuse of buffers.

Speed and memory only; no guarantee depends on it. `bench.memory` measures what follows from these
values; that they are better than the defaults was tried once, by hand, on a busy machine.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["STREAM_OPTIONS", "reuse_buffers"]

STREAM_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.http2.max_frame_size", 4 << 20),
    # Fixed windows: estimated ones grow on a fast path and fill when the other side is busy, which
    # with 16 sites costs several times the memory; 2 MiB still carry 100 MB/s at 20 ms of delay.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2 << 20),
    ("grpc.keepalive_time_ms", 30_000),  # finds a peer whose network vanished
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # grpcio 1.85 waits for this one, by itself a minute
)
# glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
_SETTINGS = ((-1, 64 << 20), (-3, 8 << 20), (-8, 2))


def reuse_buffers() -> None:
    """Let the C library keep buffers up to 8 MiB instead of returning each one to the kernel.

    Else every 1 MiB buffer of a transfer or a training step is mapped, cleared and unmapped anew.
    Does nothing where the C library is not glibc.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for name, value in _SETTINGS:
            library.mallopt(name, value)
