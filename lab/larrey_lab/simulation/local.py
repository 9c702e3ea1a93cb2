"""The engine in one process: any ClientApp, called for one site after the other.

The model is encoded once a round and shared by all messages; each site has its own message and
context, and an app that changes what it was sent would change it for the sites after it (ours
copies first). What a site keeps between rounds is in its context. Imports neither torch nor Ray,
so that an app in numpy stays light.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from larrey_client.arrays import flat_of, record_of
from larrey_client.remembering import KEPT
from larrey_lab.simulation.rounds import Request
from larrey_protocol.errors import LarreyError
from larrey_protocol.tensors import TensorLayout
from larrey_strategies.contract import Vector

__all__ = ["Letters", "LocalSites"]

_TTL_S = 3600.0
_TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Letters:
    """How a federation's messages look.

    Attributes:
        layout: of the model and of each update.
        names: of the sites, in roster order; each is in its messages' ``config``.
        study: the JSON that each message carries.
        incoming: of a message: the model, then what travels with it; None for the model alone.
    """

    layout: TensorLayout
    names: tuple[str, ...]
    study: str = ""
    incoming: TensorLayout | None = None

    def record(self, request: Request) -> ArrayRecord:
        """Return what all sites of a round are sent; shared between their messages."""
        vectors = [request.start, *request.shared.values()]
        return record_of(
            self.incoming or self.layout, np.concatenate(vectors) if vectors[1:] else vectors[0]
        )

    def content(self, site: int, number: int, arrays: ArrayRecord) -> RecordDict:
        """Return what one site is sent in a round."""
        config = ConfigRecord({"study": self.study, "round": number, "site": self.names[site]})
        return RecordDict({"arrays": arrays, "config": config})

    def update(self, reply: Message) -> Vector:
        """Return the update in a reply.

        Raises:
            LarreyError: ``app-failed`` for a reply without arrays, ``reply-wrong-tensors``.
        """
        arrays = reply.content.get("arrays") if reply.has_content() else None
        if not isinstance(arrays, ArrayRecord):
            raise LarreyError("app-failed", "a site's app sent no 'arrays'", "Correct the app.")
        return flat_of(arrays, self.layout)


class LocalSites:
    """Asks a ClientApp for each site's update; an `Ask` of `larrey_lab.simulation.rounds`."""

    def __init__(
        self, app: ClientApp, letters: Letters, *, done: Callable[[], None] = lambda: None
    ) -> None:
        """Make the sites; ``done`` is called after each answer."""
        self._app, self._letters, self._done = app, letters, done
        count = len(letters.names)
        self._contexts = [
            Context(0, site, {"partition-id": site, "num-partitions": count}, RecordDict(), {})
            for site in range(count)
        ]

    def __call__(self, request: Request) -> list[Vector]:
        """Return the updates of the request's sites, in their order.

        Raises:
            LarreyError: what the app raises; as `Letters.update`.
        """
        arrays = self._letters.record(request)
        return [self._update(site, request.number, arrays) for site in request.sites]

    def kept(self, site: int) -> ArrayRecord | None:
        """Return what a site keeps for its algorithm, by its place; None before its first round."""
        record = self._contexts[site].state.get(KEPT)
        return record if isinstance(record, ArrayRecord) else None

    def _update(self, site: int, number: int, arrays: ArrayRecord) -> Vector:
        content = self._letters.content(site, number, arrays)
        # Metadata of its own: Flower's shorter constructor reads identities global to a process.
        metadata = Metadata(0, "", 0, site, "", str(number), time.time(), _TTL_S, _TRAIN)
        message = Message(content=content, metadata=metadata)  # type: ignore[call-overload]
        update = self._letters.update(self._app(message, self._contexts[site]))
        self._done()
        return update
