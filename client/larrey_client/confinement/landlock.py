"""Landlock: what this process may still open, for good, whatever account it runs under.

Everything is denied but what is named: no other file is opened, no program started, no folder
changed, and, where the kernel knows how, no TCP connection made and no process outside signalled.
Source: Linux kernel, Documentation/userspace-api/landlock.rst; include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from larrey_client.confinement.kernel import KERNEL_SAYS_NO, syscall

__all__ = ["Rules", "Stands", "kernel_version", "restrict"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_ASK_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_OF_FOLDERS = 0b1_1111_1111_0000  # remove and make entries of every kind
_CONNECT_TCP, _ALL_TCP = 1 << 1, 0b11
_SCOPES = 0b11  # abstract Unix sockets, signals
# Rights on files that each version knows, and first versions of the other two.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_SINCE, _SCOPE_SINCE = 4, 6


@dataclass(frozen=True, slots=True)
class Rules:
    """Files and folders (with all beneath) that stay open to this process; missing ones do not."""

    readable: Sequence[str]
    writable: Sequence[str] = ()
    devices: Sequence[str] = ()  # read, write and control
    connect_ports: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Stands:
    """Why files, TCP and scope are not restricted; empty where they are."""

    files: str
    tcp: str
    scope: str


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _PortAttr(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def kernel_version() -> int:
    """Return the version of Landlock that this kernel has, 0 for none."""
    return max(0, syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION)))


def restrict(rules: Rules) -> Stands:
    """Restrict this thread and those it will start; needs `no_more_privileges` before."""
    version = kernel_version()
    if not version:
        return Stands(*["this kernel has no Landlock"] * 3)
    files = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]
    tcp = _ALL_TCP if version >= _TCP_SINCE else 0
    scope = _SCOPES if version >= _SCOPE_SINCE else 0
    size = 24 if scope else 16 if tcp else 8  # the structure grew with the versions
    attributes = _RulesetAttr(files, tcp, scope)
    ruleset = syscall(_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return Stands(*[KERNEL_SAYS_NO] * 3)
    try:
        _allow(ruleset, rules.readable, (_READ_FILE | _READ_DIR) & files)
        writable = _READ_FILE | _READ_DIR | _WRITE_FILE | _OF_FOLDERS | _TRUNCATE
        _allow(ruleset, rules.writable, writable & files)
        _allow(ruleset, rules.devices, (_READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL) & files)
        for port in rules.connect_ports if tcp else ():
            _add(ruleset, _NET_PORT, _PortAttr(_CONNECT_TCP, port))
        if syscall(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)) != 0:
            return Stands(*[KERNEL_SAYS_NO] * 3)
    finally:
        os.close(ruleset)
    return Stands(
        "", *("" if known else f"Landlock {version} is too old" for known in (tcp, scope))
    )


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # not on this system: nothing to allow
            continue
        try:
            of_folders = 0 if os.path.isdir(path) else _READ_DIR | _OF_FOLDERS
            _add(ruleset, _PATH_BENEATH, _PathAttr(rights & ~of_folders, place))
        finally:
            os.close(place)


def _add(ruleset: int, kind: int, attributes: ctypes.Structure) -> None:
    """Add a rule; one that the kernel does not take leaves its files closed."""
    syscall(
        _ADD,
        ctypes.c_int(ruleset),
        ctypes.c_int(kind),
        ctypes.byref(attributes),
        ctypes.c_uint32(0),
    )
