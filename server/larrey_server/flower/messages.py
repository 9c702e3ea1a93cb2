"""What a task and its answer look like inside a Flower message: one ConfigRecord, no tensors.

Request: study, round, phase, attempt, model, model_bytes, deadline_s, peer_head,
    applied (the last round whose update of this site was applied).
Reply: study, round, phase, attempt, model (as asked), update (digest or empty), code (or empty);
only update and code from a site that could not read the request.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from larrey_protocol.canonical import DIGEST
from larrey_protocol.errors import Refusal
from larrey_server.rounds import Task, TaskKey

__all__ = ["MESSAGE_TYPE", "SiteReply", "read_reply", "task_content"]

MESSAGE_TYPE = "train"
_RECORD = "larrey"
_FIELDS = {
    "study": str,
    "round": int,
    "phase": str,
    "attempt": int,
    "model": str,
    "update": str,
    "code": str,
}
_UNREAD = {"update", "code"}
_CODE = re.compile(r"^[a-z][a-z0-9-]{2,47}$")


@dataclass(frozen=True, slots=True)
class SiteReply:
    """A site's answer: an update by digest, or a code."""

    key: TaskKey | None  # None: the site could not even read the task
    update: str
    code: str


def task_content(task: Task) -> RecordDict:
    """Return the content of the message that carries ``task``."""
    return RecordDict({_RECORD: ConfigRecord(asdict(task))})


def read_reply(message: Message) -> SiteReply:
    """Return the answer in a site's message.

    Raises:
        Refusal: ``malformed-reply`` for anything but the declared fields.
    """
    if message.has_error():
        raise _malformed(f"is Flower's error {message.error.code}")
    if set(message.content) != {_RECORD} or not isinstance(message.content[_RECORD], ConfigRecord):
        raise _malformed("holds other records than one ConfigRecord")
    fields = dict(message.content[_RECORD])
    if set(fields) not in (set(_FIELDS), _UNREAD):
        raise _malformed("has other fields than declared")
    if any(type(value) is not _FIELDS[name] for name, value in fields.items()):
        raise _malformed("has fields of other types than declared")
    update, code = str(fields.pop("update")), str(fields.pop("code"))
    has_update = bool(DIGEST.fullmatch(update)) and bool(fields) and not code
    if not has_update and (update or not _CODE.fullmatch(code)):
        raise _malformed("has neither one update nor one code")
    key = TaskKey(**fields) if fields else None  # type: ignore[arg-type] # checked above
    return SiteReply(key, update, code)


def _malformed(what: str) -> Refusal:
    return Refusal("malformed-reply", f"the reply {what}", "Update the node's software.")
