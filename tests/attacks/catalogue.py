"""The list of attacks, `attacks.toml`, and the functions that try them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ACTS", "FILE", "Act", "Attack", "attack", "load"]

FILE = Path(__file__).with_name("attacks.toml")
ATTACKERS = ("coordinator", "site", "outsider", "administrator", "trainer")
SURFACES = ("gate", "documents", "transport", "tensors", "ledger", "enrolment", "data")


@dataclass(frozen=True)
class Attack:
    """One entry of the list.

    Attributes:
        title: what the attacker tries.
        code: what it ends in at the site, or at the coordinator where that is attacked.
        leaves: all that is sent in answer; empty where nothing is.
        spends: why ledger units may be used, empty where none may.
        until: what ends that the node refuses everything, empty where it goes on serving.
    """

    id: str
    title: str
    attacker: str
    surface: str
    code: str
    leaves: tuple[str, ...] = ()
    spends: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        if self.attacker not in ATTACKERS or self.surface not in SURFACES:
            raise ValueError(f"attack {self.id}: unknown attacker or surface")


@dataclass(frozen=True)
class Act:
    """How an attack is tried; ``target`` names the stand it is tried on."""

    run: Callable[[Any], str]  # Any: the stand; returns the code that it ended in
    target: str
    alone: bool


ACTS: dict[str, Act] = {}


def attack(
    name: str, *, target: str = "site", alone: bool = False
) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Register the function that tries the attack ``name``.

    Args:
        name: id in the list.
        target: "site" or "office".
        alone: on a stand of its own, because it leaves it changed.
    """

    def register(run: Callable[..., str]) -> Callable[..., str]:
        if name in ACTS:
            raise ValueError(f"two functions try {name}")
        ACTS[name] = Act(run, target, alone)
        return run

    return register


def load() -> list[Attack]:
    """Return the list in its order."""
    entries = tomllib.loads(FILE.read_text(encoding="utf-8"))["attack"]
    return [Attack(**entry | {"leaves": tuple(entry.get("leaves", ()))}) for entry in entries]
