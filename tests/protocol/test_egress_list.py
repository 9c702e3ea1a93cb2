"""What may leave is a list: every field has its line, and what has none is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from google.protobuf.descriptor import Descriptor
from pydantic import BaseModel

from larrey_protocol import decisions, enrolment, signed
from larrey_protocol.canonical import canonical_json
from larrey_protocol.egress import METHODS, SHAPES, check_flower, check_outgoing
from larrey_protocol.egress_list import DOCUMENTS, FLOWER_RECORD, LISTED, Class
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.refusals import MAY_LEAVE
from larrey_protocol.signed import Answer, Receipt, Signed, sign
from larrey_protocol.v1 import larrey_pb2 as wire

KEY = SigningKey.generate()
STUDY = "sha256:" + "a" * 64
RECEIPT = Receipt(
    study=STUDY, site="alpha", round=1, phase="train", model_in=STUDY, update=STUDY,
    update_bytes=99, epsilon=1.0, delta=1e-5, accountant="pld", ledger_head="1:" + STUDY,
    audit_head="2:" + STUDY, peer_head="4:" + STUDY, at=5.0,
)  # fmt: skip
ANSWER = Answer(study=STUDY, site="alpha", decision="refused", answered_at=1.0)


def leaves(message: Descriptor, prefix: str = "") -> Iterator[str]:
    for field in message.fields:
        if field.message_type is None:
            yield prefix + field.name
        else:
            yield from leaves(field.message_type, f"{prefix}{field.name}.")


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [t for t in get_args(field.annotation) if isinstance(t, type)]
        nested = [t for t in inner if issubclass(t, BaseModel)]
        if nested:
            yield from paths(nested[0], f"{prefix}{name}.")
        else:
            yield prefix + (field.alias or name)


def tell(document: bytes) -> wire.TellRequest:
    return wire.TellRequest(document=document)


def altered(**changes: Any) -> bytes:
    """Return a signed answer with other fields, as a node that was tampered with might make it."""
    fields = ANSWER.model_dump() | changes
    made = sign(ANSWER, KEY)
    return made.model_copy(update={"document": canonical_json(fields).decode()}).to_bytes()


@pytest.mark.parametrize("name", sorted(set(METHODS.values())))
def test_every_field_of_every_request_of_a_node_is_listed(name: str) -> None:
    descriptor = wire.DESCRIPTOR.message_types_by_name[name.removeprefix("larrey.v1.")]
    assert set(leaves(descriptor)) == set(LISTED[name])


MODELS: list[type[BaseModel]] = [
    signed.Receipt, signed.Answer, decisions.Anchor, decisions.DeletionReceipt,
    decisions.Departure, enrolment.JoinRequest,
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_of_every_document_that_leaves_is_listed(model: type[BaseModel]) -> None:
    assert set(paths(model)) == set(DOCUMENTS[model.__name__.lower()])


def test_the_list_has_no_document_and_no_shape_that_does_not_exist() -> None:
    assert set(DOCUMENTS) == {model.__name__.lower() for model in MODELS}
    every = [*LISTED.values(), *DOCUMENTS.values(), FLOWER_RECORD]
    fields = [field for table in every for field in table.values()]
    kinds = {kind for f in fields if f.shape[:7] == "signed:" for kind in f.shape[7:].split("|")}
    assert kinds == set(DOCUMENTS)
    shapes = {field.shape for field in fields if not field.shape.startswith("signed:")}
    assert shapes - {"flower"} == set(SHAPES) - {"signature"}
    assert {field.kind for field in fields} == set(get_args(Class))


def test_a_listed_message_passes_and_says_what_it_is_about() -> None:
    give = wire.GiveRequest(receipt=sign(RECEIPT, KEY).to_bytes())
    about = check_outgoing("/larrey.v1.Exchange/Give", give)
    assert (about.study, about.round, about.phase, about.code) == (STUDY, 1, "train", "")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("/larrey.v1.Control/List", wire.ListStudiesRequest()),
        ("/larrey.v1.Exchange/Take", wire.FetchRequest()),
        ("/flwr.proto.Fleet/PushMessages", wire.TakeRequest()),
        ("/larrey.v1.Exchange/Take", wire.TakeRequest(node_version="patient 17 died")),
        ("/larrey.v1.Exchange/Take", wire.TakeRequest.FromString(b"\x7a\x03abc")),
        ("/larrey.v1.Exchange/Fetch", wire.FetchRequest(digest="/data/heart.csv")),
        ("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=b"KeyError: 'Dupont'")),
        ("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=sign(RECEIPT, KEY).to_bytes())),
        ("/larrey.v1.Studies/Tell", tell(sign(ANSWER, KEY).to_bytes())),
        ("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=altered(note="Dupont"))),
        ("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=altered(code="n-is-seven"))),
        ("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=altered(site="Jean Dupont"))),
        ("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=altered(study={"a": "b"}))),
        ("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=altered(answered_at="noon"))),
    ],
)
def test_what_is_not_on_the_list_does_not_leave(method: str, message: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        check_outgoing(method, message)
    assert refusal.value.code == "egress-not-listed"
    assert "Dupont" not in str(refusal.value)


@pytest.mark.parametrize("pad", [lambda b: b + b" ", lambda b: b.replace(b'":"', b'": "', 1)])
def test_no_text_hides_in_the_form_of_a_document(pad: Any) -> None:
    made = sign(ANSWER, KEY)
    loose = made.model_copy(update={"document": made.document.replace(":", ": ", 1)})
    for data in (pad(made.to_bytes()), loose.to_bytes()):
        assert Signed.from_bytes(data)
        with pytest.raises(Refusal):
            check_outgoing("/larrey.v1.Studies/Answer", wire.AnswerRequest(answer=data))


def test_a_small_number_of_bytes_deleted_is_not_told() -> None:
    made = sign(
        decisions.DeletionReceipt(
            study=STUDY, by="alpha", items=(decisions.Deleted(kind="cache", bytes=7),), at=1.0
        ),
        KEY,
    )
    with pytest.raises(Refusal):
        check_outgoing("/larrey.v1.Studies/Tell", tell(made.to_bytes()))


@pytest.mark.parametrize("extra", [{"patients": 17}, {"code": "KeyError"}, {"round": "x"}])
def test_a_reply_s_record_holds_what_is_listed_and_no_more(extra: dict[str, object]) -> None:
    record: dict[str, object] = {"update": "", "code": "site-not-ready", "round": 1}
    assert check_flower(wire.ListStudiesRequest(), record).code == "site-not-ready"
    with pytest.raises(Refusal):
        check_flower(wire.ListStudiesRequest(), record | extra)


def test_every_code_that_may_leave_is_a_code() -> None:
    assert all(SHAPES["code"](code) and SHAPES["word"](code) for code in MAY_LEAVE)
