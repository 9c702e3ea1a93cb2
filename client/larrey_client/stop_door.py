"""What the local door takes about stops: pause and halt at once, the rest with a signed order.

Every command has a thread of its own; none waits for a training or an approval that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from larrey_client.closing import Closing
from larrey_client.leaving import leave
from larrey_client.local import Handler
from larrey_client.node import Node
from larrey_client.stopping import resume, stop
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Signed

__all__ = ["stop_handlers"]

Json = dict[str, Any]  # Any: JSON values are recursive


def stop_handlers(node: Node, closing: Closing) -> Mapping[str, Handler]:
    """Return the handlers; each may raise what the function that it calls raises."""

    def halt(request: Mapping[str, Any], actor: str) -> Json:  # Any: JSON
        done = stop(node.store, "halt", str(request.get("study") or ""), actor)
        node.trainer.interrupt("" if done["study"] == "all" else done["study"])
        return done

    def pause(request: Mapping[str, Any], actor: str) -> Json:  # Any: JSON
        return stop(node.store, "pause", str(request.get("study") or ""), actor)

    def terms(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        """Say what an order about a study, or about all, has to name."""
        reference = str(request.get("study") or "")
        with node.store.reading() as records:
            subject = records.find(reference).study.digest if reference else ""
            return {"site": node.site, "subject": subject, "after": node.store.audit_head}

    def going_on(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        people = node.cases.dossier.people
        return resume(node.store, _signed(request), people, site=node.site)

    def close(request: Mapping[str, Any], actor: str) -> Json:  # Any: JSON
        with node.store.reading() as records:
            known = records.find(str(request["study"]))
        if known.decision is None:
            raise Refusal("not-approved", "this study was never approved: nothing of it is here")
        return closing.close(known.study.digest, actor)

    def going(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        return leave(node, closing, _signed(request), node.cases.dossier.people)

    return {
        "halt": halt,
        "pause": pause,
        "stop terms": terms,
        "resume": going_on,
        "study close": close,
        "leave": going,
    }


def _signed(request: Mapping[str, Any]) -> Signed:  # Any: JSON
    return Signed.from_bytes(str(request["signed"]).encode())
