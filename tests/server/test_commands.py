"""`larrey` as a person types it: real processes, real files, what goes where, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_protocol.errors import PortBusy, UsageError
from larrey_server.cli import main
from larrey_server.serve import Hub
from tests.server.peers import Federation, Folder, running

HEART = Path(__file__).parents[2] / "examples" / "heart" / "study.toml"
OPERATOR = """
[coordinator]
address = "{address}"
authority = "ca.crt"
[identity]
certificate = "operator.crt"
key = "operator.key"
[consortium]
signing_key = "consortium.pem"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    sites = ("cleveland", "hungary", "switzerland", "va")
    return Folder.make(tmp_path_factory.mktemp("federation"), sites)


@pytest.fixture(scope="module")
def federation(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    yield from running(folder, tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def operator(federation: Federation) -> str:
    path = federation.folder.path / "operator.toml"
    path.write_text(OPERATOR.format(address=federation.hub.address))
    return str(path)


def heart(folder: Path, old: str = "", new: str = "") -> str:
    """Return a copy of the heart example with one text replaced."""
    for name in ("study.toml", "contract.toml"):
        text = (HEART.parent / name).read_text()
        (folder / name).write_text(text.replace(old, new) if name == "study.toml" else text)
    return str(folder / "study.toml")


def test_check_prints_the_facts_as_json_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["study", "check", str(HEART), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["digest"].startswith("sha256:")
    assert 0 < facts["epsilon"] <= facts["epsilon_claimed"]


@pytest.mark.parametrize(
    ("old", "new", "code", "status"),
    [
        ("quorum", "kworum", "unknown-key", 2),
        ("epsilon = 1.0", "epsilon = 0.1", "epsilon-impossible", 1),
        ('strategy = "fedavg"', 'strategy = "fedag"', "unknown-strategy", 2),
        ('name = "logistic"', 'name = "oracle"', "invalid-file", 2),
        ("[model]", "[model", "invalid-toml", 2),
    ],
)
def test_a_wrong_study_file_gets_a_code_and_a_next_step(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    code: str,
    status: int,
) -> None:
    assert main(["study", "check", heart(tmp_path, old, new)]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"[{code}]" in printed.err


def test_a_missing_study_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "check", "nowhere.toml"]) == 2
    assert "nowhere.toml" in capsys.readouterr().err


def test_wrong_usage_exits_with_two() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["study", "check"])
    assert ended.value.code == 2


def test_a_study_is_proposed_and_listed(operator: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "propose", str(HEART), "--operator", operator, "--json"]) == 0
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert main(["study", "list", "--operator", operator, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [facts["digest"] for facts in listed] == [digest]
    assert main(["study", "list", "--operator", operator]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["STUDY", "VERSION", "DIGEST", "STATE", "ROUND"]
    assert line.split()[:5] == ["heart", "1", digest[7:19], "proposed", "-"]
    assert "4 silent" in line


def test_a_second_study_of_one_name_is_an_amendment(
    operator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "propose", str(HEART), "--operator", operator]
    assert [main(words), main(words)] == [0, 0]  # the same again changes nothing
    other = heart(tmp_path, "deadline_s = 60.0", "deadline_s = 61.0")
    assert main(["study", "propose", other, "--operator", operator]) == 1
    said = capsys.readouterr().err
    assert "[study-known] Change it: larrey study amend" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["launch", "nobody"], "unknown-study"),
        (["watch", "nobody"], "unknown-study"),
        (["certificate", "nobody"], "unknown-study"),
        (["model", "nobody", "--out", "model"], "unknown-study"),
    ],
)
def test_a_refusal_of_the_coordinator_keeps_its_code(
    operator: str, words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", *words, "--operator", operator]) == 1
    assert f"[{code}]" in capsys.readouterr().err


def test_a_coordinator_that_is_not_there_is_named(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    path = folder.path / "lonely.toml"
    path.write_text(OPERATOR.format(address=address))
    assert main(["study", "list", "--operator", str(path)]) == 1
    printed = capsys.readouterr().err
    assert "[coordinator-unreachable]" in printed
    assert address in printed


def test_a_site_certificate_is_no_operator(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    path = federation.folder.path / "impostor.toml"
    text = OPERATOR.format(address=federation.hub.address)
    path.write_text(text.replace("operator.", "va."))
    assert main(["study", "list", "--operator", str(path)]) == 1
    assert "[not-an-operator]" in capsys.readouterr().err


def test_a_busy_port_is_refused_before_anything_is_written(
    federation: Federation, tmp_path: Path
) -> None:
    settings = federation.folder.settings(tmp_path / "state", federation.hub.address)
    with pytest.raises(PortBusy, match=federation.hub.address):
        Hub(settings)
    assert not (tmp_path / "state").exists()


def test_an_address_of_another_machine_is_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bad-address"):
        Hub(folder.settings(tmp_path / "state", "192.0.2.1:9443"))


def test_help_imports_neither_torch_nor_flwr_nor_grpc() -> None:
    script = (
        "import sys\n"
        "from larrey_server.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'flwr', 'grpc', 'numpy', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"examples:" in done.stdout


def test_serving_imports_no_torch() -> None:
    script = "import sys, larrey_server.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


SERVE = """
[listen]
address = "127.0.0.1:{port}"
metrics = ""
[identity]
certificate = "server.crt"
key = "server.key"
authority = "ca.crt"
signing_key = "signing.pem"
[consortium]
key = "{key}"
[[sites]]
name = "va"
certificate = "va.crt"
key = "{site}"
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_when_it_is_ready_and_ends_cleanly(
    folder: Folder, tmp_path: Path, number: int
) -> None:
    text = SERVE.format(port=0, key=folder.consortium.public, site=folder.sites["va"][1].public)
    text += f'[coordinator]\nstate = "{tmp_path}"\n'
    config = folder.path / f"serve-{number}.toml"
    config.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "larrey_server", "serve", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdout is not None
        assert b"ready at 127.0.0.1:" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(timeout=3) == 0
