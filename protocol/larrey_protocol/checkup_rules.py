"""Rules of a doctor that are the same at a site and at the coordinator. Pure but for the key."""

from __future__ import annotations

from pathlib import Path

from larrey_protocol.checkup import Outcome, Skip, Text
from larrey_protocol.checkup_probes import REMOTE
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey

__all__ = ["is_whole_key", "remote", "slow_flush"]


def remote(kind: str) -> Outcome:
    """Return a fault where a file system of that kind lies on another machine."""
    return Text(kind, kind) if kind in REMOTE else None


def slow_flush(seconds: float | None, most_s: float) -> Outcome:
    """Return a fault where making a write durable takes longer than ``most_s``."""
    if seconds is None:
        return Skip(Text("nothing can be written", "rien ne peut être écrit"))
    if seconds <= most_s:
        return None
    ms = seconds * 1000
    return Text(f"one takes {ms:.0f} ms", f"une écriture prend {ms:.0f} ms")


def is_whole_key(path: Path) -> bool:
    """Return whether a file holds a signing key; who may read it is a check of its own."""
    try:
        SigningKey.load(path)
    except LarreyError as error:
        return error.code == "key-exposed"
    except (OSError, ValueError):
        return False
    return True
