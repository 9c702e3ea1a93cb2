"""Ten failures of hospital federations are listed, and each ends here as it should."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_protocol.errors import IntegrityError
from larrey_protocol.signed import Certificate
from larrey_server.certificate_check import require_honest
from tests.chaos.field import MOUNTING, SCENARIOS, Entry, listed, may_mount, play
from tests.chaos.field_stand import Field, open_field

ROOT = Path(__file__).parents[2]
_IDS = [f"F{number}" for number in range(1, 11)]
_SUITE = ("lost_device", "readonly_data", "late_update")  # `make chaos-field` plays all


def test_all_ten_are_listed_in_order_and_say_what_must_hold() -> None:
    assert list(dict.fromkeys(entry.id for entry in listed() if entry.id in _IDS)) == _IDS
    assert all(entry.happened.endswith(".") and entry.holds.endswith(".") for entry in listed())


def test_each_is_played_by_a_function_or_a_test_that_is_there() -> None:
    plays = [entry.play for entry in listed()]
    assert len(plays) == len(set(plays))
    for name in plays:
        file, _, test = name.partition("::")
        assert name in SCENARIOS or f"\ndef {test}(" in (ROOT / file).read_text(), name
    assert set(SCENARIOS) <= set(plays)


def test_what_ruins_the_stand_is_last() -> None:
    ruins = [entry.is_last for entry in listed() if entry.play in SCENARIOS]
    assert ruins == sorted(ruins)


def test_an_empty_result_is_no_result() -> None:
    fields = {
        "study": "sha256:" + "a" * 64, "name": "empty", "outcome": "COMPLETE",
        "rounds_planned": 2, "rounds_applied": 2, "sites": ("alpha", "beta"), "matrix": (),
        "model": "sha256:" + "b" * 64, "audit_head": "1:x", "ended_at": 0.0,
    }  # fmt: skip
    with pytest.raises(IntegrityError):
        require_honest(Certificate.model_validate(fields))


@pytest.mark.parametrize(("is_ci", "status"), [("1", 1), ("", 0)])
def test_a_skipped_test_counts_as_a_failure_in_ci(tmp_path: Path, is_ci: str, status: int) -> None:
    test = tmp_path / "test_skipped.py"
    test.write_text("import pytest\n\n\ndef test_it():\n    pytest.skip('no reason')\n")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", f"--rootdir={tmp_path}", test],
        env={"PATH": "/usr/bin", "LARREY_FAIL_ON_SKIP": is_ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with open_field(tmp_path_factory.mktemp("field")) as found:
        yield found


@pytest.mark.system
@pytest.mark.parametrize("entry", [e for e in listed() if e.play in _SUITE], ids=lambda e: e.play)
def test_a_failure_of_the_field_ends_as_it_should(field: Field, entry: Entry) -> None:
    if SCENARIOS[entry.play] in MOUNTING and not may_mount():
        pytest.skip("this account may not make mount namespaces")
    play(entry, field)
