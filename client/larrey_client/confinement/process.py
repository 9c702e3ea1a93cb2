"""Confine a process that reads patients' rows: what it needs, and nothing else of the machine.

`confine` is all for the trainer. It is not a sandbox against the kernel: a flaw there, or in a
graphics driver, is a way out.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larrey_client.confinement.barriers import Isolation
from larrey_client.confinement.kernel import (
    leave_network,
    limit_memory,
    no_more_privileges,
    withdraw,
)
from larrey_client.confinement.landlock import Rules, Stands, restrict
from larrey_client.confinement.seccomp import forbid_sockets

__all__ = ["Plan", "confine", "memory_limit", "restrict_files", "system_files"]

# Of /etc only what the C library reads: a node's own settings often lie beside it.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/lib32"),
    *(f"/etc/{name}" for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload")),
    *(f"/etc/{name}" for name in ("localtime", "timezone", "nsswitch.conf", "passwd", "group")),
    *(f"/etc/{name}" for name in ("hosts", "host.conf", "mime.types", "alternatives")),
    *(f"/proc/{name}" for name in ("self", "cpuinfo", "meminfo", "stat", "version", "filesystems")),
    *("/proc/sys/vm", "/proc/sys/kernel", "/sys/devices/system", "/sys/kernel/mm"),
    *("/sys/fs/cgroup", "/dev/urandom", "/dev/random", "/dev/zero"),
)
_GRAPHICS = ("/sys", "/proc/driver", "/proc/devices", "/proc/modules", "/etc/OpenCL", "/etc/vulkan")
_HEADROOM = 1 << 30  # bytes for the agent and the system


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process may keep.

    Attributes:
        readable: files and folders with rows, beside what every Python process needs.
        scratch: a folder of its own to write to, "" for none.
        hidden: files and folders that must stay closed to it; they are tried.
        memory_bytes: 0 for no limit.
        device: "cpu" or "cuda…".
    """

    readable: tuple[str, ...] = ()
    scratch: str = ""
    hidden: tuple[str, ...] = ()
    memory_bytes: int = 0
    device: str = "cpu"

    @classmethod
    def parse(cls, frame: dict[str, Any]) -> Plan:
        """Return the plan in a frame from the agent."""
        return cls(
            readable=tuple(frame["readable"]),
            scratch=frame["scratch"],
            hidden=tuple(frame["hidden"]),
            memory_bytes=frame["memory_bytes"],
            device=frame["device"],
        )


def confine(plan: Plan) -> Isolation:
    """Confine this process for good, without any network; return which barriers stand."""
    namespace = leave_network()  # first: needs our own /proc files, and clears the signal below
    memory = limit_memory(plan.memory_bytes)
    core, tracing = withdraw()
    no_more_privileges()
    files = restrict_files(plan)
    return Isolation(
        {
            "namespace": namespace,
            "filter": forbid_sockets(),
            "landlock": files.files,
            "landlock-tcp": files.tcp,
            "landlock-scope": files.scope,
            "memory": memory,
            "core": core,
            "tracing": tracing,
        }
    )


def restrict_files(plan: Plan, *, connect_ports: Sequence[int] = ()) -> Stands:
    """Close all files that the plan does not name and try those that must be closed."""
    is_cuda = plan.device.startswith("cuda")
    stands = restrict(
        Rules(
            readable=(*system_files(), *(_GRAPHICS if is_cuda else ()), *plan.readable),
            writable=("/dev/null", *((plan.scratch,) if plan.scratch else ())),
            devices=tuple(map(str, Path("/dev").glob("nvidia*"))) if is_cuda else (),
            connect_ports=connect_ports,
        )
    )
    if not stands.files and any(_opens(path) for path in plan.hidden):
        reason = "keys or state lie in a folder that must be readable"
        return Stands(reason, stands.tcp, stands.scope)
    return stands


def system_files() -> list[str]:
    """Return what any Python process reads: the system's libraries and the import path."""
    ours = {sys.prefix, sys.base_prefix, sys.exec_prefix, *filter(os.path.isabs, sys.path)}
    return [*_SYSTEM, *sorted(ours - {"/"})]


def memory_limit(asked_mb: int | None) -> int:
    """Return the bytes that a trainer may use: as asked, or what the machine has less a headroom.

    What the machine has is the smaller of its memory and of its container's limit; the headroom is
    1 GiB, at most half.
    """
    if asked_mb is not None:
        return asked_mb << 20
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        has = min(has, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return max(has - _HEADROOM, has // 2)


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
