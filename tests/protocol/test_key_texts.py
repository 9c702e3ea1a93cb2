"""One key has one text: the spare bits of its last character make no second person of it."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import SigningKey, fingerprint, verify
from larrey_protocol.people import Person
from larrey_protocol.roster import Roster
from larrey_protocol.signed import open_signed, sign

KEY = SigningKey.generate()
_LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def twins(text: str, length: int) -> list[str]:
    """Return every other text that a lenient decoder takes for the same bytes."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    found = [text[:-1] + letter for letter in _LETTERS]
    padded = "=" * (-length % 4)
    return [t for t in found if t != text and base64.urlsafe_b64decode(t + padded) == raw]


def other_texts() -> list[str]:
    body = KEY.public.removeprefix("ed25519:")
    return [f"ed25519:{twin}" for twin in twins(body, 43)]


def test_a_lenient_decoder_knows_three_more_texts_of_a_key() -> None:
    assert len(other_texts()) == 3


@pytest.mark.parametrize("which", range(3))
def test_no_other_text_of_a_key_verifies_what_it_signed(which: int) -> None:
    text = other_texts()[which]
    with pytest.raises(IntegrityError, match="bad-signature"):
        verify(text, b"x", KEY.sign(b"x"))
    with pytest.raises(ValueError, match="key"):
        fingerprint(text)


@pytest.mark.parametrize("which", range(3))
def test_one_key_under_two_texts_is_one_person(which: int) -> None:
    text = other_texts()[which]
    people = [
        {"name": "ada", "role": "lead", "key": KEY.public},
        {"name": "bob", "role": "member", "key": text},
    ]
    with pytest.raises(ValueError, match="listed twice"):
        Roster.model_validate({"version": 1, "issued_at": 1.0, "people": people})
    assert Person.model_validate(people[1]).key == KEY.public


@pytest.mark.parametrize("which", range(3))
def test_a_document_names_a_key_by_its_one_text(which: int) -> None:
    text = other_texts()[which]
    person = Person(name="ada", role="lead", key=KEY.public)
    roster = Roster(version=1, issued_at=1.0, people=(person,))
    twin = person.model_construct(name="ada", role="lead", key=text)
    signed = sign(roster.model_copy(update={"people": (twin,)}), KEY)
    with pytest.raises(IntegrityError, match="malformed-document"):
        open_signed(signed, Roster, KEY.public)


@given(st.sampled_from(["", "=", "!", " ", "\n"]), st.integers(0, 86))
def test_a_signature_has_one_text_too(junk: str, at: int) -> None:
    signature = KEY.sign(b"x")
    verify(KEY.public, b"x", signature)
    for text in (*twins(signature[:86], 86), signature[:at] + junk + signature[at:]):
        if text != signature:
            with pytest.raises(IntegrityError, match="bad-signature"):
                verify(KEY.public, b"x", text)
