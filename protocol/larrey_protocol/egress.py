"""Whether a message may leave a hospital: each of its fields is listed and has its shape. Pure.

Walks protobuf fields, unknown ones too, and the signed documents inside. The list itself is
`larrey_protocol.egress_list`. Flower's inner message is opened by the caller, which knows Flower,
and is checked here by the same list.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from larrey_protocol.canonical import canonical_json
from larrey_protocol.egress_list import DOCUMENTS, FLOWER_RECORD, LISTED, SERVICES, Field
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.refusals import MAY_LEAVE
from larrey_protocol.signed import Signed
from larrey_protocol.v1 import larrey_pb2 as wire

__all__ = ["METHODS", "SHAPES", "Outgoing", "check_flower", "check_outgoing"]

Shape = Callable[[Any], bool]  # Any: a field's value as protobuf or JSON has it

METHODS: Mapping[str, str] = {
    f"/larrey.v1.{service}/{method.name}": method.input_type.full_name
    for service in SERVICES
    for method in wire.DESCRIPTOR.services_by_name[service].methods
}


def _text(pattern: str) -> Shape:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


SHAPES: Mapping[str, Shape] = {
    "banded": lambda value: _is_count(value) and value not in range(1, 11),
    "bytes": lambda value: isinstance(value, bytes),
    "certificate-request": _text(
        r"-----BEGIN CERTIFICATE REQUEST-----\n[A-Za-z0-9+/=\n]{1,8000}"
        r"-----END CERTIFICATE REQUEST-----\n?"
    ),
    "code": lambda value: value == "" or value in MAY_LEAVE,
    "commitment": _text(r"((hmac-)?sha256:[0-9a-f]{64})?"),
    "count": _is_count,
    "digest": _text(r"(sha256:[0-9a-f]{64})?"),
    "echo": lambda value: isinstance(value, str) and len(value) <= 200,
    "head": _text(r"\d{1,12}:(sha256:[0-9a-f]{64})?"),
    "key": _text(r"ed25519:[A-Za-z0-9_-]{43}"),
    "launcher": _text(r"(ed25519:[A-Za-z0-9_-]{43})?"),
    "name": _text(r"[a-z][a-z0-9.-]{0,60}"),
    "number": _is_number,
    "object": _text(r"([0-9a-f]{32}|[0-9a-f]{64})?"),
    "signature": _text(r"[A-Za-z0-9_-]{86}(==)?"),
    "tag": _text(r"f-[0-9a-f]{16}"),
    "version": _text(r"[0-9A-Za-z.+-]{1,40}"),
    "word": _text(r"[a-z][a-z-]{1,30}"),
    "zero": lambda value: value == 0,
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What an admissible message is about, as far as it says so."""

    study: str = ""
    round: int = 0
    phase: str = ""
    code: str = ""


def check_outgoing(method: str, message: Message) -> Outgoing:
    """Return what the message is about, if all of it is on the list.

    Shapes named ``flower`` are left to `check_flower`.

    Raises:
        Refusal: ``egress-not-listed``, naming the field and never its value.
    """
    name = message.DESCRIPTOR.full_name
    if METHODS.get(method) != name:
        raise _unlisted(f"{method} with a {name}")
    about: dict[str, Any] = {}  # Any: JSON
    for path, value in _checked(message):
        shape = LISTED[name][path].shape
        if shape.startswith("signed:") and value:
            about |= _check_signed(bytes(value), shape.removeprefix("signed:").split("|"))
    return _about(about)


def check_flower(pushed: Message, record: Mapping[str, object]) -> Outgoing:
    """Return what a Flower reply is about, if its envelope and its one record are on the list.

    Raises:
        Refusal: ``egress-not-listed``.
    """
    for _ in _checked(pushed):
        pass
    _check_fields("reply", record, FLOWER_RECORD)
    return _about(record)


def _about(found: Mapping[str, Any]) -> Outgoing:  # Any: JSON, shapes are checked
    return Outgoing(
        found.get("study", ""),
        found.get("round", 0),
        found.get("phase", ""),
        found.get("code", ""),
    )


def _checked(message: Message) -> list[tuple[str, Any]]:
    """Return path and value of every field that is set, each listed and in its shape."""
    name = message.DESCRIPTOR.full_name
    found = list(_leaves(message, ""))
    _check_each(name, found, LISTED.get(name, {}))
    return found


def _leaves(message: Message, prefix: str) -> Iterator[tuple[str, Any]]:
    if len(UnknownFieldSet(message)):
        raise _unlisted(f"an unknown field in {prefix or message.DESCRIPTOR.full_name}")
    for descriptor, value in message.ListFields():
        path = prefix + descriptor.name
        values = value if descriptor.is_repeated else (value,)
        for one in values:
            if isinstance(one, Message):
                yield from _leaves(one, path + ".")
            else:
                yield path, one


def _check_signed(data: bytes, kinds: list[str]) -> dict[str, Any]:  # Any: JSON
    """Return the document inside, all of whose fields are listed."""
    try:
        signed = Signed.from_bytes(data)
        document = json.loads(signed.document)
    except (IntegrityError, ValueError, RecursionError) as error:
        raise _unlisted("what should be a signed document") from error
    if signed.kind not in kinds or not isinstance(document, dict):
        raise _unlisted(f"a {signed.kind} where a {kinds[0]} belongs")
    if signed.to_bytes() != data or canonical_json(document).decode() != signed.document:
        raise _unlisted(f"a {signed.kind} that is not in canonical form")  # room for other text
    if not (SHAPES["key"](signed.signer) and SHAPES["signature"](signed.signature)):
        raise _unlisted(f"{signed.kind}.signature")
    _check_fields(signed.kind, document, DOCUMENTS[signed.kind])
    return document


def _check_fields(name: str, record: Mapping[str, object], listed: Mapping[str, Field]) -> None:
    _check_each(name, _flat(record), listed)


def _flat(record: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in record.items():
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, Mapping):
                yield from _flat(one, f"{prefix}{key}.")
            else:
                yield prefix + key, one


def _check_each(name: str, found: Any, listed: Mapping[str, Field]) -> None:  # Any: pairs
    for path, value in found:
        field = listed.get(path)
        if field is None:
            raise _unlisted(f"field {path[:60]!r} of {name}")
        shape = SHAPES.get(field.shape)
        if shape is not None and not shape(value):
            raise _unlisted(f"field {path} of {name} in another form than '{field.shape}'")


def _unlisted(what: str) -> Refusal:
    return Refusal(
        "egress-not-listed",
        f"{what} is not on the list of what may leave this site",
        "It was not sent; report this as a defect.",
    )
