"""Fetch promtool, amtool, Prometheus and Alertmanager for tests into `.tools/`, checked by sha256.

    python deploy/watching.py      # a second call finds them and does nothing

They are Debian 12's packages, unpacked and not installed. On another system put `promtool` and
`amtool` into `.tools/`, or name them by the variables PROMTOOL and AMTOOL.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["main"]

TOOLS = Path(__file__).resolve().parents[1] / ".tools"
PACKAGES = {  # package=version -> sha256 of the amd64 archive, and what is wanted of it
    "prometheus=2.42.0+ds-5+deb12u1": (
        "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
        ("usr/bin/prometheus", "usr/bin/promtool"),
    ),
    "prometheus-alertmanager=0.25.0-1+b4": (
        "4fb9aed15cfe8e0c32408e643ab32a1e41ee87d2cc26f18aeba928b1b0b98ae7",
        (
            "usr/bin/prometheus-alertmanager",
            "usr/bin/amtool",
            "usr/share/prometheus/alertmanager/default.tmpl",  # it does not start without them
            "usr/share/prometheus/alertmanager/email.tmpl",
        ),
    ),
}


def main() -> int:
    """Provide the tools; return the exit code."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    for package, (pin, files) in PACKAGES.items():
        names = [Path(file).name for file in files]
        if all((TOOLS / name).is_file() for name in names):
            sys.stderr.write(f"{package}: present\n")
            continue
        with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
            try:
                archive = _download(package, Path(folder))
            except (subprocess.CalledProcessError, OSError, StopIteration):
                sys.stderr.write(f"{package} was not found; apt of Debian 12 has it.\n")
                return 1
            if hashlib.sha256(archive.read_bytes()).hexdigest() != pin:
                sys.stderr.write(f"{archive.name} is not the pinned one. Nothing was installed.\n")
                return 1
            subprocess.run(["dpkg-deb", "-x", str(archive), folder], check=True)
            for file in files:
                shutil.move(Path(folder) / file, TOOLS / Path(file).name)
        sys.stderr.write(f"{package}: installed {', '.join(names)}\n")
    return 0


def _download(package: str, folder: Path) -> Path:
    """Return the archive; apt may write into the folder as whoever it drops its rights to."""
    subprocess.run(
        ["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", "download", package],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return next(folder.glob("*.deb"))


if __name__ == "__main__":
    sys.exit(main())
