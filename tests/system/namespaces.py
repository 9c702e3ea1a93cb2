"""Networks of a test's own: two namespaces with one cable, and a record of every packet sent.

Addresses are from the ranges set aside for documentation (RFC 5737, RFC 3849); nothing is forwarded
anywhere, but there is a default route, so that whatever is attempted leaves and is recorded.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

import pytest

COORDINATOR, NODE = "192.0.2.1", "192.0.2.2"
_NEWNET = 0x4000_0000  # CLONE_NEWNET, linux/sched.h
_ETH_P_ALL, _OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
_SOL_PACKET, _STATISTICS = 263, 6
_NAMES = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp6"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Contact:
    """Whom a packet was sent to; port 0 where the protocol has none."""

    protocol: str
    host: str
    port: int


@dataclass(frozen=True)
class Network:
    """A network namespace, alive as long as its descriptor is open."""

    fd: int

    def run(self, work: Callable[[], _T]) -> _T:
        """Return what ``work`` returns in a thread that is in this namespace; so are its children.

        A namespace belongs to a thread, so the thread is not used again.
        """

        def inside() -> _T:
            _checked(_libc().setns(self.fd, _NEWNET))
            return work()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(inside).result()

    def ip(self, *commands: str) -> None:
        for command in commands:
            words = ["ip", *command.split()]
            self.run(lambda words=words: subprocess.run(words, check=True))  # type: ignore[misc]


@contextmanager
def cabled() -> Iterator[tuple[Network, Network]]:
    """Give the coordinator's network and the node's; skip where this account may not make them."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (Debian package iproute2)")
    first = _new_network()
    second = _new_network()
    try:
        peer = f"/proc/{os.getpid()}/fd/{second.fd}"
        first.ip(f"link add larrey0 type veth peer name larrey1 netns {peer}")
        for network, device, number in ((first, "larrey0", 1), (second, "larrey1", 2)):
            network.ip(
                "link set lo up",
                f"link set {device} up",
                f"address add 192.0.2.{number}/30 dev {device}",
                f"-6 address add 2001:db8::{number}/64 dev {device} nodad",
            )
        second.ip("route add default via 192.0.2.1", "-6 route add default via 2001:db8::1")
        yield first, second
    finally:
        os.close(first.fd)
        os.close(second.fd)


class Record:
    """Everything that is sent in a namespace, on every device, loopback too."""

    def __init__(self, network: Network) -> None:
        self._socket = network.run(_packets)
        self._contacts: set[Contact] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def contacts(self) -> set[Contact]:
        """Return whom anything was sent to; fails if a packet escaped the record."""
        raw = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        assert struct.unpack("=II", raw)[1] == 0, "the record has a gap"
        return set(self._contacts)

    def _read(self) -> None:
        while True:
            try:
                data, (_, _, kind, *_) = self._socket.recvfrom(128)
            except OSError:  # closed
                return
            if kind == _OUTGOING and (contact := _contact(data)):
                self._contacts.add(contact)


def _contact(data: bytes) -> Contact | None:
    """Return the destination of an IP packet, None for the kernel's own upkeep of IPv6."""
    version = data[0] >> 4
    if version == 4:
        protocol, host, rest = data[9], data[16:20], data[(data[0] & 0xF) * 4 :]
    elif version == 6:
        protocol, host, rest = data[6], data[24:40], data[40:]
        if protocol == 0:  # hop-by-hop options, before multicast reports
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
        if protocol == 58 and 130 <= rest[0] <= 143:  # neighbours, routers, multicast groups
            return None
    else:  # ARP
        return None
    name = _NAMES.get(protocol, str(protocol))
    port = int.from_bytes(rest[2:4], "big") if name in ("tcp", "udp") else 0
    return Contact(name, str(ip_address(host)), port)


def _packets() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    return made


def _new_network() -> Network:
    def make() -> int:
        _checked(_libc().unshare(_NEWNET))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    try:
        with ThreadPoolExecutor(1) as pool:
            return Network(pool.submit(make).result())
    except PermissionError:
        pytest.skip("this account may not make network namespaces")


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
