"""An anchor does not say what a hospital calls its data; the hospital finds its families again."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.anchors import Anchored, check, find_loss
from larrey_client.family_tags import families_by_tag, tags_of
from larrey_client.officer import Officer, adopt, make_order
from larrey_privacy.ledger_store import Account
from larrey_protocol.egress_list import DOCUMENTS
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import SigningKey
from tests.client.ledger.conftest import COST, FILTER, ROUND, STUDY, UNIT, State

KEY = SigningKey.generate()
NAMES = st.from_regex(r"[a-z][a-z0-9-]{1,40}", fullmatch=True)


def test_no_name_of_a_family_is_in_an_anchor(state: State) -> None:
    state.work()
    text = state.anchor().signed.to_bytes().decode()
    assert "heart" not in text
    (one,) = json.loads(state.anchor().signed.document)["spent"]
    assert re.fullmatch(r"f-[0-9a-f]{16}", one["family"])
    assert DOCUMENTS["anchor"]["spent.family"].shape == "tag"


@given(st.sets(NAMES, max_size=20))
def test_every_family_is_found_again_by_its_tag(names: set[str]) -> None:
    assert set(families_by_tag(KEY, names).values()) == names


def test_another_sites_tags_are_others() -> None:
    assert tags_of(KEY, ["heart"]) != tags_of(SigningKey.generate(), ["heart"])


def register(state: State, name: str) -> Account:
    with state.store.transaction():
        state.store.ledger.register(name, FILTER, UNIT)
    account = state.store.ledger.account(name)
    assert account is not None
    return account


@pytest.fixture
def lost(state: State) -> Anchored:
    """Put back a copy that knows nothing of the family lung; return what the site signed of it."""
    state.save()
    register(state, "lung")
    with state.store.transaction():
        state.store.ledger.hold("lung", STUDY, ROUND, 1, spare_rounds=0)
        state.store.ledger.reserve("lung", STUDY, 1, "in", ROUND)
    anchor = state.anchor()
    state.restore()
    return anchor


def adopted(state: State, dpo: Officer, anchor: Anchored, *datasets: str) -> None:
    loss = find_loss(state.store, [anchor], state.key, datasets)
    assert loss is not None
    order = make_order(state.store, "adopt", anchor.signed.digest, dpo, at=13.0)
    adopt(state.store, loss, order, [dpo.person], site="alpha")
    check(state.store, [anchor], state.key)


def test_a_lost_family_that_site_toml_names_is_spent_and_no_other_is(
    state: State, lost: Anchored, dpo: Officer
) -> None:
    adopted(state, dpo, lost, "heart", "lung", "skin")
    assert state.store.ledger.spent() == {"heart": 0, "lung": COST}
    assert register(state, "skin").free_units == FILTER.capacity_units
    assert register(state, "lung").free_units == 0


def test_a_lost_family_that_nobody_can_name_may_be_any_that_is_registered_later(
    state: State, lost: Anchored, dpo: Officer
) -> None:
    adopted(state, dpo, lost)
    assert register(state, "skin").free_units == 0
    with state.store.transaction(), pytest.raises(Refusal, match="already-registered"):
        state.store.ledger.split("heart", "part", "sha256:" + "0" * 64)
    state.reopen()
    check(state.store, [lost, state.anchor()], state.key)


def test_a_state_that_knows_nothing_at_all_still_reads_its_anchors(
    state: State, empty: State, dpo: Officer
) -> None:
    state.work()
    empty.key = state.key
    adopted(empty, dpo, state.anchor(), "heart")
    assert empty.store.ledger.spent() == {"heart": COST}
    assert register(empty, "heart").free_units == 0
