"""What may stop a node or its training later, judged before anything runs. Pure rules.

`larrey_client.preflight_facts` measures; one table of checks judges what was measured. A check
finds nothing where all is well; what it finds is either sure to fail or likely to, one day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from larrey_client.shared_memory import REMEDY

__all__ = ["CHECKS", "Chain", "Check", "Facts", "Finding", "Place", "is_ready", "judge"]

Level = Literal["warn", "fail"]

_GIB = 1 << 30
_LEAST_FREE = 1 << 30  # bytes: a model, its update, the ledger and the trail
_LEAST_MEMORY = 1 << 30  # bytes: torch alone takes half of it
_LEAST_SHARED = 1 << 30  # bytes; containers have 64 MiB unless asked
_WARN_DAYS = 14.0
_WORST_CLOCK_S = 300.0  # certificates are dated back by as much


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder that a setting names.

    Attributes:
        setting: key in ``site.toml``, e.g. ``datasets.heart.path``.
        path: as it is used.
        trouble: why it cannot be read or written, "" if it can.
        is_readonly: it is on a volume that is mounted read-only.
        free_bytes: on its volume; 0 where unknown.
    """

    setting: str
    path: str
    trouble: str = ""
    is_readonly: bool = False
    free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """What one membership's certificates and its coordinator say.

    Attributes:
        membership: its name.
        address: of the coordinator.
        trouble: code of what keeps us from it, "" if both sides accept each other.
        authority: subject of the certificate authority in ``site.toml``.
        issuer: who signed the coordinator's certificate; "" where it did not show one.
        ours: who signed this site's certificate.
        is_ours_issued: the authority in ``site.toml`` signed it.
        days_left: until this site's certificate ends; negative once it has.
        days_old: since it began; negative where it is not yet valid.
    """

    membership: str
    address: str
    trouble: str
    authority: str
    issuer: str
    ours: str
    is_ours_issued: bool
    days_left: float
    days_old: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured on this machine.

    Attributes:
        data: files and folders with rows.
        state: where the node writes.
        roots: folders that hold data and nothing else, e.g. of images.
        writable: folders on this machine that the node could write to, best first.
        memory_bytes: that the trainer may use.
        shared_bytes: size of /dev/shm, None where there is none.
        has_apps: standard Flower apps may run here; they may load data by worker processes.
        device: of the trainer.
        device_answers: None where it was not tried.
        cgroup: "systemd", "cgroupfs", "" outside a container, "unknown" where it does not show.
        chains: one a membership.
        clock_offset_s: the coordinator's clock less ours, None where unknown.
        is_clock_kept: whether the kernel says that something keeps its clock; None if unknown.
    """

    data: tuple[Place, ...] = ()
    state: Place = Place("site.state", "")
    roots: tuple[Place, ...] = ()
    writable: tuple[str, ...] = ()
    memory_bytes: int = 8 * _GIB
    shared_bytes: int | None = 8 * _GIB
    has_apps: bool = False
    device: str = "cpu"
    device_answers: bool | None = None
    cgroup: str = ""
    chains: tuple[Chain, ...] = ()
    clock_offset_s: float | None = None
    is_clock_kept: bool | None = True


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found: stable code, sentence, remedy."""

    check: str
    level: Level
    code: str
    message: str
    remedy: str


_Found = tuple[Level, str, str, str]  # level, code, message, remedy


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table: its name, what it looks at, and the rule."""

    name: str
    title: str
    rule: Callable[[Facts], Iterator[_Found]]


def judge(facts: Facts) -> list[Finding]:
    """Return what all checks find, in the order of the table."""
    return [Finding(check.name, *found) for check in CHECKS for found in check.rule(facts)]


def is_ready(findings: list[Finding]) -> bool:
    """Return whether nothing found is sure to fail."""
    return all(found.level != "fail" for found in findings)


def _data(facts: Facts) -> Iterator[_Found]:
    for place in facts.data:
        if place.trouble:
            yield (
                "fail",
                "data-unreadable",
                f"{place.setting}: {place.path}: {place.trouble}",
                "Correct the path, or let the account that runs the node read it.",
            )


def _state(facts: Facts) -> Iterator[_Found]:
    state = facts.state
    remedy = (
        f"Set {state.setting} to a folder on a writable volume, here: {facts.writable[0]}"
        if facts.writable
        else f"Mount a writable volume and set {state.setting} to a folder on it."
    )
    if state.is_readonly:
        yield (
            "fail",
            "state-read-only",
            f"{state.setting}: {state.path} is on a volume that is mounted read-only",
            remedy,
        )
    elif state.trouble:
        text = f"{state.setting}: {state.path}: {state.trouble}"
        yield "fail", "state-not-writable", text, remedy
    elif state.free_bytes < _LEAST_FREE:
        free = state.free_bytes >> 20
        text = f"{state.setting}: {state.path} has {free} MiB free; models and updates need more"
        yield "warn", "state-nearly-full", text, "Free some space, or use a larger volume."


def _beside_data(facts: Facts) -> Iterator[_Found]:
    for root in facts.roots:
        if f"{facts.state.path}/".startswith(f"{root.path.rstrip('/')}/"):
            yield (
                "fail",
                "state-among-data",
                f"{facts.state.setting}: {facts.state.path} lies in {root.setting}, {root.path}",
                "Keep the node's state outside the folders with data; nothing is written there.",
            )


def _memory(facts: Facts) -> Iterator[_Found]:
    if facts.memory_bytes < _LEAST_MEMORY:
        text = f"the trainer may use {facts.memory_bytes >> 20} MiB; torch alone needs half a GiB"
        yield "warn", "memory-small", text, "Give the container or trainer.memory_mb 2 GiB or more."
    shared = facts.shared_bytes
    if facts.has_apps and (shared is None or shared < _LEAST_SHARED):
        yield (
            "warn",
            "shared-memory-small",
            (
                f"shared memory (/dev/shm) has {(shared or 0) >> 20} MiB; a listed app that loads"
                " data by worker processes dies with a bus error when it is full"
            ),
            REMEDY,
        )


def _device(facts: Facts) -> Iterator[_Found]:
    if facts.device_answers is False:
        yield (
            "fail",
            "device-lost",
            f"trainer.device = '{facts.device}' does not answer",
            'Look at nvidia-smi here; trainer.device = "cpu" needs none.',
        )
    if facts.device != "cpu" and facts.cgroup in {"systemd", "unknown"}:
        known = "is" if facts.cgroup == "systemd" else "may be"
        yield (
            "warn",
            "device-may-vanish",
            (
                f"the container's cgroup driver {known} systemd on cgroup v2: after `systemctl"
                " daemon-reload` on the host a running container can lose its GPU (NVML: Unknown"
                " Error)"
            ),
            (
                "Give the GPU by CDI (nvidia-ctk cdi generate), or name its device nodes to the"
                " container, or use the cgroupfs driver; see NVIDIA Container Toolkit."
            ),
        )


def _chains(facts: Facts) -> Iterator[_Found]:
    for chain in facts.chains:
        yield from _coordinator(chain)
        yield from _own_certificate(chain)


def _coordinator(chain: Chain) -> Iterator[_Found]:
    where = f"{chain.membership}: the coordinator at {chain.address}"
    match chain.trouble:
        case "":
            return
        case "coordinator-untrusted":
            text = (
                f"{where} shows a certificate issued by '{chain.issuer or 'unknown'}', and"
                f" coordinator.authority is '{chain.authority}'"
            )
            remedy = (
                "If the consortium confirms by phone that it changed its authority, put the new"
                " one in coordinator.authority and join again; else somebody is in between."
            )
        case "coordinator-closed":
            text = f"{where} refuses this site's certificate, which '{chain.ours}' issued"
            remedy = "Ask the consortium whether this site's membership stands, then join again."
        case _:
            text = f"{where} cannot be reached"
            remedy = "Open one outbound TCP connection to it in the firewall; check the address."
    yield "fail", chain.trouble, text, remedy


def _own_certificate(chain: Chain) -> Iterator[_Found]:
    name = f"{chain.membership}: this site's certificate"
    if not chain.is_ours_issued:
        yield (
            "fail",
            "certificate-foreign",
            (
                f"{name} was issued by '{chain.ours}', not by '{chain.authority}' of"
                " coordinator.authority"
            ),
            "The two belong to different times; ask the consortium for an invitation and join.",
        )
    if chain.days_old < 0:
        text = f"{name} is valid only from {-chain.days_old:.1f} days on, by this machine's clock"
        yield "fail", "certificate-not-yet-valid", text, "Correct this machine's clock."
    if chain.days_left < 0:
        text = f"{name} ended {-chain.days_left:.1f} days ago"
        yield "fail", "certificate-ended", text, "Ask the consortium for an invitation and join."
    elif chain.days_left < _WARN_DAYS:
        text = f"{name} ends in {chain.days_left:.1f} days"
        yield "warn", "certificate-ends-soon", text, "A node that runs and is connected renews it."


def _clock(facts: Facts) -> Iterator[_Found]:
    offset = facts.clock_offset_s
    if offset is not None and abs(offset) > _WORST_CLOCK_S:
        text = f"this machine's clock and the coordinator's differ by {abs(offset):.0f} s"
        yield "fail", "clock-off", text, "Keep both by NTP; permits and certificates have dates."
    elif offset is None and facts.is_clock_kept is False:
        text = "nothing keeps this machine's clock, says its kernel"
        yield "warn", "clock-not-kept", text, "Run chrony or systemd-timesyncd on the host."


CHECKS: tuple[Check, ...] = (
    Check("data", "the rows can be read", _data),
    Check("state", "the state folder can be written", _state),
    Check("beside-data", "nothing is written among data", _beside_data),
    Check("memory", "memory and shared memory suffice", _memory),
    Check("device", "the training's device answers and stays", _device),
    Check("coordinator", "certificates and coordinator fit", _chains),
    Check("clock", "the clock is right", _clock),
)
