"""Every attack of the list ends in its code: nothing spent, nothing left but what the list says."""

from __future__ import annotations

import re

import pytest

from larrey_client import gate
from larrey_protocol.refusals import MAY_LEAVE
from tests.attacks import (
    on_data,
    on_documents,
    on_enrolment,
    on_ledger,
    on_numbers,
    on_permits,
    on_requests,
    on_studies,
    on_tensors,
    on_trainer,
    on_transport,
)
from tests.attacks.catalogue import ACTS, Attack, load
from tests.attacks.conftest import Stands

FILES = (
    on_data, on_documents, on_enrolment, on_ledger, on_numbers, on_permits, on_requests, on_studies,
    on_tensors, on_trainer, on_transport,
)  # fmt: skip
ATTACKS = load()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_the_attack_ends_in_its_code_and_nothing_else(attack: Attack, stands: Stands) -> None:
    act = ACTS[attack.id]
    with stands(act) as stand:
        assert act.run(stand) == attack.code
        stand.check(attack)


def test_every_gate_rule_and_every_code_that_may_leave_is_attacked() -> None:
    rules = set(re.findall(r"^ +\d+  ([a-z]+(?:-[a-z]+)+) ", gate.__doc__ or "", re.MULTILINE))
    assert len(rules) > 30
    tried = {attack.code for attack in ATTACKS}.union(*(attack.leaves for attack in ATTACKS))
    assert (rules | MAY_LEAVE) - tried == set()


def test_every_attack_in_the_list_is_run_and_every_function_is_listed() -> None:
    names = [attack.id for attack in ATTACKS]
    assert sorted(names) == sorted(ACTS)
    assert len(set(names)) == len(names)


def test_the_list_holds_at_least_forty() -> None:
    assert len(ATTACKS) >= 40


def test_whatever_may_be_spent_or_stands_still_says_why() -> None:
    for attack in ATTACKS:
        assert attack.title[0].isupper(), attack.id
        assert attack.title.endswith("."), attack.id
        assert all(not text or len(text) > 10 for text in (attack.spends, attack.until)), attack.id
