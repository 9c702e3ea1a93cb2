"""Conducts one study: a thread, an inbox, and the rules of `larrey_server.rounds`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed
from larrey_protocol.study import Study
from larrey_server.aggregator import Aggregator
from larrey_server.journal import Journal
from larrey_server.rounds import Courier, TaskKey
from larrey_server.spool import Spool

__all__ = ["Conductor"]


class Conductor:
    """One study's loop; all methods are thread-safe and never block, but `join`."""

    def __init__(  # noqa: PLR0913 - the study's whole surroundings, named
        self,
        study: Study,
        *,
        journal: Journal,
        spool: Spool,
        aggregator: Aggregator,
        courier: Courier,
        clock: Callable[[], float],  # monotonic seconds; deadlines are measured with it
        publish: Callable[[dict[str, Any]], None],  # Any: JSON
        signer: SigningKey,
    ) -> None:
        raise NotImplementedError

    def launch(self, sites: Sequence[str]) -> None:
        """Start round 1 with the sites that approved."""

    def resume(self) -> None:
        """Go on from the journal after a restart; sites are reported by `site_up` as they come."""

    def reply(
        self, site: str, task_key: TaskKey, *, update: str, receipt: Signed | None, code: str
    ) -> None:
        """Take a site's answer: an update that lies in the spool, or a code."""

    def site_up(self, site: str) -> None:
        """Say that a site is connected."""

    def site_down(self, site: str) -> None:
        """Say that a site's connection ended."""

    def status(self) -> dict[str, Any]:  # Any: JSON
        """Return the facts that a person watches."""
        raise NotImplementedError

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the study's end; False if it has not ended."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the loop without ending the study; it goes on from the journal."""
