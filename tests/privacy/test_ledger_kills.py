"""A process that is killed at any moment never released work that its ledger does not hold."""

from __future__ import annotations

import sqlite3

from bench.ledger_kills import begin, is_paid, kills


def test_released_work_is_never_above_what_the_ledger_holds(tmp_path):
    report = kills(10, seed=7, folder=tmp_path)
    assert report.survived == report.kills == 10
    assert 0 < report.released <= report.reserved <= report.released + report.kills


def test_work_that_was_not_paid_for_is_noticed(tmp_path):
    begin(tmp_path)
    assert is_paid(tmp_path, kills_so_far=1)
    (tmp_path / "released").write_text("1 3\n")
    assert not is_paid(tmp_path, kills_so_far=1)


def test_a_chain_that_does_not_verify_is_noticed(tmp_path):
    begin(tmp_path)
    connection = sqlite3.connect(tmp_path / "site.db")
    connection.execute("DROP TRIGGER privacy_ledger_no_update")
    connection.execute("UPDATE privacy_ledger SET hash = 'x' WHERE seq = 2")
    connection.commit()
    connection.close()
    assert not is_paid(tmp_path, kills_so_far=1)
