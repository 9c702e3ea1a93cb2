"""Charts rendered by the pinned helm, once for each file of values, for all tests here."""

import functools
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "deploy" / "helm"
HELM = Path(os.environ.get("HELM", ROOT / ".tools" / "helm"))
CASES = sorted(CHARTS.glob("*/ci/*-values.yaml"))

Manifest = Mapping[str, Any]  # a Kubernetes object: its schema is Kubernetes' own


@dataclass(frozen=True, slots=True)
class Case:
    """One chart with one of its files of values, rendered for one version of Kubernetes."""

    values: Path
    objects: tuple[Manifest, ...]

    @property
    def is_site(self) -> bool:
        return self.values.parents[1].name == "larrey-site"

    def of_kind(self, kind: str) -> list[Manifest]:
        return [item for item in self.objects if item["kind"] == kind]

    def the(self, kind: str) -> Manifest:
        (only,) = self.of_kind(kind)
        return only

    @property
    def pod(self) -> Manifest:
        pod: Manifest = self.the("StatefulSet")["spec"]["template"]["spec"]
        return pod

    @property
    def container(self) -> Manifest:
        container: Manifest
        (container,) = self.pod["containers"]
        return container


Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@functools.cache
def _render(values: Path, kube_version: str) -> Case:
    chart = values.parents[1]
    text = _helm(
        "template", "r", str(chart), "-f", str(values), "--kube-version", kube_version
    ).stdout
    return Case(values, tuple(item for item in yaml.safe_load_all(text) if item))


def _helm(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    run = subprocess.run([str(HELM), *arguments], capture_output=True, text=True, check=False)
    if check and run.returncode != 0:
        raise AssertionError(f"helm {' '.join(arguments)}: {run.stderr}")
    return run


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Run the pinned helm; a test that needs it is skipped by name where it is absent."""
    if not HELM.exists():
        pytest.skip("needs helm: run `make tools`")
    return _helm


@pytest.fixture
def render(helm: Helm) -> Callable[[Path, str], Case]:
    """Render a file of values for a version of Kubernetes, each pair once."""
    return _render


@pytest.fixture(params=CASES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def values(request: pytest.FixtureRequest) -> Path:
    """Every file of values of both charts in turn."""
    path: Path = request.param
    return path


@pytest.fixture(
    params=[path for path in CASES if path.parents[1].name == "larrey-site"],
    ids=lambda path: path.stem,
)
def site_case(render: Callable[[Path, str], Case], request: pytest.FixtureRequest) -> Case:
    """Every file of values of the site chart, rendered for Kubernetes 1.32."""
    return render(request.param, "1.32.0")


@pytest.fixture
def case(render: Callable[[Path, str], Case], values: Path) -> Case:
    """Every file of values, rendered for Kubernetes 1.32."""
    return render(values, "1.32.0")


@pytest.fixture
def site(render: Callable[[Path, str], Case]) -> Callable[[str], Case]:
    """Render one of the site chart's files of values, by name."""
    return lambda name: render(CHARTS / "larrey-site" / "ci" / f"{name}-values.yaml", "1.32.0")


@pytest.fixture
def coordinator(render: Callable[[Path, str], Case]) -> Callable[[str], Case]:
    """Render one of the coordinator chart's files of values, by name."""
    folder = CHARTS / "larrey-coordinator" / "ci"
    return lambda name: render(folder / f"{name}-values.yaml", "1.32.0")
