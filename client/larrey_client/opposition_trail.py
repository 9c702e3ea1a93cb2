"""Who changed the opposition list, on the audit trail: act, account and a band; no patient.

The list itself holds keyed hashes (`larrey_client.data.opposition`); none of them comes here, since
the trail is shown to auditors and to the coordinator.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from larrey_client.data.opposition import Kind
from larrey_client.data.violation import band
from larrey_client.local import ask
from larrey_client.store import SiteStore
from larrey_protocol.errors import TransportError, UsageError

__all__ = ["note_objections", "tell_trail"]

Json = dict[str, Any]  # Any: JSON values are recursive
_ACTS = {"oppose": "opposition-added", "withdraw": "opposition-withdrawn"}


def tell_trail(state: Path, kind: Kind, count: int, actor: str, now: float) -> None:
    """Have the running node note it; where none runs, note it here."""
    try:
        ask(state, "opposition noted", kind=kind, count=count)
    except TransportError as error:
        if error.code != "agent-not-running":
            raise
        with closing(SiteStore.open(state, lambda: now)) as store:
            note_objections(store, kind, count, actor)


def note_objections(store: SiteStore, kind: str, count: int, actor: str) -> Json:
    """Put on the trail that somebody changed the opposition list; no hash, no exact number.

    Raises:
        UsageError: ``request-malformed`` for another kind than the list has.
    """
    if kind not in _ACTS:
        raise UsageError("request-malformed", "expected objections or their withdrawal")
    with store.transaction():
        store.audit(_ACTS[kind], actor, subject=f"patients {band(count)}")
    return {}
