"""The arithmetic of signatures, over every order in which people may give them."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from larrey_client.approvals import GivenApproval, consent_of, signatures_on
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.decisions import Approval
from larrey_protocol.people import Role

DIGESTS = [digest_bytes(name) for name in (b"one", b"two")]
KEYS: list[tuple[str, Role]] = [("k1", "it"), ("k2", "dpo"), ("k3", "it"), ("k4", "dpo")]
Word = Literal["approved", "refused", "revoked"]


def given_approval(key: tuple[str, Role], permit: str, dataset: str, word: Word) -> GivenApproval:
    approval = Approval(
        study=DIGESTS[0], permit=permit, seats=DIGESTS[1], site="alpha", dataset=dataset,
        decision=word, person="somebody", at=1.0,
    )  # fmt: skip
    return GivenApproval(approval, *key)


APPROVALS = st.lists(
    st.builds(
        given_approval,
        st.sampled_from(KEYS),
        st.sampled_from(DIGESTS),
        st.sampled_from(["heart", "lung"]),
        st.sampled_from(["approved", "approved", "approved", "refused", "revoked"]),
    ),
    max_size=8,
)
NEEDED = st.sampled_from([("it",), ("dpo",), ("it", "dpo"), ("dpo", "it")])


@given(APPROVALS, NEEDED)
def test_a_study_is_approved_only_if_every_role_signed_the_same_terms(
    words: list[GivenApproval], needed: tuple[Role, ...]
) -> None:
    consent = consent_of(words, needed)
    if consent.state == "approved":
        same = [
            one for one in words
            if one.approval.decision == "approved"
            and (one.approval.permit, one.approval.dataset) == (consent.permit, consent.dataset)
        ]  # fmt: skip
        assert {one.role for one in same} >= set(needed)
        assert {one.key for one in same} <= set(consent.keys)
        terms = (consent.permit, consent.seats, consent.dataset)
        assert signatures_on(words, terms, needed)[1] == ()


@given(APPROVALS, NEEDED)
def test_a_revocation_is_final_whatever_follows(
    words: list[GivenApproval], needed: tuple[Role, ...]
) -> None:
    no = given_approval(KEYS[0], "", "", "revoked")
    assert consent_of([no, *words], needed).state == "revoked"
    assert consent_of([*words, no], needed).state == "revoked"


@given(APPROVALS, NEEDED)
def test_one_persons_signatures_never_count_as_two(
    words: list[GivenApproval], needed: tuple[Role, ...]
) -> None:
    mine = [one for one in words if one.key == "k1"]
    if len(needed) > 1:
        assert consent_of(mine, needed).state != "approved"


def test_one_key_with_two_roles_is_one_signature() -> None:
    words = [
        given_approval(("k1", role), DIGESTS[0], "heart", "approved") for role in ("it", "dpo")
    ]
    assert consent_of(words, ("it", "dpo")).state == "partial"
    assert signatures_on(words, (DIGESTS[0], DIGESTS[1], "heart"), ("it", "dpo"))[1] == ("dpo",)
