"""The list of everything that a hospital's node may send. What is not on it does not leave.

Every field of every message, of every signed document inside and of Flower's own message forms has
a class and a shape. Classes: *public*, known without the data (names, rounds, digests of what came
from outside, codes, versions, times); *protected*, a differentially private output; *derived*, made
from the data without that, under the rule its line names; *identity*, keys and signatures. No shape
is free text: what is text is a code of the closed list, a name, a digest, or an echo of what the
coordinator itself sent. `larrey_protocol.egress` enforces the list; docs/security/egress.md shows
it; a test fails for a field that it does not class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["DOCUMENTS", "FLOWER_RECORD", "LISTED", "SERVICES", "Class", "Field"]

Class = Literal["public", "protected", "derived", "identity"]

SERVICES = ("Exchange", "Studies", "Enrolment")  # of larrey.v1; a node calls no other


@dataclass(frozen=True, slots=True)
class Field:
    """One field that may leave.

    Attributes:
        kind: what its value says about patients.
        shape: a name in `larrey_protocol.egress.SHAPES`, ``flower`` or ``signed:`` and kinds.
        what: for the person who reads the table.
    """

    kind: Class
    shape: str
    what: str


def _public(shape: str, what: str) -> Field:
    return Field("public", shape, what)


_STUDY = _public("digest", "the approved study")
_SITE = _public("name", "this site")
_ROUND = _public("count", "round of the study")
_AT = _public("number", "the site's clock")
_BLOB = Field("protected", "digest", "of an update, or of metrics under the small-cell rule")
_HEAD = _public("head", "length and hash of the site's own chain: events, not patients")
_ECHO = "echo"  # text that the coordinator sent, returned as it came

# One line a field of larrey.v1 and of the messages of Flower that a reply is made of.
LISTED: Mapping[str, Mapping[str, Field]] = {
    "larrey.v1.TakeRequest": {
        "node_version": _public("version", "of the installed software"),
        "studies_seen": _public("count", "the coordinator's own counter"),
        "opens_at": _public("number", "when the site's next training window opens, by its clock"),
    },
    "larrey.v1.FetchRequest": {
        "digest": _public("digest", "of the model that the coordinator offers"),
        "offset": _public("count", "where a cut download goes on"),
    },
    "larrey.v1.OfferRequest": {
        "digest": _BLOB,
        "total_bytes": _public("count", "fixed by the study's layout"),
    },
    "larrey.v1.StorePart": {
        "digest": _BLOB,
        "total_bytes": _public("count", "fixed by the study's layout"),
        "offset": _public("count", "where this part begins"),
        "data": Field(
            "protected", "bytes", "clipped and noised update; metrics: small-cell rule (derived)"
        ),
    },
    "larrey.v1.GiveRequest": {
        "message": _public("flower", "Flower's envelope: flwr.proto.PushMessagesRequest"),
        "objects.id": _public("object", "SHA-256 of the object's content"),
        "objects.content": _public("flower", "the reply's record, below"),
        "receipt": Field("identity", "signed:receipt", "what was done, signed by the site"),
        "anchor": Field("identity", "signed:anchor", "where ledger and trail stand, signed"),
    },
    "larrey.v1.ListStudiesRequest": {},
    "larrey.v1.AnswerRequest": {
        "answer": Field("identity", "signed:answer", "the site's decision, signed by the site")
    },
    "larrey.v1.TellRequest": {
        "document": Field(
            "identity", "signed:deletionreceipt|departure|anchor", "signed by the site"
        )
    },
    "larrey.v1.JoinCall": {
        "request": Field("identity", "signed:joinrequest", "public keys of a site that joins")
    },
    "larrey.v1.RenewCall": {
        "request": Field("identity", "signed:joinrequest", "public keys, for the next certificate")
    },
    "flwr.proto.PushMessagesRequest": {
        "node.node_id": _public("count", "the coordinator's number for this site"),
        "messages_list.metadata.run_id": _public("count", "the coordinator's number"),
        "messages_list.metadata.message_id": _public("object", "digest of the reply"),
        "messages_list.metadata.src_node_id": _public("count", "the coordinator's number"),
        "messages_list.metadata.dst_node_id": _public("count", "the coordinator's number"),
        "messages_list.metadata.src_task_id": _public("count", "the coordinator's number"),
        "messages_list.metadata.dst_task_id": _public("count", "the coordinator's number"),
        "messages_list.metadata.reply_to_message_id": _public(_ECHO, "of the request"),
        "messages_list.metadata.group_id": _public(_ECHO, "of the request"),
        "messages_list.metadata.ttl": _public("number", "seconds, from the request"),
        "messages_list.metadata.message_type": _public(_ECHO, "of the request"),
        "messages_list.metadata.created_at": _AT,
        "message_object_trees.object_id": _public("object", "digest of an object"),
        "message_object_trees.children.object_id": _public("object", "digest of an object"),
        "message_object_trees.children.children.object_id": _public("object", "digest"),
        "clientapp_runtime_list": _public("zero", "always 0"),
    },
}

# The one ConfigRecord of a reply, named "larrey".
FLOWER_RECORD: Mapping[str, Field] = {
    "study": _STUDY,
    "round": _ROUND,
    "phase": _public(_ECHO, "of the request"),
    "attempt": _public("count", "the coordinator's own counter"),
    "model": _public("digest", "of the model that the request named"),
    "update": _BLOB,
    "code": _public("code", "why there is no update"),
}

# By kind; a nested list adds its name and a dot.
DOCUMENTS: Mapping[str, Mapping[str, Field]] = {
    "receipt": {
        "study": _STUDY,
        "site": _SITE,
        "round": _ROUND,
        "phase": _public("word", "one of the study's own calls"),
        "model_in": _public("digest", "of the model that the round began with"),
        "update": _BLOB,
        "update_bytes": _public("count", "fixed by the study's layout"),
        "epsilon": _public("number", "of the rounds reserved: from study and count alone"),
        "delta": _public("number", "of the study"),
        "accountant": _public("word", "pld or none"),
        "ledger_head": _HEAD,
        "audit_head": _HEAD,
        "peer_head": _public(_ECHO, "the coordinator's own head"),
        "permit": _public("digest", "of the permit"),
        "snapshot": Field(
            "derived", "commitment", "of the rows, under a key of this site and study"
        ),
        "flags": _public("word", "of the budget used"),
        "software": _public("digest", "of the node's installed source files"),
        "actor": _public("launcher", "the roster's key of who launched the study"),
        "at": _AT,
    },
    "answer": {
        "study": _STUDY,
        "permit": _public("digest", "of the permit"),
        "seats": _public("digest", "of the sites' keys"),
        "site": _SITE,
        "decision": _public("word", "approved, refused or revoked: one bit a digest"),
        "code": _public("code", "why refused"),
        "answered_at": _AT,
    },
    "anchor": {
        "site": _SITE,
        "ledger_head": _HEAD,
        "audit_head": _HEAD,
        "spent.family": _public("tag", "of a cohort family's name, under the site's own key"),
        "spent.units": _public("count", "budget used: from studies and rounds alone"),
        "at": _AT,
    },
    "deletionreceipt": {
        "study": _STUDY,
        "by": _SITE,
        "items.kind": _public("word", "what was deleted"),
        "items.digest": Field("protected", "digest", "of an answer; none for what holds rows"),
        "items.bytes": Field("derived", "banded", "size; not in 1 to 10"),
        "at": _AT,
    },
    "departure": {"site": _SITE, "at": _AT},
    "joinrequest": {
        "invitation": _public("object", "names the invitation"),
        "site": _SITE,
        "request": Field("identity", "certificate-request", "public half of the transport key"),
        "signing_key": Field("identity", "key", "public half"),
        "at": _AT,
    },
}
