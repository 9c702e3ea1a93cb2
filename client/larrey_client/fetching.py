"""The model of a request on its way in: fetched, resumed, checked before anything is spent."""

from __future__ import annotations

import os

from larrey_client.inbox import Current
from larrey_client.model_spool import ModelSpool
from larrey_client.node import Node
from larrey_client.outbox import patiently
from larrey_protocol.envelope import check_update
from larrey_protocol.errors import Refusal
from larrey_protocol.tensors import TensorLayout

__all__ = ["fetch_model"]


def fetch_model(
    node: Node, models: ModelSpool, current: Current, layout: TensorLayout, *, deadline: float
) -> int:
    """Return a descriptor of the model file, whole and checked; the caller closes it.

    A cut transfer goes on where it was cut; it ends when nobody awaits the answer any more.

    Args:
        node: whose coordinator is asked.
        models: where it lies.
        current: the request that names it.
        layout: of the study's models.
        deadline: on the monotonic clock.

    Raises:
        Refusal: ``superseded``, ``model-…``: it is not one of the study, or not finite.
        IntegrityError: ``model-altered``.
        TransportError: it could not be fetched in time.
        LarreyError: ``disk-full``.
    """
    task = current.task

    def attempt(_: int) -> int:
        current.require()
        left = max(deadline - node.monotonic(), 0.001)
        if not download.is_whole:
            with node.exchange.about(*task.key[:3]):
                node.exchange.fetch(
                    download, timeout_s=left, goes_on=lambda: not current.is_overtaken
                )
            current.require()
        return download.finish()

    with models.begin(task.study, task.model, layout.nbytes) as download:
        model = patiently(node, attempt, deadline=deadline)
    try:
        _check_model(model, layout)
    except BaseException:
        os.close(model)
        raise
    return model


def _check_model(model: int, layout: TensorLayout) -> None:
    """Refuse a model that is not the study's, or not finite; it came from outside."""
    try:
        check_update(model, layout, norm_bound=float("inf"))
    except Refusal as error:
        code = error.code.replace("update-", "model-")
        raise Refusal(code, "the model sent is not one of this study", "") from error
