"""Who objects is left out as of the day that the study's rules name, and only hashes are kept."""

from __future__ import annotations

import datetime as dt
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.data.identity import pack_hashes, patient_hash, unpack_hashes
from larrey_client.data.opposition import Entry, append, day_of, entries, excluded, strictest
from larrey_client.data.secret import site_secret
from larrey_client.loading import opposition_of
from larrey_protocol.contract import Contract
from larrey_protocol.errors import DataError
from larrey_protocol.permit import Permit
from tests.client.training.conftest import CONTRACT

DAY = dt.date(2026, 3, 1)
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC).timestamp()
ANNA, BERT = patient_hash("anna", b"k"), patient_hash("bert", b"k")
DAYS = st.dates(DAY - dt.timedelta(5), DAY + dt.timedelta(5))
MADE = st.builds(
    Entry,
    st.sampled_from([ANNA, BERT]),
    st.sampled_from(["oppose", "withdraw"]),
    DAYS,
    st.floats(0, 100),
)
LISTS = st.lists(MADE, max_size=8).map(lambda made: sorted(made, key=lambda e: e.recorded_at))


def _after(days: int) -> dt.date:
    return DAY + dt.timedelta(days)


@given(LISTS, DAYS, st.floats(0, 100))
def test_what_is_recorded_later_changes_nothing_that_was_known_before(made, day, at):
    known = [entry for entry in made if entry.recorded_at <= at]
    assert excluded(made, day, at) == excluded(known, day, at)


@given(LISTS, DAYS)
def test_what_holds_from_a_later_day_changes_nothing_before(made, day):
    valid = [entry for entry in made if entry.valid_from <= day]
    assert excluded(made, day, 1e9) == excluded(valid, day, 1e9)


@given(LISTS, DAYS)
def test_one_patients_entries_say_nothing_of_another(made, day):
    annas = [entry for entry in made if entry.patient == ANNA]
    assert (ANNA in excluded(made, day, 1e9)) == (ANNA in excluded(annas, day, 1e9))


@given(LISTS, DAYS)
def test_the_last_word_of_a_patient_decides(made, day):
    at = max([entry.recorded_at for entry in made], default=0.0)
    for kind, is_out in (("oppose", True), ("withdraw", False)):
        word = Entry(ANNA, kind, day, at)
        assert (ANNA in excluded([*made, word], day, at)) == is_out


def test_an_objection_counts_from_its_day_on_and_until_it_is_withdrawn():
    made = [Entry(ANNA, "oppose", DAY, 1.0), Entry(ANNA, "withdraw", _after(10), 2.0)]
    assert excluded(made, _after(-1), 9.0) == frozenset()
    assert excluded(made, DAY, 9.0) == {ANNA}
    assert excluded(made, _after(9), 9.0) == {ANNA}
    assert excluded(made, _after(10), 9.0) == frozenset()
    assert excluded(made, _after(10), 1.5) == {ANNA}  # the withdrawal was not on record yet
    assert excluded(made, DAY, 0.5) == frozenset()


def test_the_list_keeps_hashes_in_a_closed_file_that_only_grows(tmp_path):
    append(tmp_path, [Entry(ANNA, "oppose", DAY, 1.0, "it"), Entry(BERT, "oppose", DAY, 1.0, "it")])
    append(tmp_path, [Entry(ANNA, "withdraw", DAY, 2.0, "it")])
    assert [(e.patient, e.kind) for e in entries(tmp_path)] == [
        (ANNA, "oppose"),
        (BERT, "oppose"),
        (ANNA, "withdraw"),
    ]
    path = tmp_path / "opposition.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"anna" not in path.read_bytes()
    connection = sqlite3.connect(path)
    for change in (
        "UPDATE entries SET kind = 'withdraw'",
        "DELETE FROM entries",
        "REPLACE INTO entries SELECT 1, patient, 'withdraw', valid_from, 1, '' FROM entries",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="appends only"):
            connection.execute(change)
    connection.close()


def test_a_list_that_cannot_be_read_lets_nobody_be_trained_on(tmp_path):
    assert entries(tmp_path) == []
    (tmp_path / "opposition.db").write_bytes(b"no database, and long enough to be seen" * 30)
    with pytest.raises(DataError, match="opposition-unreadable"):
        entries(tmp_path)


def _permit(opposition: str) -> Permit:
    return Permit.model_validate(
        {
            "permit": {"reference": "FR/2026/1", "authority": "Office", "decided_on": "2026-03-01"},
            "use": {
                "legal_basis": "ehds-permit",
                "purposes": ["scientific-research"],
                "controllers": ["A hospital"],
                "people": ["a-person"],
                "valid_from": "2026-03-01",
                "valid_until": "2027-03-01",
                "retention_until": "2027-03-01",
            },
            "datasets": [{"site": "alpha", "dataset": "heart"}],
            "rules": {
                "opposition": opposition,
                "opposition_exception": "article 71(4)" if opposition == "none" else "",
                "dpia": "D-1",
                "ethics": "E-1",
            },
            "hosting": {"provider": "Host", "country": "FR"},
        }
    )


@pytest.mark.parametrize(
    ("asked", "permitted", "rule", "day"),
    [
        ("permit", "permit", "permit", DAY),
        ("round", "permit", "round", day_of(NOW)),
        ("permit", "round", "round", day_of(NOW)),
        ("none", "permit", "permit", DAY),  # a study cannot loosen its permit
        ("none", "none", "none", None),
        ("permit", None, "permit", day_of(NOW)),  # no permit on record: today's objections
    ],
)
def test_the_stricter_of_contract_and_permit_says_which_day_counts(asked, permitted, rule, day):
    contract = Contract.model_validate(CONTRACT | {"exclusions": {"opposition": asked}})
    permit = _permit(permitted) if permitted else None
    assert opposition_of(contract, permit, NOW) == (rule, day)


@given(st.lists(st.sampled_from(["none", "permit", "round"]), min_size=1))
def test_the_strictest_rule_is_as_strict_as_each(rules):
    order = ["none", "permit", "round"]
    assert all(order.index(strictest(*rules)) >= order.index(rule) for rule in rules)


@given(st.frozensets(st.binary(min_size=16, max_size=16)))
def test_hashes_pack_and_unpack(hashes):
    assert unpack_hashes(pack_hashes(hashes)) == hashes


def test_a_hash_depends_on_secret_and_identifier_and_not_on_white_space():
    assert patient_hash(" anna\n", b"k") == ANNA
    assert len({ANNA, BERT, patient_hash("anna", b"other"), patient_hash("Anna", b"k")}) == 4


def test_the_sites_secret_is_made_once_and_closed(tmp_path: Path):
    secret = site_secret(tmp_path / "state")
    assert site_secret(tmp_path / "state") == secret
    assert len(secret) == 32
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["salt"]
    assert stat.S_IMODE((tmp_path / "state" / "salt").stat().st_mode) == 0o600
