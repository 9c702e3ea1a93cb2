"""The system calls that the standard library lacks, and what needs nothing else but them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

__all__ = [
    "KERNEL_SAYS_NO",
    "leave_network",
    "limit_memory",
    "no_more_privileges",
    "prctl",
    "syscall",
    "withdraw",
]

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_GET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 3, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
KERNEL_SAYS_NO = "the kernel says no"


def syscall(number: int, *arguments: object) -> int:
    """Return the result of a system call; -1 with `ctypes.get_errno` set where it failed."""
    return int(_libc().syscall(ctypes.c_long(number), *arguments))


def prctl(option: int, value: int = 0, pointer: object = None) -> int:
    """Return what the system call of this name returns."""
    zero = ctypes.c_ulong(0)
    return int(_libc().prctl(option, ctypes.c_ulong(value), pointer, zero, zero))


def leave_network() -> str:
    """Give this process an empty network of its own; return why that failed, or "".

    Needs this process's own /proc files, so it comes before `withdraw`.
    Source: unshare(2), user_namespaces(7).
    """
    user, group = os.geteuid(), os.getegid()
    libc = _libc()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return "" if libc.unshare(_CLONE_NEWNET) == 0 else KERNEL_SAYS_NO
    with contextlib.suppress(OSError):  # without a map the user id merely reads as "nobody"
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return ""


def limit_memory(limit_bytes: int) -> str:
    """Bound this process's own memory and make it the kernel's first victim; "" or why not.

    RLIMIT_DATA counts private writable memory and leaves address space alone, of which torch and
    CUDA reserve far more than they use. Shared memory files are outside it; the out-of-memory
    score sees to it that, should those fill the machine, this process ends and not its agent.
    Source: getrlimit(2), proc_pid_oom_score_adj(5).
    """
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    except (OSError, ValueError):  # ValueError: above a limit that this process already has
        return KERNEL_SAYS_NO
    return "" if limit_bytes else "no limit was given"


def withdraw() -> tuple[str, str]:
    """Leave no core, be traceable by nobody, end with the parent; return why a core, tracing."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_PR_SET_DUMPABLE, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    core = "" if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else KERNEL_SAYS_NO
    return core, "" if prctl(_PR_GET_DUMPABLE) == 0 else KERNEL_SAYS_NO


def no_more_privileges() -> None:
    """Let no program give this process more rights; filters and Landlock ask for it."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
