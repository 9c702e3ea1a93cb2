"""A filter under which no socket can be made, or streams of the internet family alone.

Source: Linux manual pages seccomp(2), bpf(2); include/uapi/linux/{audit,filter,seccomp}.h.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket

from larrey_client.confinement.kernel import KERNEL_SAYS_NO, prctl

__all__ = ["forbid_sockets"]

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _DENY, _KILL = 0x7FFF_0000, 0x0005_0000 | errno.EPERM, 0x8000_0000
# Classic BPF: load a word, jump if equal or at least, keep bits, return.
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _FAMILY, _KIND = 0, 4, 16, 24  # offsets in seccomp_data, little-endian
_KIND_BITS = 0xF  # the rest of the type are flags
# Audit architecture and numbers of socket(2), socketpair(2) (whose datagram sockets can send to any
# local one, the system log for instance) and io_uring_setup(2) (which can make sockets too).
_CALLS = {"x86_64": (0xC000_003E, 41, 53, 425), "aarch64": (0xC000_00B7, 198, 199, 425)}
_X32 = 0x4000_0000  # second call table of x86_64


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def forbid_sockets(*, internet_streams: bool = False) -> str:
    """Deny this process new sockets for good; return why that failed, or "".

    With ``internet_streams`` it may still make streams of the internet family (AF_INET), for use
    in a network namespace that leads nowhere but where it should.
    """
    machine = platform.machine()
    if machine not in _CALLS:
        return f"not known for {machine}"
    lines = _filter(*_CALLS[machine], internet_streams=internet_streams)
    program = _Program(len(lines), (_Instruction * len(lines))(*lines))
    if prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)) != 0:
        return KERNEL_SAYS_NO
    return "the filter has no effect" if _can_make(socket.AF_UNIX) else ""


def _filter(
    audit: int, make: int, pair: int, ring: int, *, internet_streams: bool
) -> list[_Instruction]:
    """Return the program: a foreign call table ends the process, a denied call fails."""
    deny, allow = _Instruction(_RETURN, 0, 0, _DENY), _Instruction(_RETURN, 0, 0, _ALLOW)
    head = [
        _Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        _Instruction(_EQUAL, 1, 0, audit),
        _Instruction(_RETURN, 0, 0, _KILL),
        _Instruction(_LOAD, 0, 0, _NUMBER),
        _Instruction(_AT_LEAST, 0, 1, _X32),
        deny,
        _Instruction(_EQUAL, 0, 1, pair),
        deny,
        _Instruction(_EQUAL, 0, 1, ring),
        deny,
        _Instruction(_EQUAL, 1, 0, make),
        allow,
    ]
    if not internet_streams:
        return [*head, deny]
    return [
        *head,
        _Instruction(_LOAD, 0, 0, _FAMILY),
        _Instruction(_EQUAL, 1, 0, socket.AF_INET),
        deny,
        _Instruction(_LOAD, 0, 0, _KIND),
        _Instruction(_AND, 0, 0, _KIND_BITS),
        _Instruction(_EQUAL, 1, 0, socket.SOCK_STREAM),
        deny,
        allow,
    ]


def _can_make(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True
