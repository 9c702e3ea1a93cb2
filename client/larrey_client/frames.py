"""Frames between the agent and its trainer: small JSON values, with files passed beside them.

A frame is four bytes of length, then JSON, and at most four open files (models and updates in
memory files, never copied through the socket). Limits hold as on a network, because the trainer
runs code that the agent does not have to trust. Nothing is ever unpickled.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any

from larrey_protocol.errors import TransportError

__all__ = [
    "MAX_FDS",
    "MAX_FRAME_BYTES",
    "PeerClosed",
    "is_sealed",
    "memory_file",
    "receive_frame",
    "seal",
    "send_frame",
]

MAX_FRAME_BYTES = 1 << 20  # documents that can be larger travel as files
MAX_FDS = 4
_PREFIX = 4  # bytes of the length, big-endian
# Nobody can change, cut or unseal the file any more: what was checked is what is sent.
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class PeerClosed(TransportError):
    """The other process is gone."""

    def __init__(self) -> None:
        super().__init__("peer-closed", "the other process closed the connection")


def send_frame(peer: socket.socket, value: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send ``value`` (JSON) and duplicates of ``fds``; the caller keeps its own.

    Raises:
        TransportError: ``frame-too-large``, or ``peer-closed``.
    """
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > MAX_FRAME_BYTES or len(fds) > MAX_FDS:
        raise _bad("too-large", f"has {len(body)} bytes and {len(fds)} files")
    data = len(body).to_bytes(_PREFIX, "big") + body
    try:
        sent = socket.send_fds(peer, [data], list(fds)) if fds else 0
        peer.sendall(memoryview(data)[sent:])
    except (BrokenPipeError, ConnectionResetError) as error:
        raise PeerClosed from error


def receive_frame(
    peer: socket.socket, *, deadline: float | None = None
) -> tuple[dict[str, Any], list[int]]:
    """Return the next frame and the files that came with it, which the caller must close.

    Args:
        peer: a stream socket of the Unix family.
        deadline: on `time.monotonic`'s clock; None waits for ever.

    Raises:
        TimeoutError: the whole frame was not there in time.
        TransportError: ``frame-too-large``, ``frame-malformed`` or ``peer-closed``; the stream is
            then unusable.
    """
    _arm(peer, deadline)
    try:
        prefix, fds, is_cut = _receive_prefix(peer)
    except ConnectionResetError as error:
        raise PeerClosed from error
    try:
        return _parse(peer, prefix, is_cut=is_cut, deadline=deadline), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _receive_prefix(peer: socket.socket) -> tuple[bytes, list[int], bool]:
    """Return the first bytes, the files, and whether files were lost for want of room.

    Not `socket.recv_fds`, which drops the flag that keeps files from child processes.
    """
    fds = array.array("i")
    room = socket.CMSG_LEN(MAX_FDS * fds.itemsize)
    prefix, extra, flags, _ = peer.recvmsg(_PREFIX, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return prefix, list(fds), bool(flags & socket.MSG_CTRUNC)


def _parse(
    peer: socket.socket, prefix: bytes, *, is_cut: bool, deadline: float | None
) -> dict[str, Any]:
    if not prefix:
        raise PeerClosed
    if is_cut:
        raise _bad("malformed", f"brings more than {MAX_FDS} files")
    prefix += _receive(peer, _PREFIX - len(prefix), deadline)
    length = int.from_bytes(prefix, "big")
    if length > MAX_FRAME_BYTES:
        raise _bad("too-large", f"announces {length} bytes")
    try:
        value = json.loads(_receive(peer, length, deadline))
    except (ValueError, RecursionError) as error:
        raise _bad("malformed", "is not JSON") from error
    if not isinstance(value, dict):
        raise _bad("malformed", "is not a JSON object")
    return value


def _receive(peer: socket.socket, count: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < count:
        _arm(peer, deadline)
        try:
            part = peer.recv(count - len(data))
        except ConnectionResetError as error:
            raise PeerClosed from error
        if not part:
            raise PeerClosed
        data += part
    return bytes(data)


def _arm(peer: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        peer.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no complete frame before the deadline")
    peer.settimeout(left)


def memory_file(name: str, parts: Iterable[bytes | memoryview] = ()) -> int:
    """Return a descriptor of a new memory file that holds ``parts``; seal it before passing it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> int:
    """Make a memory file immutable for everybody and for ever; return ``fd``.

    Raises:
        OSError: somebody still maps it writable.
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def is_sealed(fd: int) -> bool:
    """Return whether ``fd`` is a memory file that can no longer change."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:  # not a memory file
        return False


def _bad(kind: str, what: str) -> TransportError:
    return TransportError(f"frame-{kind}", f"a frame between agent and trainer {what}")
