"""What the local door takes about stops: pause and halt at once, the rest with a signed order.

And what comes after the last round: deletion, or a model of the site's own.

Every command has a thread of its own; none waits for a training or an approval that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from larrey_client.agent import Agent
from larrey_client.leaving import departure_of, leave
from larrey_client.local import Handler
from larrey_client.members import Members
from larrey_client.personalising import personalise
from larrey_client.stopping import resume, stop
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Signed

__all__ = ["stop_handlers"]

Json = dict[str, Any]  # Any: JSON values are recursive


def stop_handlers(members: Members) -> Mapping[str, Handler]:
    """Return the handlers; each may raise what the function that it calls raises."""
    node = members.first.node

    def halt(request: Mapping[str, Any], actor: str) -> Json:  # Any: JSON
        done = stop(node.store, "halt", str(request.get("study") or ""), actor)
        node.trainer.interrupt("" if done["study"] == "all" else done["study"])
        return done

    def pause(request: Mapping[str, Any], actor: str) -> Json:  # Any: JSON
        return stop(node.store, "pause", str(request.get("study") or ""), actor)

    def terms(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        """Say what an order about a study, about all, or about a membership has to name."""
        reference, name = str(request.get("study") or ""), request.get("membership")
        with node.store.reading() as records:
            subject = records.everywhere.find(reference).study.digest if reference else ""
            if name is not None:
                subject = members.named(str(name)).node.membership.scope
            return {"site": node.site, "subject": subject, "after": node.store.audit_head}

    def going_on(request: Mapping[str, Any], _actor: str) -> Json:  # Any: JSON
        people = node.cases.dossier.people
        return resume(node.store, _signed(request), people, site=node.site)

    def close(request: Mapping[str, Any], actor: str) -> Json:  # Any: JSON
        with node.store.reading() as records:
            known = records.everywhere.find(str(request["study"]))
        if known.decision is None:
            raise Refusal("not-approved", "this study was never approved: nothing of it is here")
        return members.of(known.study.digest).closing.close(known.study.digest, actor)

    return {
        "halt": halt,
        "pause": pause,
        "stop terms": terms,
        "resume": going_on,
        "study close": close,
        "study personalise": lambda request, actor: _own_model(members, request, actor),
        "leave": lambda request, _actor: _leave(members, request),
    }


def _own_model(members: Members, request: Mapping[str, Any], actor: str) -> Json:  # Any: JSON
    with members.first.node.store.reading() as records:
        digest = records.everywhere.find(str(request["study"])).study.digest
    return personalise(members.of(digest).node, digest, request, actor)


def _leave(members: Members, request: Mapping[str, Any]) -> Json:  # Any: JSON
    signed = _signed(request)
    leaving = members.of_document(signed, "subject")
    others = [agent for agent in members if agent is not leaving and not _has_left(agent)]
    people = leaving.node.cases.dossier.people
    return leave(leaving.node, leaving.closing, signed, people, is_last=not others)


def _has_left(agent: Agent) -> bool:
    with agent.node.store.reading() as records:
        return departure_of(records) is not None


def _signed(request: Mapping[str, Any]) -> Signed:  # Any: JSON
    return Signed.from_bytes(str(request["signed"]).encode())
