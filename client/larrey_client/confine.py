"""What the trainer process may not do: reach a network, leave a core dump, outlive its agent.

Linux only, by the system calls themselves, since the standard library offers none of them. Must run
before any thread exists and before numerical libraries are imported. Two independent barriers hold
the network off: an empty network namespace where the kernel grants one, and a seccomp filter under
which no socket can be made at all (not even to a local daemon). What could not be enforced is
reported, never assumed. Not here: files of the same user stay readable.
Source: Linux manual pages prctl(2), seccomp(2), unshare(2), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Barriers", "confine"]

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_SECCOMP_MODE_FILTER = 2
_ALLOW, _DENY, _KILL = 0x7FFF_0000, 0x0005_0000 | 1, 0x8000_0000  # deny: errno EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF instructions
# Audit architecture and numbers of socket(2), socketpair(2) (whose datagram sockets can send to any
# local one, the system log for instance) and io_uring_setup(2) (which can make sockets too).
_CALLS = {"x86_64": (0xC000_003E, 41, 53, 425), "aarch64": (0xC000_00B7, 198, 199, 425)}
_X32 = 0x4000_0000  # second call table of x86_64


@dataclass(frozen=True, slots=True)
class Barriers:
    """Which barriers to the network stand."""

    namespace: bool
    filter: bool

    def __str__(self) -> str:
        """Return "namespace+filter", one of them, or "open"."""
        names = [
            n for n, stands in (("namespace", self.namespace), ("filter", self.filter)) if stands
        ]
        return "+".join(names) or "open"


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def confine() -> Barriers:
    """Confine this process for good and return which barriers to the network stand."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = _leave_network(
        libc
    )  # first: needs our own /proc files, and clears the signal below
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    installed = _forbid_sockets(libc)
    return Barriers(namespace, installed and not _can_make_socket())


def _leave_network(libc: ctypes.CDLL) -> bool:
    """Return whether this process now has an empty network of its own."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return bool(libc.unshare(_CLONE_NEWNET) == 0)
    with contextlib.suppress(OSError):  # without a map the user id merely reads as "nobody"
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def _forbid_sockets(libc: ctypes.CDLL) -> bool:
    """Return whether the kernel took a filter that denies every way to make a socket."""
    if platform.machine() not in _CALLS:
        return False
    audit, *denied = _CALLS[platform.machine()]
    lines = _filter(audit, denied)
    program = _Program(len(lines), (_Instruction * len(lines))(*lines))
    return _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)) == 0


def _filter(audit: int, denied: list[int]) -> list[_Instruction]:
    """Return the program: a foreign call table ends the process, a denied call fails."""
    calls = [_Instruction(_EQUAL, len(denied) - i, 0, n) for i, n in enumerate(denied)]
    return [
        _Instruction(_LOAD, 0, 0, 4),  # seccomp_data.arch
        _Instruction(_EQUAL, 1, 0, audit),
        _Instruction(_RETURN, 0, 0, _KILL),
        _Instruction(_LOAD, 0, 0, 0),  # seccomp_data.nr
        _Instruction(_AT_LEAST, len(denied) + 1, 0, _X32),
        *calls,
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _DENY),
    ]


def _prctl(libc: ctypes.CDLL, option: int, value: int, pointer: object = 0) -> int:
    return int(libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0))


def _can_make_socket() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True
