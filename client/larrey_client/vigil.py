"""Watching over the other sites: this one keeps their anchors and gives them back.

Anchors come beside requests. After each connection that was made anew the coordinator gets all
those kept before, since it may have lost its own: one that is honest again then tells every site
what it once signed. What this very connection brought is not sent back over it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

from larrey_client.node import Node
from larrey_client.witnessed import keep_witnessed, witnessed
from larrey_protocol.errors import Refusal
from larrey_protocol.roster import Seat

__all__ = ["Vigil"]

logger = logging.getLogger(__name__)

_MOST = 256  # anchors taken beside one request, and given back over one connection


class Vigil:
    """Keeps and returns the anchors of the sites on the roster; used by one thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._is_told = False

    def keep(self, anchors: Iterable[bytes]) -> int:
        """Keep other sites' anchors that are newer than those kept; return how many."""
        data = [bytes(one) for one in islice(anchors, _MOST)]
        store, others = self._node.store, self._others()
        return keep_witnessed(store, others, data, at_once=False) if data else 0

    def tell(self) -> None:
        """Give back, once a connection, what is kept of the others.

        Raises:
            TransportError: the coordinator cannot be reached; what is left is told next time.
        """
        if self._is_told:
            return
        for data in witnessed(self._node.store, self._others()[:_MOST]):
            try:
                self._node.exchange.tell(data)
            except Refusal as error:  # the border's: what a site signed is not in its form
                logger.warning("an anchor of another site stays here: %s", error)
        self._is_told = True

    def disconnected(self) -> None:
        """Take note that whoever answers next may know less."""
        self._is_told = False

    def _others(self) -> tuple[Seat, ...]:
        return tuple(s for s in self._node.cases.dossier.roster.sites if s.name != self._node.site)
