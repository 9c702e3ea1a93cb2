"""The two logs beside the node's facts: what left, and who used which command; and their ends.

Copies of what left go when their study closes or after ``policy.egress_days``, lines of the access
log after ``policy.access_log_months``. While an incident is open nothing is purged.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from larrey_client.dossier import read_dossier
from larrey_client.egress_log import EgressLog, open_log
from larrey_client.incident import open_incidents, require_no_incident
from larrey_client.settings import Policy, SiteSettings
from larrey_client.store import SiteStore
from larrey_protocol.access_log import Access, AccessLog

__all__ = ["Logs", "kept_of", "open_logs", "purge", "purge_study"]

logger = logging.getLogger(__name__)

_PURGE_EVERY_S = 3600.0
_MANY = 100_000  # as many things as a deletion receipt can name


@dataclass(frozen=True, slots=True)
class Logs:
    """The logs of one node."""

    egress: EgressLog
    access: AccessLog

    def used(self, actor: str, verb: str, code: str, person: str = "") -> None:
        """Write down that somebody used a command; ``person`` is who signed what they brought."""
        self.access.add(Access(time.time(), actor, verb, code, person))


@contextmanager
def open_logs(
    settings: SiteSettings, store: SiteStore, stopping: threading.Event
) -> Iterator[Logs]:
    """Yield the logs of a state folder; what is past its time is purged, now and every hour."""
    logs = Logs(EgressLog(settings.site.state), AccessLog(settings.site.state))

    def forever() -> None:
        while True:
            try:
                purge(logs, store, _in_effect(store, settings), time.time())
            except Exception:
                logger.exception("logs were not purged")
            if stopping.wait(_PURGE_EVERY_S):
                return

    thread = threading.Thread(target=forever, name="purge", daemon=True)
    thread.start()
    try:
        yield logs
    finally:
        stopping.set()
        thread.join()
        logs.egress.close()
        logs.access.close()


def _in_effect(store: SiteStore, settings: SiteSettings) -> Policy:
    """Return the policy that the hospital's people signed: the file alone deletes nothing."""
    with store.reading() as records:
        return read_dossier(records, settings.consortium.key).policy(settings.policy)


def kept_of(state: Path, study: str) -> int:
    """Return how many copies of what left for a study are still kept."""
    log = open_log(state)
    try:
        return len({one["digest"] for one in log.messages(study, last=_MANY) if one["is_kept"]})
    finally:
        log.connection.close()


def purge_study(logs: Logs, store: SiteStore, study: str) -> int:
    """Drop the copies of what left for a study that is being closed; return how many went.

    Raises:
        Refusal: ``incident-open``.
    """
    with store.reading() as records:
        require_no_incident(records)
    return logs.egress.purge(now=0.0, days=0.0, closed=[study])


def purge(logs: Logs, store: SiteStore, policy: Policy, now: float) -> int:
    """Drop what is past its time; return how many payloads and lines went.

    Args:
        logs: of the node.
        store: tells open incidents and closed studies.
        policy: how long.
        now: seconds since 1970.
    """
    with store.reading() as records:
        if open_incidents(records):
            return 0
        closed = [json.loads(one.document)["study"] for one in records.documents("deletionreceipt")]
    gone = logs.egress.purge(now=now, days=policy.egress_days, closed=closed)
    return gone + logs.access.purge(now=now, months=policy.access_log_months)
