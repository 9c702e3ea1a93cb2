"""The real trainer of a real site's settings: what it cannot do, and that it still works."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from larrey_client.confinement.landlock import kernel_version
from larrey_protocol.errors import LarreyError
from tests.client.isolation.conftest import Place
from tests.system.hospitals import until

pytestmark = pytest.mark.system
_CLOSED = (errno.EACCES, errno.EPERM)


def _tries(place: Place, apps: Path, *lines: list[str]) -> list[float]:
    """Return the errno of each try, 0 where it succeeded."""
    (apps / "tries.json").write_text(json.dumps(lines))
    study = place.load("tries")
    return [place.train(study, number) for number in range(1, len(lines) + 1)]


def _require(place: Place, barrier: str) -> None:
    assert place.link.isolation is not None
    if barrier in place.link.isolation.missing:
        pytest.skip(f"not enforced here: {place.link.isolation.missing[barrier]}")


def test_the_trainer_opens_its_rows_and_no_key_state_or_settings(place: Place, apps: Path) -> None:
    home, identity = place.config.parent, place.settings.identity
    closed = [identity.key, identity.signing_key, identity.certificate, place.config]
    closed += [place.settings.site.state / "larrey.db", Path("/etc/shadow"), home / "cohort2.csv"]
    (home / "cohort2.csv").write_text("another's rows")
    told = _tries(
        place, apps,
        ["read", str(place.rows)],
        ["list", str(home)],
        ["list", str(place.settings.site.state)],
        *(["read", str(path)] for path in closed),
    )  # fmt: skip
    _require(place, "landlock")
    assert told == [0.0, *[float(errno.EACCES)] * (2 + len(closed))]


def test_the_trainer_writes_to_its_scratch_folder_alone(place: Place, apps: Path) -> None:
    home = place.config.parent
    told = _tries(
        place, apps,
        ["scratch"],
        ["write", str(place.rows)],
        ["write", str(home / "new")],
        ["write", str(home.parent / "new")],
        ["write", str(apps / "probing_apps.py")],
        ["remove", str(place.rows)],
        ["link", str(place.rows)],
    )  # fmt: skip
    _require(place, "landlock")
    assert told[0] == 0.0
    assert all(error in (*_CLOSED, errno.EXDEV) for error in told[1:])


def test_the_trainer_starts_no_program_and_reaches_no_process_or_socket(
    place: Place, apps: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "daemon"))
        daemon.listen()
        told = _tries(
            place, apps,
            ["start", "/bin/true"],
            ["socket"],
            ["unix", str(tmp_path / "daemon")],
            ["signal", str(os.getpid())],
        )  # fmt: skip
    for barrier in ("landlock", "filter", "landlock-scope"):
        _require(place, barrier)
    assert all(error in _CLOSED for error in told)


def test_every_barrier_that_this_kernel_knows_stands(place: Place) -> None:
    place.load("works")
    version = kernel_version()
    since = {"landlock": 1, "landlock-tcp": 4, "landlock-scope": 6}
    known = {name for name, first in since.items() if version >= first}
    assert place.link.isolation is not None
    assert {"filter", "memory", "core", "tracing", *known} <= set(place.link.isolation.stands)


def test_the_trainer_sees_no_network_but_an_empty_one(place: Place) -> None:
    place.load("works")
    _require(place, "namespace")
    lines = Path(f"/proc/{place.link.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in lines] == ["lo"]
    assert lines[0].partition(":")[2].split()[0] == "0"  # bytes: it is not this machine's


def test_the_scratch_folder_goes_with_the_trainer(make_place: Callable[..., Place]) -> None:
    place = make_place()
    (scratch,) = (place.settings.site.state / "scratch").iterdir()
    place.link.stop()
    assert not scratch.exists()


def test_files_that_an_app_needs_can_be_named(
    make_place: Callable[..., Place], apps: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "start.bin").write_bytes(b"x")
    place = make_place(readable=(folder,))
    assert _tries(place, apps, ["read", str(folder / "start.bin")]) == [0.0]


@pytest.mark.parametrize(
    ("app", "codes"), [("eats", {"trainer-failed"}), ("faults", {"trainer-crashed"})]
)
def test_a_trainer_out_of_memory_or_broken_costs_one_answer(
    make_place: Callable[..., Place], app: str, codes: set[str]
) -> None:
    place = make_place(memory_mb=1024)
    bad = place.load(app)
    before = place.link.pid
    with pytest.raises(LarreyError) as caught:
        place.train(bad)
    assert caught.value.code in codes
    assert place.train(place.load("works")) == 1.0
    assert place.link.pid != before


def test_the_kernel_would_end_the_trainer_before_the_agent(place: Place) -> None:
    place.load("works")
    mine = int(Path("/proc/self/oom_score_adj").read_text())
    its = int(Path(f"/proc/{place.link.pid}/oom_score_adj").read_text())
    assert (its, mine < its) == (1000, True)


def test_a_data_file_that_was_replaced_is_read_by_a_fresh_trainer(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.load("works")
    before = place.link.pid
    other = place.rows.with_name("other.csv")
    other.write_text(place.rows.read_text() + "99,9,1\n")
    other.replace(place.rows)
    assert place.train(place.load("works")) == 1.0
    assert place.link.pid != before


def test_keys_beneath_a_folder_that_must_be_readable_are_reported(
    make_place: Callable[..., Place], tmp_path: Path
) -> None:
    place = make_place(readable=(tmp_path / "site",))
    until(lambda: place.link.isolation is not None)
    assert place.link.isolation is not None
    assert "keys" in place.link.isolation.missing["landlock"]
