"""Which membership of a running node a study, a name or an order belongs to.

People speak of studies by name; each is its own consortium's. Two consortia may choose one name:
then only a digest says which study is meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from larrey_client.agent import Agent
from larrey_protocol.errors import IntegrityError, UsageError
from larrey_protocol.signed import Signed

__all__ = ["Members"]


class Members:
    """The agents of one node, one a membership, the first one first."""

    def __init__(self, agents: Iterable[Agent]) -> None:
        self._agents = tuple(agents)

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents)

    @property
    def first(self) -> Agent:
        """Return the membership of ``[coordinator]`` and ``[consortium]``."""
        return self._agents[0]

    @property
    def is_connected(self) -> bool:
        """Return whether any coordinator answered lately."""
        return any(agent.is_connected for agent in self._agents)

    @property
    def is_registered(self) -> bool:
        """Return whether any coordinator ever answered since this node started."""
        return any(agent.is_registered for agent in self._agents)

    @property
    def clock_offset_s(self) -> float | None:
        """Return the coordinators' clocks less ours, the one that differs most; None if unknown."""
        known = [one.clock_offset_s for one in self._agents if one.clock_offset_s is not None]
        return max(known, key=abs, default=None)

    def named(self, name: str) -> Agent:
        """Return a membership by its name; an empty one means the only one there is.

        Raises:
            UsageError: ``membership-unknown`` or ``membership-required``.
        """
        return self._scoped(self.first.node.settings.member(name).scope)

    def of(self, reference: str) -> Agent:
        """Return the membership of a study, given by name or digest.

        Raises:
            UsageError: ``study-unknown``, ``study-ambiguous`` or ``membership-unknown``.
        """
        with self.first.node.store.reading() as records:
            found = records.everywhere.matching(reference)
        scopes = {known.scope for known in found}
        if len(scopes) > 1:
            raise UsageError(
                "study-ambiguous",
                f"'{reference}' means studies of several consortia",
                "Give its digest; see: larrey-site study list",
            )
        return self._scoped(scopes.pop() if scopes else "")

    def of_document(self, signed: Signed, field: str) -> Agent:
        """Return the membership of the study, or the scope, that a signed document names.

        A study that nobody proposed is the first membership's, which refuses it.

        Raises:
            IntegrityError: ``malformed-document``.
        """
        try:
            named = str(json.loads(signed.document)[field])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise IntegrityError(
                "malformed-document", f"expected a document with {field}"
            ) from error
        if field != "study":
            return self._scoped(named)
        with self.first.node.store.reading() as records:
            return self._scoped(records.scope_of(named) or "")

    def _scoped(self, scope: str) -> Agent:
        for agent in self._agents:
            if agent.node.membership.scope == scope:
                return agent
        raise UsageError(
            "membership-unknown",
            "the membership that this belongs to is not in site.toml any more",
            "Put its [[memberships]] entry back and restart the node.",
        )
