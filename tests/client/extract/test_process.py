"""The real extract process on a real database: what arrives, what does not leave, how it fails."""

from __future__ import annotations

import json
import logging
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from larrey_client.cli import main
from larrey_client.confinement.barriers import BARRIERS
from larrey_client.extract.snapshots import current, rows_of
from larrey_client.extract.taking import ready_rows, renewed_rows, take
from larrey_client.run import start_trainer
from larrey_protocol.errors import DataError, FileError, LarreyError, UsageError
from tests.client.extract.conftest import Ward
from tests.client.extract.database import PASSWORD, Database
from tests.system.hospitals import descendants, until

pytestmark = pytest.mark.system


def test_the_rows_of_a_query_become_a_closed_snapshot_named_by_its_content(ward: Ward) -> None:
    taken = take(ward.settings, ward.dataset)
    assert ward.snapshots == [taken.path]
    assert stat.S_IMODE(taken.path.stat().st_mode) == 0o600
    table = pq.read_table(taken.path)
    assert (taken.rows, table.num_rows) == (30, 30)
    kinds = {field.name: field.type for field in table.schema}
    assert kinds["age"] == pa.int64()
    assert kinds["weight"] == kinds["ratio"] == pa.float64()
    assert kinds["sick"] == pa.bool_()
    row = table.slice(1, 1).to_pylist()[0]
    assert (row["pid"], row["age"], row["weight"], row["sick"]) == ("p1", 21, 1.5, False)
    assert (row["born"], row["note"]) == ("2000-01-02", None)
    assert set(taken.isolation.reasons) == set(BARRIERS)
    assert take(ward.settings, ward.dataset).path == taken.path


def test_a_new_answer_replaces_the_snapshot_and_a_failure_leaves_it(ward: Ward) -> None:
    first = take(ward.settings, ward.dataset).path
    ward.ask("SELECT pid FROM nowhere")
    with pytest.raises(DataError, match="nowhere"):
        take(ward.settings, ward.dataset)
    assert ward.snapshots == [first]
    ward.ask("SELECT pid FROM stays")
    second = take(ward.settings, ward.dataset).path
    assert ward.snapshots == [second] != [first]
    hidden = {path.name for path in second.parent.iterdir()} - {second.name}
    assert hidden == {".warehouse.lock"}


def test_an_approval_asks_the_database_again_only_where_the_source_says_so(
    make_ward: Callable[..., Ward], database: Database
) -> None:
    ward = make_ward(database.string, "SELECT pid, now() FROM stays")
    with pytest.raises(DataError, match="snapshot-missing"):
        rows_of(ward.dataset, ward.settings.site.state)
    first = ready_rows(ward.settings, ward.dataset)
    assert renewed_rows(ward.settings, ward.dataset) == first
    each = ward.dataset.origin.model_copy(update={"refresh": "approval"})
    again = ward.dataset.model_copy(update={"source": each})
    second = renewed_rows(ward.settings, again)
    assert second != first
    assert ready_rows(ward.settings, again) == current(ward.settings.site.state, "warehouse")


def test_the_command_tells_rows_place_and_barriers(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "extract", "warehouse", "--config", str(ward.config)]) == 0
    told = capsys.readouterr().out
    assert f"warehouse: 30 rows in {ward.snapshots[0]}" in told
    assert "isolation" in told
    assert main(["data", "extract", "none", "--config", str(ward.config), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "dataset-unknown"


def test_a_kernel_that_refuses_still_extracts_and_the_command_says_what_is_missing(
    ward: Ward,
) -> None:
    script = Path(__file__).parents[1] / "isolation" / "apps" / "poor_kernel.py"
    words = ["data", "extract", "warehouse", "--config", str(ward.config)]
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, check=True
    )
    assert "warehouse: 30 rows" in done.stdout
    assert "not enforced here: namespace (the kernel says no), landlock (" in done.stdout


def test_the_trainer_reads_the_snapshot_that_came_after_it_started(ward: Ward) -> None:
    trainer = start_trainer(ward.settings, warm=False)
    try:
        path = take(ward.settings, ward.dataset).path
        before = trainer.pid
        assert len(trainer.scan(path, "pid", b"salt")) == 30 * 16
        assert trainer.pid == before
    finally:
        trainer.stop()


def test_a_database_behind_a_unix_socket_is_read_too(
    make_ward: Callable[..., Ward], database: Database
) -> None:
    string = database.string.replace("host=127.0.0.1", f"host={database.folder}")
    ward = make_ward(string, "SELECT pid FROM stays")
    assert take(ward.settings, ward.dataset).rows == 30


def test_the_process_reaches_the_database_and_nothing_else(tmp_path: Path) -> None:
    script = Path(__file__).parent / "apps" / "confined.py"
    closed = tmp_path / "signing.ed25519"
    closed.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as database, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        echo = threading.Thread(target=_echo, args=(database,))
        echo.start()
        ports = [str(peer.getsockname()[1]) for peer in (database, other)]
        done = subprocess.run(
            [sys.executable, script, *ports, str(closed)],
            capture_output=True,
            text=True,
            check=True,
        )
        echo.join()
    told = json.loads(done.stdout)
    assert told.pop("echoed") == "through"
    if missing := told.pop("missing").keys() - {"memory"}:
        pytest.skip(f"not enforced here: {missing}")
    assert all(told.values()), told


def _echo(server: socket.socket) -> None:
    peer, _ = server.accept()
    with peer:
        while data := peer.recv(64):
            peer.sendall(data)


def test_the_password_is_in_no_argument_environment_log_or_error(
    make_ward: Callable[..., Ward], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ward = make_ward(database.string, "SELECT pid, pg_sleep(0.02) FROM stays")
    said: list[LarreyError] = []
    worker = threading.Thread(target=lambda: said.append(_error_of(ward)))
    worker.start()
    seen: list[bytes] = []

    def look() -> bool:
        for pid in descendants(threading.get_native_id()):
            seen.extend(_bytes(Path(f"/proc/{pid}/{name}")) for name in ("cmdline", "environ"))
        return not worker.is_alive()

    until(look)
    worker.join()
    assert any(b"larrey_client.extract" in data for data in seen)
    assert not any(PASSWORD.encode() in data for data in seen)
    assert said[0].code == "source-columns"  # pg_sleep gives no value
    assert PASSWORD not in caplog.text + str(said[0])


def _error_of(ward: Ward) -> LarreyError:
    with pytest.raises(LarreyError) as caught:
        take(ward.settings, ward.dataset)
    return caught.value


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended, or closed to us
        return b""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ((f"password={PASSWORD}", "password=wrong-4711"), "source-login"),
        (("dbname=postgres", "dbname=nowhere"), "source-refused"),
        (("host=127.0.0.1", "host=127.0.0.1,127.0.0.2"), "source-connection"),
        (("host=127.0.0.1", "sslmode=verify-full host=127.0.0.1"), "source-refused"),
        (("dbname=postgres", "colour=red"), "source-connection"),
        (("port=", "port=1 keepalives="), "source-unreachable"),
    ],
)
def test_a_connection_that_fails_has_a_code_and_tells_no_secret(
    make_ward: Callable[..., Ward], database: Database, change: tuple[str, str], code: str
) -> None:
    ward = make_ward(database.string.replace(*change))
    error = _error_of(ward)
    assert error.code == code
    assert "4711" not in str(error)
    assert ward.snapshots == []


def test_a_query_that_hangs_is_ended(make_ward: Callable[..., Ward], database: Database) -> None:
    ward = make_ward(database.string, "SELECT pg_sleep(60)::text AS pid", timeout_s=0.3)
    assert _error_of(ward).code == "source-timeout"


def test_an_exposed_connection_string_is_not_used(ward: Ward) -> None:
    (ward.config.parent / "warehouse.dsn").chmod(0o644)
    with pytest.raises(FileError, match="key-exposed"):
        take(ward.settings, ward.dataset)


def test_a_dataset_that_is_a_file_is_not_extracted(ward: Ward) -> None:
    plain = ward.dataset.model_copy(update={"source": None, "path": Path("/x.csv")})
    with pytest.raises(UsageError, match="dataset-not-sql"):
        take(ward.settings, plain)
