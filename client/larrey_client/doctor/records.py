"""Ledger, audit trail, receipts, witness and the opposition list; and whether a node runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from larrey_client.data.opposition import entries
from larrey_client.local import ask
from larrey_client.settings import SiteSettings
from larrey_client.store import open_readonly
from larrey_protocol.checkup import Check, Outcome, Skip, Text
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey

__all__ = ["CHECKS", "Facts", "look"]

_NONE = Text("no node ever ran here", "aucun nœud n'a encore tourné ici")


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured; codes are empty where all is well.

    Attributes:
        has_state: a node ran here before.
        trail: code of what is wrong with the audit trail.
        ledger: code of what is wrong with the ledger and the receipts.
        witness: code of what the witness file says; None where there is none.
        opposition: code of what is wrong with the opposition list.
        is_running: a node answers.
        is_connected: it reaches all its coordinators; they know it.
        trouble: code of what keeps it from that.
        is_policy_signed: the policy is in effect; None where no node runs.
    """

    has_state: bool
    trail: str = ""
    ledger: str = ""
    witness: str | None = None
    opposition: str = ""
    is_running: bool = False
    is_connected: bool = False
    trouble: str = ""
    is_policy_signed: bool | None = None


def look(settings: SiteSettings) -> Facts:
    """Measure; reads alone, beside a running node too."""
    state = settings.site.state
    opposition = ""
    try:
        entries(state)
    except LarreyError as error:
        opposition = error.code
    status = _status(settings)
    said: dict[str, Any] = status or {}  # Any: JSON
    try:
        connection = open_readonly(state)
    except LarreyError:
        return Facts(has_state=False, opposition=opposition)
    with closing(connection):
        trail, ledger = _verified(connection, settings)
        witness = _witnessed(connection, settings)
    policy = said.get("policy")
    return Facts(
        has_state=True,
        trail=trail,
        ledger=ledger,
        witness=witness,
        opposition=opposition,
        is_running=status is not None,
        is_connected=bool(said.get("is_connected")),
        trouble=str(said.get("trouble", "")),
        is_policy_signed=bool(policy["is_in_effect"]) if policy else None,
    )


def _status(settings: SiteSettings) -> dict[str, Any] | None:  # Any: JSON
    with suppress(LarreyError, OSError):
        found = ask(settings.site.state, "status")
        return found if isinstance(found, dict) else None
    return None


def _verified(connection: sqlite3.Connection, settings: SiteSettings) -> tuple[str, str]:
    from larrey_client.trail import verify_trail
    from larrey_client.views import verify_view

    def code(verify: Callable[[str], object]) -> str:
        try:
            verify(SigningKey.load(settings.identity.signing_key).public)
        except LarreyError as error:
            return error.code
        except (sqlite3.Error, ValueError):
            return "state-damaged"
        return ""

    return (
        code(lambda key: verify_trail(connection, settings.site.state, key)),
        code(lambda key: verify_view(connection, key)),
    )


def _witnessed(connection: sqlite3.Connection, settings: SiteSettings) -> str | None:
    """Return what the file's newest anchor says of the trail here."""
    from larrey_client.records import SiteRecords
    from larrey_client.trail import require_heads
    from larrey_client.witness import read_anchors

    if settings.witness.file is None:
        return None
    try:
        key = SigningKey.load(settings.identity.signing_key).public
        anchors = read_anchors(settings.witness.file, key)
        heads = [one.anchor.audit_head for one in anchors]
        require_heads(list(SiteRecords(connection).audit()), heads)
    except LarreyError as error:
        return error.code
    except (sqlite3.Error, ValueError):
        return "state-damaged"
    return ""


def _said(code: str) -> Text | None:
    return Text(code, code) if code else None


def _trail(facts: Facts) -> Outcome:
    if not facts.has_state:
        return Skip(_NONE)
    if facts.trail == "seal-missing" and not facts.is_running:
        return Skip(
            Text(
                "its signed head is written when the node starts",
                "sa tête signée est écrite au démarrage du nœud",
            )
        )
    return _said(facts.trail)


def _ledger(facts: Facts) -> Outcome:
    return _said(facts.ledger) if facts.has_state else Skip(_NONE)


_NO_WITNESS = Skip(Text("site.toml names no witness file", "site.toml ne nomme aucun témoin"))


def _witness_away(facts: Facts) -> Outcome:
    if facts.witness is None:
        return _NO_WITNESS
    return _said(facts.witness) if facts.witness == "witness-unreachable" else None


def _behind(facts: Facts) -> Outcome:
    if facts.witness is None:
        return _NO_WITNESS
    return _said(facts.witness) if facts.witness != "witness-unreachable" else None


def _opposition(facts: Facts) -> Outcome:
    return _said(facts.opposition)


_NOT_RUNNING = Skip(Text("no node runs", "aucun nœud en marche"))


def _running(facts: Facts) -> Outcome:
    return None if facts.is_running else Text("none answers", "aucune réponse")


def _registered(facts: Facts) -> Outcome:
    if not facts.is_running:
        return _NOT_RUNNING
    if facts.is_connected:
        return None
    return Text(facts.trouble or "not connected", facts.trouble or "non connecté")


def _policy(facts: Facts) -> Outcome:
    if facts.is_policy_signed is None:
        return _NOT_RUNNING
    return None if facts.is_policy_signed else Text("[policy]", "[policy]")


CHECKS: tuple[Check, ...] = (
    Check(
        "audit-trail-broken", "records", "failed",
        Text("the audit trail is whole", "la piste d'audit est intègre"),
        Text("Change nothing; run larrey-site audit verify and open an incident.",
             "Ne changez rien ; lancez larrey-site audit verify et ouvrez un incident."),
        "a record taken out of the database of a node that ran",
        _trail,
    ),
    Check(
        "ledger-broken", "records", "failed",
        Text("the privacy ledger and the receipts are whole",
             "le registre de confidentialité et les reçus sont intègres"),
        Text("Change nothing; run larrey-site audit verify and open an incident.",
             "Ne changez rien ; lancez larrey-site audit verify et ouvrez un incident."),
        "an entry altered in the database of a node that ran",
        _ledger,
    ),
    Check(
        "witness-away", "records", "failed",
        Text("the witness file can be read", "le fichier témoin est lisible"),
        Text("Mount the share that witness.file names.",
             "Montez le partage que nomme witness.file."),
        "a witness file in a folder that is not there",
        _witness_away,
    ),
    Check(
        "witness-knows-more", "records", "failed",
        Text("the witness knows no later state than this one",
             "le témoin ne connaît pas d'état plus récent"),
        Text("An old copy was restored: see larrey-site ledger adopt.",
             "Une ancienne copie a été restaurée : voir larrey-site ledger adopt."),
        "a signed anchor of a later state in the witness file",
        _behind,
    ),
    Check(
        "opposition-damaged", "records", "failed",
        Text("the opposition list can be read", "la liste d'opposition est lisible"),
        Text("Restore it from the backup; until then nothing is trained here.",
             "Restaurez-la depuis la sauvegarde ; d'ici là, aucun entraînement n'a lieu."),
        "a list of other bytes",
        _opposition,
    ),
    Check(
        "node-not-running", "records", "warning",
        Text("the node runs", "le nœud est en marche"),
        Text("Start it: larrey-site run.", "Démarrez-le : larrey-site run."),
        "no node is started",
        _running,
    ),
    Check(
        "node-not-registered", "records", "failed",
        Text("every coordinator knows the running node",
             "chaque coordinateur connaît le nœud en marche"),
        Text("Mend what the network and certificate checks say; else read the node's log.",
             "Corrigez d'abord réseau et certificats ; sinon, lisez le journal du nœud."),
        "a node that runs while its coordinator is away",
        _registered,
    ),
    Check(
        "policy-unsigned", "records", "warning",
        Text("the policy is signed and in effect", "la politique est signée et en vigueur"),
        Text("Have the people in site.toml sign it: larrey-site policy sign.",
             "Faites-la signer par les personnes de site.toml : larrey-site policy sign."),
        "a running node's door that says nobody signed it",
        _policy,
    ),
)  # fmt: skip
