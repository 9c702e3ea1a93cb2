"""The slim wheel of the hospital node: what is in it, and what is not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build the wheel without network and return the names of its files."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT / "client")], check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("larrey_node-*.whl"))) as wheel:
        return wheel.namelist()


def test_the_node_wheel_holds_the_node_and_no_server(names: list[str]) -> None:
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"larrey_client", "larrey_privacy", "larrey_protocol", "larrey_strategies"}


@pytest.mark.parametrize(
    "name",
    ["larrey_client/cli.py", "larrey_privacy/ledger.py", "larrey_protocol/v1/larrey_pb2.py"],
)
def test_the_node_wheel_holds_what_the_node_imports(names: list[str], name: str) -> None:
    assert name in names


def test_the_node_wheel_holds_no_compiled_or_private_file(names: list[str]) -> None:
    assert not [name for name in names if name.endswith((".pyc", ".pem", ".db", ".key"))]


def test_the_node_depends_on_nothing_that_the_root_does_not() -> None:
    node = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(root["dependencies"]) | set(root["optional-dependencies"]["client"])
    assert set(node["dependencies"]) == known
    assert node["version"] == root["version"]
