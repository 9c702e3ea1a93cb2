"""What verified once is not computed again, and yet nothing else passes for it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import SigningKey, verify
from larrey_protocol.people import Person
from larrey_protocol.roster import KeyChange, Roster, open_under
from larrey_protocol.signed import Proposal, Signed, open_signed, sign
from tests.protocol.samples import study

KEYS = [SigningKey.generate() for _ in range(2)]
MESSAGES = [b"", b"one", b"one\n", b"two"]
PROPOSAL = Proposal(study=study(), proposed_at=1.0)


@dataclass(frozen=True)
class Claim:
    """That ``key`` signed ``message``; the signature is that of another key or message at will."""

    key: int
    message: int
    signed_by: int
    signed_message: int

    @property
    def is_true(self) -> bool:
        return (self.key, self.message) == (self.signed_by, self.signed_message)

    @property
    def holds(self) -> bool:
        signature = KEYS[self.signed_by].sign(MESSAGES[self.signed_message])
        try:
            verify(KEYS[self.key].public, MESSAGES[self.message], signature)
        except IntegrityError as error:
            return error.code != "bad-signature"
        return True


CLAIMS = st.builds(
    Claim, st.integers(0, 1), st.integers(0, 3), st.integers(0, 1), st.integers(0, 3)
)


@given(st.lists(CLAIMS, max_size=12))
def test_a_signature_verifies_or_not_whatever_was_asked_before(claims: list[Claim]) -> None:
    for claim in claims:
        assert claim.holds == claim.is_true


def test_a_document_that_verified_is_refused_under_another_key() -> None:
    signed = sign(PROPOSAL, KEYS[0])
    assert open_signed(signed, Proposal, KEYS[0].public) == PROPOSAL
    with pytest.raises(IntegrityError) as caught:
        open_signed(signed, Proposal, KEYS[1].public)
    assert caught.value.code == "wrong-signer"
    forged = signed.model_copy(update={"signer": KEYS[1].public})
    with pytest.raises(IntegrityError) as caught:
        open_signed(forged, Proposal, KEYS[1].public)
    assert caught.value.code == "bad-signature"


def test_a_signature_that_verified_is_refused_under_another_document_or_kind() -> None:
    signed, other = sign(PROPOSAL, KEYS[0]), sign(study(), KEYS[0])
    assert open_signed(signed, Proposal, KEYS[0].public) == PROPOSAL
    for changed in (
        signed.model_copy(update={"document": signed.document.replace("1.0", "2.0", 1)}),
        signed.model_copy(update={"kind": "keychange"}),
        signed.model_copy(update={"signature": other.signature}),
    ):
        with pytest.raises(IntegrityError) as caught:
            open_signed(changed, Proposal, KEYS[0].public)
        assert caught.value.code == "bad-signature"


def test_a_document_that_verified_under_its_kind_is_no_document_of_another() -> None:
    signed = sign(PROPOSAL, KEYS[0])
    open_signed(signed, Proposal, KEYS[0].public)
    with pytest.raises(IntegrityError) as caught:
        open_signed(signed, KeyChange, KEYS[0].public)
    assert caught.value.code == "wrong-document"


def test_the_same_bytes_are_refused_once_their_key_is_off_the_roster() -> None:
    consortium, lead = KEYS[0].public, KEYS[1]
    person = Person(name="lead", role="lead", key=lead.public)
    signed = Signed.from_bytes(sign(PROPOSAL, lead).to_bytes())
    named = Roster(version=1, issued_at=0.0, people=(person,))
    found = open_under(signed, Proposal, "propose", consortium=consortium, roster=named)
    assert found == PROPOSAL
    revoked = Roster(version=2, issued_at=1.0)
    with pytest.raises(IntegrityError) as caught:
        open_under(signed, Proposal, "propose", consortium=consortium, roster=revoked)
    assert caught.value.code == "wrong-signer"
