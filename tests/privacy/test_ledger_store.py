"""Damage, truncation, kills and races on a real file with real processes."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from larrey_privacy.accounting import noise_for_filter
from larrey_privacy.filter import make_filter
from larrey_privacy.ledger_store import Ledger, open_exclusive
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.canonical import canonical_json, digest_bytes
from larrey_protocol.disk import DiskError
from larrey_protocol.errors import IntegrityError, UsageError

FILTER = make_filter(8.0, 1e-5)
ROUND = Mechanism(12.0, 1.0, 1, 14)


@pytest.fixture
def used(site):
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
        ledger.hold("heart", "study", ROUND.over(9), 9, spare_rounds=0)
        for number in range(5):
            ledger.reserve("heart", "study", number, "in", ROUND)
    site.connection.close()
    return site.path


def tamper(path, *statements):
    connection = sqlite3.connect(path)
    for name in ("append", "no_update", "no_delete"):
        connection.execute(f"DROP TRIGGER privacy_ledger_{name}")
    for statement, values in statements:
        connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_the_table_takes_appends_only(used):
    connection = sqlite3.connect(used)
    for statement in (
        "UPDATE privacy_ledger SET hash = 'x' WHERE seq = 1",
        "DELETE FROM privacy_ledger WHERE seq = 7",
        "INSERT OR REPLACE INTO privacy_ledger SELECT 3, entry, hash FROM privacy_ledger",
        "INSERT INTO privacy_ledger VALUES (99, x'00', 'x')",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="appends only"):
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("seq", "change"),
    # Seq 7 is the last: a tail that was cut off is what require_heads is for.
    [(1, "entry"), (4, "entry"), (7, "entry"), (1, "hash"), (7, "hash"), (1, "gone"), (4, "gone")],
)
def test_damage_anywhere_refuses_to_start(used, seq, change):
    edited = "CAST(replace(CAST(entry AS TEXT), 'heart', 'heard') AS BLOB)"
    statements = {
        "entry": f"UPDATE privacy_ledger SET entry = {edited} WHERE seq = ?",
        "hash": "UPDATE privacy_ledger SET hash = replace(hash, 'a', 'b') WHERE seq = ?",
        "gone": "DELETE FROM privacy_ledger WHERE seq = ?",
    }
    tamper(used, (statements[change], (seq,)))
    connection = open_exclusive(used)
    with pytest.raises(IntegrityError, match="ledger-damaged"):
        Ledger.open(connection)
    connection.close()


def test_a_chain_computed_anew_around_a_broken_rule_refuses_to_start(used):
    """An entry that debits less, with a valid hash: the replay of the rules finds it."""
    connection = sqlite3.connect(used)
    (data,) = connection.execute("SELECT entry FROM privacy_ledger WHERE seq = 7").fetchone()
    connection.close()
    content = json.loads(data)
    content["body"]["units"] -= 1
    forged = canonical_json(content)
    change = "UPDATE privacy_ledger SET entry = ?, hash = ? WHERE seq = 7"
    tamper(used, (change, (forged, digest_bytes(forged))))
    connection = open_exclusive(used)
    with pytest.raises(IntegrityError, match="ledger-damaged"):
        Ledger.open(connection)
    connection.close()


def test_a_file_that_is_no_database_refuses_to_start(tmp_path):
    path = tmp_path / "site.db"
    path.write_bytes(b"nothing like a database" * 300)
    with pytest.raises(IntegrityError, match="ledger-damaged"):
        open_exclusive(path)


def test_a_cut_tail_or_an_old_copy_is_found_by_a_signed_head(site, make_site, tmp_path):
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
        ledger.hold("heart", "study", ROUND.over(9), 9, spare_rounds=0)
    site.restart()
    shutil.copy(site.path, tmp_path / "old.db")
    with site.writing() as ledger:
        ledger.reserve("heart", "study", 1, "in", ROUND)
    signed = site.ledger.head()
    site.ledger.require_heads([signed])
    old = make_site(tmp_path / "old.db")
    with pytest.raises(IntegrityError, match="ledger-behind"):
        old.ledger.require_heads([signed])
    with old.writing() as ledger:
        ledger.reserve("heart", "study", 1, "other", ROUND)
    with pytest.raises(IntegrityError, match="ledger-behind"):
        old.ledger.require_heads([signed])
    old.connection.close()


def test_writing_needs_the_callers_transaction(site):
    with pytest.raises(UsageError, match="ledger-needs-transaction"):
        site.ledger.register("heart", FILTER, "patient")


def test_a_second_writer_is_refused_until_the_first_is_gone(site):
    with pytest.raises(UsageError, match="state-locked"):
        open_exclusive(site.path)
    site.restart()
    assert site.ledger.head()[0] == 0


def test_a_folder_that_takes_no_writes_is_said_so_by_its_code_without_a_path():
    with pytest.raises(DiskError) as caught:
        open_exclusive(Path("/sys/site.db"))  # where the kernel lets nobody make a file
    assert caught.value.code == "state-read-only"
    assert "/sys" not in str(caught.value)


def test_state_is_readable_by_its_owner_only_and_fully_synchronous(site):
    assert site.path.stat().st_mode & 0o077 == 0
    assert site.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert site.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


RACER = """
import sys, time
from pathlib import Path
from larrey_privacy.ledger_store import Ledger, open_exclusive
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import Refusal, UsageError
path, name = Path(sys.argv[1]), sys.argv[2]
deadline = time.monotonic() + 30
while True:
    try:
        connection = open_exclusive(path)
        break
    except UsageError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.005)  # leaves the other the processor
won = 0
for attempt in range(3):
    connection.execute("BEGIN IMMEDIATE")
    try:
        Ledger.open(connection).hold("heart", f"{name}-{attempt}", Mechanism(float(sys.argv[3]),
            1.0, 2), 2, spare_rounds=0)
        connection.execute("COMMIT")
        won += 1
    except Refusal as error:
        connection.execute("ROLLBACK")
        assert error.code == "budget-exhausted"
connection.close()
print(won)
"""


def test_processes_racing_for_the_last_epsilon_win_exactly_what_is_left(site):
    sigma = noise_for_filter(FILTER, 0.22, sampling_rate=1.0, steps=2)
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
    site.connection.close()
    command = [sys.executable, "-c", RACER, str(site.path)]
    racers = [
        subprocess.Popen([*command, name, repr(sigma)], stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    won = sum(int(racer.communicate(timeout=60)[0]) for racer in racers)
    site.restart()
    assert won == 4
    assert site.ledger.view("heart").held_share == pytest.approx(4 * 0.22, rel=1e-3)
