"""An anchor finds an old copy, a cut tail and a chain computed anew; adopting is the way out."""

from __future__ import annotations

import sqlite3

import pytest

from larrey_client.anchors import Anchored, check, find_loss, open_anchor
from larrey_client.family_tags import tags_of
from larrey_client.officer import (
    Officer,
    adopt,
    find_loss_or_refuse,
    make_order,
)
from larrey_client.store import DATABASE, SiteStore
from larrey_privacy.ledger_view import receipt_flags
from larrey_protocol.decisions import SiteOrder
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import open_signed, sign
from tests.client.ledger.conftest import COST, FILTER, ROUND, STUDY, State, make_officer


def behind(state: State, *anchors: Anchored) -> str:
    with pytest.raises(IntegrityError) as caught:
        check(state.store, anchors, state.key)
    assert "ledger adopt" in caught.value.next_step
    return caught.value.code


def adopted(state: State, dpo: Officer, *anchors: Anchored) -> None:
    loss = find_loss_or_refuse(state.store, anchors, state.key)
    digest = loss.anchors[-1].signed.digest
    order = make_order(state.store, "adopt", digest, dpo, at=13.0)
    adopt(state.store, loss, order, [dpo.person], site="alpha")


def test_a_state_holds_what_it_anchored(state: State) -> None:
    anchors = [state.anchor()]
    state.work(3)
    anchors.append(state.anchor())
    check(state.store, anchors, state.key)
    assert anchors[1].spent == {tags_of(state.key, ["heart"])["heart"]: 3 * COST}
    assert find_loss(state.store, anchors, state.key) is None


def test_an_old_copy_is_found(state: State) -> None:
    state.work()
    state.save()
    state.work(2)
    anchor = state.anchor()
    state.restore()
    assert behind(state, anchor) == "ledger-behind"


def test_an_old_copy_that_worked_on_is_found(state: State) -> None:
    state.save()
    state.work(2)
    anchor = state.anchor()
    state.restore()
    state.rounds = 5
    state.work(4)  # longer than the lost one by now
    assert behind(state, anchor) == "ledger-behind"


def cut(state: State, *statements: str) -> None:
    state.store.close()
    connection = sqlite3.connect(state.folder / DATABASE)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in names:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    state.store = SiteStore.open(state.folder, lambda: 12.0)


def test_a_tail_cut_off_the_ledger_is_found(state: State) -> None:
    state.work(2)
    anchor = state.anchor()
    cut(state, "DELETE FROM privacy_ledger WHERE seq > 4")
    assert behind(state, anchor) == "ledger-behind"


def test_a_tail_cut_off_the_trail_is_found_and_settled_by_an_adoption(
    state: State, dpo: Officer
) -> None:
    state.work(2)
    anchor = state.anchor()
    cut(state, "DELETE FROM audit WHERE seq > 1")
    assert behind(state, anchor) == "audit-behind-anchor"
    before = state.store.ledger.spent()
    adopted(state, dpo, anchor)
    check(state.store, [anchor], state.key)
    assert state.store.ledger.spent() == before


def test_a_chain_computed_anew_is_found(state: State) -> None:
    """The whole ledger written again without two rounds, valid in itself."""
    state.work(3)
    anchor = state.anchor()
    cut(state, "DELETE FROM privacy_ledger")
    state.begin()
    state.rounds = 7
    state.work()
    state.reopen()
    assert behind(state, anchor) == "ledger-behind"


def test_what_was_lost_is_spent_after_an_adoption_and_a_restart(state: State, dpo: Officer) -> None:
    state.work()
    state.save()
    state.work(3)
    anchor = state.anchor()
    state.restore()
    adopted(state, dpo, anchor)
    state.reopen()
    check(state.store, [anchor, state.anchor()], state.key)
    assert state.store.ledger.spent() == {"heart": 4 * COST}
    account = state.store.ledger.account("heart")
    assert account is not None
    assert receipt_flags(account) == ("adopted",)
    assert [r.action for r in state.store.records.audit()][-1] == "ledger-adopted"


def test_all_anchors_of_the_lost_tail_are_settled_by_the_highest(
    state: State, dpo: Officer
) -> None:
    state.save()
    anchors = []
    for _ in range(3):
        state.work()
        anchors.append(state.anchor())
    state.restore()
    adopted(state, dpo, anchors[2])
    check(state.store, anchors, state.key)


def test_what_both_branches_spent_is_added_up(state: State, dpo: Officer) -> None:
    """The newest anchor still in the chain tells what the copy spent on its own."""
    state.work()
    common = state.anchor()
    state.save()
    state.work(3)
    lost = state.anchor()
    state.restore()
    state.rounds = 6
    state.work(2)
    adopted(state, dpo, common, lost)
    assert state.store.ledger.spent() == {"heart": (4 + 2) * COST}


def test_after_an_adoption_the_new_tail_is_guarded_like_the_old(state: State, dpo: Officer) -> None:
    state.save()
    state.work(3)
    lost = state.anchor()
    state.restore()
    adopted(state, dpo, lost)
    state.save()
    with state.store.transaction():
        state.store.ledger.register("lung", FILTER, "patient")
        state.store.ledger.hold("lung", STUDY, ROUND, 1, spare_rounds=0)
    newer = state.anchor()
    state.restore()
    assert behind(state, lost, newer) == "ledger-behind"


def test_only_the_sites_own_signature_counts(state: State) -> None:
    forged = sign(state.anchor().anchor, SigningKey.generate()).to_bytes()
    with pytest.raises(IntegrityError, match="wrong-signer"):
        open_anchor(forged, state.key.public)
    with pytest.raises(IntegrityError, match="malformed-document"):
        open_anchor(b"[" * (1 << 18), state.key.public)


def lost_anchor(state: State) -> Anchored:
    state.save()
    state.work()
    anchor = state.anchor()
    state.restore()
    return anchor


def test_an_adoption_needs_the_officers_own_key(state: State, dpo: Officer) -> None:
    stranger, it = make_officer(), make_officer("i.tech", "it")
    people = [dpo.person, it.person]
    anchor = lost_anchor(state)
    loss = find_loss_or_refuse(state.store, [anchor], state.key)
    digest = loss.anchors[-1].signed.digest
    for officer, code in ((stranger, "person-unknown"), (it, "role-not-allowed")):
        order = make_order(state.store, "adopt", digest, officer, at=13.0)
        with pytest.raises(Refusal, match=code):
            adopt(state.store, loss, order, people, site="alpha")
    assert state.store.ledger.spent() == {"heart": 0}


@pytest.mark.parametrize(
    "change",
    [{"site": "beta"}, {"verb": "split-family"}, {"subject": STUDY}, {"after": f"9:{STUDY}"}],
)
def test_an_order_about_something_else_is_refused(
    state: State, dpo: Officer, change: dict[str, str]
) -> None:
    anchor = lost_anchor(state)
    loss = find_loss_or_refuse(state.store, [anchor], state.key)
    right = make_order(state.store, "adopt", loss.anchors[-1].signed.digest, dpo, at=13.0)
    order = open_signed(right, SiteOrder, dpo.key.public).model_copy(update=change)
    with pytest.raises(Refusal, match="order-differs"):
        adopt(state.store, loss, sign(order, dpo.key), [dpo.person], site="alpha")


def test_nothing_is_adopted_where_nothing_was_lost(state: State) -> None:
    state.work()
    with pytest.raises(Refusal, match="nothing-to-adopt"):
        find_loss_or_refuse(state.store, [state.anchor()], state.key)
