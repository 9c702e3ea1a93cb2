"""Foreign text is read on one line, in a terminal and in the log; foreign files only so far."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.agent import Agent
from larrey_client.frames import seal
from larrey_client.trainer_answers import failure_of, hashes_of
from larrey_protocol.canonical import canonical_json
from larrey_protocol.errors import IntegrityError, LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, sign
from tests.client.node.facts import audit_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import make_roster
from tests.protocol.samples import study as make_study

FORGED = "roster\n2026-01-01 INFO larrey_client.desk study=heart approved\x1b[2J"


def test_no_document_of_a_coordinator_writes_a_line_of_its_own_into_the_log(
    agent: Agent, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    signed = sign(make_roster(SigningKey.generate().public), SigningKey.generate())
    forged = canonical_json(signed.model_dump() | {"kind": FORGED})
    with caplog.at_level(logging.DEBUG):
        peer.tell(rosters=forged, permits=forged + b" ", orders=forged, proposals=forged)
        wait_until(lambda: audit_of(agent).count(("order-rejected", "malformed-document")))
    assert audit_of(agent).count(("document-rejected", "malformed-document")) == 2
    assert all(record.getMessage().isprintable() for record in caplog.records)


@given(
    st.fixed_dictionaries(
        {"kind": st.text(), "document": st.text(), "signer": st.text(), "signature": st.text()}
    )
)
def test_a_signed_document_says_what_it_is_in_one_short_word(fields: dict[str, str]) -> None:
    try:
        signed = Signed.from_bytes(canonical_json(fields))
    except (IntegrityError, UnicodeEncodeError):
        return
    assert signed.kind.isascii()
    assert signed.kind.isalpha()


@pytest.mark.parametrize("kind", ["data", ""])
def test_what_a_trainer_says_is_one_line_that_ends(kind: str) -> None:
    answer = {"kind": kind, "code": "app-failed", "message": FORGED, "next_step": "x" * 100_000}
    error = failure_of(answer)
    assert error.message.isprintable()
    assert len(error.next_step) <= 2000


@pytest.mark.parametrize("size", [17, 1 << 40])
def test_a_list_of_patients_that_no_hospital_has_is_not_read(size: int) -> None:
    file = os.memfd_create("patients", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size)
    with pytest.raises(LarreyError, match="trainer-failed"):
        hashes_of({}, [seal(file)])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


@pytest.mark.parametrize("field", ["strategy", "app"])
def test_no_word_of_a_study_that_an_error_quotes_breaks_its_line(field: str) -> None:
    with pytest.raises(ValueError, match=f"training.{field}"):
        make_study(privacy={"mechanism": "none"}, **{f"training__{field}": "a\x1b[2J"})
