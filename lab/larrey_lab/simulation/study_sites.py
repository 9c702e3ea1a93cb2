"""A study's sites for an engine: one ClientApp that plays whichever site a message names."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from larrey_client.app import make_app
from larrey_lab.simulation.rounds import Ask, Request
from larrey_privacy.cohort import Cohort
from larrey_protocol.encodings import Encoding, decode, encode
from larrey_protocol.errors import LarreyError
from larrey_strategies.contract import Vector

__all__ = ["as_read", "site_app"]


def site_app(cohort_of: Callable[[str], Cohort]) -> ClientApp:
    """Return the hospital's own app over cohorts that are at hand.

    Args:
        cohort_of: a site's cohort; asked for once a message, so that it should remember.
    """
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        config = message.content["config"]
        if not isinstance(config, ConfigRecord):
            raise LarreyError("message-malformed", "expected 'config' in the message")
        return make_app(cohort=cohort_of(str(config["site"])))(message, context)

    return client


def as_read(ask: Ask, encoding: Encoding) -> Ask:
    """Return ``ask`` with each update as a coordinator reads it: encoded and decoded."""
    if encoding == "float32":
        return ask

    def read(request: Request) -> list[Vector]:
        return [_decoded(encoding, update) for update in ask(request)]

    return read


def _decoded(encoding: Encoding, update: Vector) -> Vector:
    scales, codes = encode(encoding, update)
    return decode(scales, codes, update)
