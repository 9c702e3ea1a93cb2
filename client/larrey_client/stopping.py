"""A site's own people pause, halt and resume studies, with a node running or not.

Stopping takes no key: whoever reaches the node's account may stop. Going on takes an order signed
by a person of this site, which follows the stop on the audit trail and so cannot be an old one.
Works on the state folder's one writer, be it the running node or a command while none runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from larrey_client.anchors import has_audit_head
from larrey_client.orders import Stop, StopVerb, derive
from larrey_client.records import SiteRecords
from larrey_client.store import SiteStore
from larrey_protocol.decisions import SiteOrder
from larrey_protocol.errors import Refusal
from larrey_protocol.people import Person, require_right
from larrey_protocol.signed import Signed, open_signed

__all__ = ["resume", "standing_stops", "stop", "stop_of"]

Json = dict[str, Any]  # Any: JSON values are recursive


def stop(store: SiteStore, verb: StopVerb, reference: str, actor: str) -> Json:
    """Pause or halt a study, by name or digest, or all ("") durably; doing it again is no harm.

    Raises:
        UsageError: ``study-unknown`` or ``study-ambiguous``.
    """
    with store.transaction():
        study = store.records.everywhere.find(reference).study.digest if reference else ""
        store.add_stop(study, verb, actor)
    return {"study": study or "all", "did": verb, "by": actor}


def resume(store: SiteStore, signed: Signed, people: Iterable[Person], *, site: str) -> Json:
    """Let a study, or all, go on; return what was undone.

    Args:
        store: of this site.
        signed: a `SiteOrder` to resume; subject is the study's digest, empty for all.
        people: of this site, whose keys count.
        site: its name.

    Raises:
        IntegrityError: of the signature.
        Refusal: ``person-unknown``, ``role-not-allowed``, ``order-differs``, ``order-repeated`` or
            ``nothing-to-resume``.
    """
    with store.transaction():
        person = require_right(people, signed.signer, "site-resume")
        order = open_signed(signed, SiteOrder, signed.signer)
        undone = stop_of(store.records, order.subject)
        if not undone:
            raise Refusal(
                "nothing-to-resume",
                "this site's people paused or halted nothing of that name",
                "See what stands: larrey-site status; a stop of the consortium is theirs to undo.",
            )
        named = (order.site, order.verb, order.person)
        if named != (site, "resume", person.name) or not _follows(store, order):
            raise Refusal(
                "order-differs",
                "the order signed is not one to resume here after the last stop",
                "Sign it anew: larrey-site resume --key KEY",
            )
        if not store.add_document(signed, subject=order.subject):
            raise Refusal("order-repeated", "this order was carried out before", "Sign a new one.")
        store.add_stop(order.subject, "resume", person.name, subject=signed.digest)
    return {"study": order.subject or "all", "undone": undone, "by": person.name}


def stop_of(records: SiteRecords, study: str) -> str:
    """Return how this site's people left a study, or all (""): paused, halted or nothing."""
    if study:
        return derive(study, (), records.stops(study), site="").site_stopped
    everything = standing_stops(records)
    return str(everything[-1]["stopped"]) if everything else ""


def standing_stops(records: SiteRecords) -> list[Json]:
    """Return what is stopped here by this site's people: study ("all"), how, by whom, when."""
    stops = records.stops()
    studies = dict.fromkeys(one.study for one in stops)
    return [view for study in studies if (view := _standing(study, stops)) is not None]


def _standing(study: str, stops: list[Stop]) -> Json | None:
    about = [one for one in stops if one.study in {"", study}]
    how = derive(study or "all", (), [_any(one) for one in about], site="").site_stopped
    if not how:
        return None
    last = about[-1]
    return {"study": study or "all", "stopped": how, "by": last.actor, "at": last.at}


def _any(stop_: Stop) -> Stop:
    return Stop(stop_.seq, "", stop_.verb, stop_.actor, stop_.at)


def _follows(store: SiteStore, order: SiteOrder) -> bool:
    """Return whether the order was signed over this very trail, after what it undoes."""
    seq = int(order.after.partition(":")[0])
    about = store.records.stops(order.subject or None)
    return bool(about) and seq >= about[-1].seq and has_audit_head(store, order.after)
