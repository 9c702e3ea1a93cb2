"""What people ask of the site's proofs: what left, who did what, incidents; asked of the node.

The same functions answer inside a running node and in a command while none runs.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from larrey_client import incident, trail, views
from larrey_client.egress_log import DATABASE, open_log
from larrey_client.local import Handler, account
from larrey_client.node import Node
from larrey_client.records import SiteRecords
from larrey_client.settings import SiteSettings
from larrey_client.store import SiteStore, open_readonly
from larrey_protocol.access_log import AccessLog
from larrey_protocol.canonical import digest_bytes, digest_of
from larrey_protocol.errors import UsageError
from larrey_protocol.keys import SigningKey

__all__ = [
    "access_view",
    "bundle",
    "change_offline",
    "egress_view",
    "export_view",
    "handlers",
    "open_incident",
    "query_view",
    "verify_view",
]

Json = Any  # Any: JSON values are recursive
Asked = Mapping[str, Any]  # Any: JSON


def handlers(node: Node) -> Mapping[str, Handler]:
    """Return what the local door can be asked about proofs."""
    settings, store, key = node.settings, node.store, node.key
    state = settings.site.state

    def reading(view: Any, *arguments: Any) -> Any:  # Any: one of several views
        connection = open_readonly(state)
        try:
            return view(connection, *arguments)
        finally:
            connection.close()

    def close(request: Asked, actor: str) -> Json:
        return close_incident(store, key, settings, int(request["number"]), actor)

    return {
        "audit verify": lambda _request, _actor: reading(verify_view, state, key.public),
        "audit query": lambda request, _actor: reading(query_view, request),
        "audit access": lambda request, _actor: access_view(state, request),
        "audit export": lambda request, _actor: reading(
            export_view, settings, key.public, str(request.get("membership") or "")
        ),
        "egress": lambda request, _actor: reading(egress_view, state, request),
        "incident open": lambda request, actor: open_incident(store, key, settings, request, actor),
        "incident close": close,
        "incident list": lambda _request, _actor: reading(incidents_view),
    }


def verify_view(connection: sqlite3.Connection, state: Path, key: str) -> Json:
    """Return counts and heads of ledger, trail and receipts, all of them checked.

    Raises:
        IntegrityError: as `larrey_client.views.verify_view` and `larrey_client.trail`.
    """
    found = trail.verify_trail(connection, state, key)
    return views.verify_view(connection, key) | found


def query_view(connection: sqlite3.Connection, asked: Asked) -> Json:
    """Return the trail's rows that were asked for."""
    return trail.query(
        connection,
        trail.Asked(
            study=str(asked.get("study") or ""),
            dataset=str(asked.get("dataset") or ""),
            since=float(asked.get("since") or 0.0),
            until=float(asked.get("until") or "inf"),
            action=str(asked.get("action") or ""),
            actor=str(asked.get("actor") or ""),
        ),
    )


def export_view(
    connection: sqlite3.Connection, settings: SiteSettings, key: str, membership: str
) -> Json:
    """Return trail and receipts for one membership's coordinator to compare.

    Raises:
        UsageError: ``membership-unknown`` or ``membership-required``.
    """
    scope = settings.member(membership).scope
    return trail.export(connection, settings.site.state, settings.site.name, key, scope)


def access_view(state: Path, asked: Asked) -> Json:
    """Return who used which command."""
    log = AccessLog(state)
    try:
        return log.rows(
            since=float(asked.get("since") or 0.0), until=float(asked.get("until") or "inf")
        )
    finally:
        log.close()


def egress_view(connection: sqlite3.Connection, state: Path, asked: Asked) -> Json:
    """Return what left: messages, counted polls, and the bytes of all of them.

    Raises:
        UsageError: ``study-unknown`` or ``study-ambiguous``.
    """
    reference, since = str(asked.get("study") or ""), float(asked.get("since") or 0.0)
    study = SiteRecords(connection).find(reference).study.digest if reference else ""
    if not (state / DATABASE).is_file():
        return {"messages": [], "polls": [], "total_bytes": 0}
    log = open_log(state)
    try:
        return {
            "messages": log.messages(study, since=since),
            "polls": [] if study else log.polls(since=since),
            "total_bytes": log.total_bytes(),
        }
    finally:
        log.connection.close()


def incidents_view(connection: sqlite3.Connection) -> Json:
    """Return all incidents and the hours that are left."""
    return incident.incidents_view(SiteRecords(connection), time.time())


def open_incident(
    store: SiteStore, key: SigningKey, settings: SiteSettings, asked: Asked, actor: str
) -> Json:
    """Open an incident and return it."""
    study = str(asked.get("study") or "")
    if study:
        with store.reading() as records:
            study = records.find(study).study.digest
    opening = incident.Opening(str(asked.get("kind")), study, actor)
    return incident.open_incident(
        store, key, opening, site=settings.site.name, now=time.time()
    ).model_dump()


def close_incident(
    store: SiteStore, key: SigningKey, settings: SiteSettings, number: int, actor: str
) -> Json:
    """Close an incident and return when."""
    return incident.close_incident(
        store, key, number, site=settings.site.name, actor=actor, now=time.time()
    ).model_dump()


def change_offline(settings: SiteSettings, command: str, asked: Asked) -> Json:
    """Do what the local door would, while no node runs.

    Raises:
        UsageError: ``state-locked`` if one does.
    """
    key = SigningKey.load(settings.identity.signing_key)
    actor = account()
    store = SiteStore.open(settings.site.state, time.time)
    try:
        store.on_audit = trail.Seal(store, settings.site.name, key, time.time).write
        if command == "incident close":
            return close_incident(store, key, settings, int(asked["number"]), actor)
        return open_incident(store, key, settings, asked, actor)
    finally:
        store.close()


def bundle(settings: SiteSettings, config: Path, number: int) -> bytes:
    """Return an incident's bundle, made from the state folder; no rows, no keys, no payloads.

    Raises:
        UsageError: ``incident-unknown``.
    """
    state, site = settings.site.state, settings.site.name
    key = SigningKey.load(settings.identity.signing_key)
    connection = open_readonly(state)
    try:
        found = incidents_view(connection)
        if number not in {one["number"] for one in found}:
            raise UsageError("incident-unknown", f"there is no incident {number}", "")
        files = {
            "access": access_view(state, {}),
            "config": {
                "file": digest_bytes(config.read_bytes()),
                "policy": digest_of(settings.policy.model_dump(mode="json")),
            },
            "documents": _documents(connection),
            "egress": egress_view(connection, state, {}),
            "incidents": found,
            "trail": trail.export(connection, state, site, key.public),
        }
    finally:
        connection.close()
    return incident.make_bundle(files, key, site=site, incident=number, now=time.time())


def _documents(connection: sqlite3.Connection) -> Json:
    """Return every signed document that is kept, but those that digest patients' sets."""
    rows = connection.execute(
        "SELECT signed FROM documents WHERE kind != 'registration' ORDER BY rowid"
    )
    return [json.loads(bytes(signed)) for (signed,) in rows.fetchall()]
