"""What harms a site, by the real cause; one function a code of the doctor's table."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable
from pathlib import Path

from larrey_client.data.opposition import Entry, append
from larrey_protocol.certificates import issue_client, make_authority
from larrey_protocol.keys import write_private
from tests.client.doctor.conftest import Patient

__all__ = ["FAULTS"]

NOW = dt.datetime.now(dt.UTC)


def free_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def put(path: Path, data: bytes) -> None:
    """Replace a private file."""
    path.unlink()
    write_private(path, data)


def name_unknown(site: Patient) -> None:
    site.edit(f"localhost:{site.peer.port}", "nowhere.invalid:443")


def unreachable(site: Patient) -> None:
    site.edit(f"localhost:{site.peer.port}", f"localhost:{free_port()}")


def closed(site: Patient) -> None:
    other = issue_client(make_authority("other", now=NOW), "alpha", now=NOW)
    (site.folder / "site.crt").write_bytes(other.certificate)
    put(site.folder / "site.key", other.key)


def proxy_away(site: Patient) -> None:
    site.env.setenv("https_proxy", f"http://user:secret@127.0.0.1:{free_port()}")


def proxy_unread(site: Patient) -> None:
    site.env.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")


def proxy_differs(site: Patient) -> None:
    site.env.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    site.env.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")


def unreadable(site: Patient) -> None:
    (site.folder / "site.crt").write_bytes(b"no certificate")


def issued(site: Patient, days_ago: float) -> None:
    now = NOW - dt.timedelta(days=days_ago)
    made = issue_client(site.pki.authority, "alpha", now=now)
    (site.folder / "site.crt").write_bytes(made.certificate)
    put(site.folder / "site.key", made.key)


def key_mismatch(site: Patient) -> None:
    other = issue_client(site.pki.authority, "alpha", now=NOW)
    put(site.folder / "site.key", other.key)


def authority_ended(site: Patient) -> None:
    old = make_authority("old", now=NOW - dt.timedelta(days=4015))
    (site.folder / "ca.crt").write_bytes(old.certificate)


def opposition_stale(site: Patient) -> None:
    at = NOW.timestamp() - 200 * 86400
    append(site.folder / "state", [Entry(b"0" * 16, "oppose", dt.date(2026, 1, 1), at, "dora")])


def opposition_damaged(site: Patient) -> None:
    opposition_stale(site)
    (made,) = (site.folder / "state").glob("opposition.db")
    made.write_bytes(b"no database" * 100)


def more_threads(site: Patient) -> None:
    site.edit("[consortium]", "[trainer]\nthreads = 1024\n[consortium]")


def no_device(site: Patient) -> None:
    site.edit("[consortium]", '[trainer]\ndevice = "cuda:63"\n[consortium]')


def state_open(site: Patient) -> None:
    (site.folder / "state").mkdir(mode=0o755)
    (site.folder / "state").chmod(0o755)


def among_data(site: Patient) -> None:
    (site.folder / "manifest.csv").write_text("pid,file\n")
    site.edit(
        'path = "heart.csv"',
        'source = {kind = "images", manifest = "manifest.csv", root = "."}',
    )


def data_missing(site: Patient) -> None:
    (site.folder / "heart.csv").unlink()


FAULTS: dict[str, Callable[[Patient], object]] = {
    "coordinator-name-unknown": name_unknown,
    "coordinator-unreachable": unreachable,
    "coordinator-closed": closed,
    "proxy-unreachable": proxy_away,
    "proxy-unread": proxy_unread,
    "proxy-differs": proxy_differs,
    "proxy-takes-loopback": proxy_away,
    "identity-unreadable": unreadable,
    "certificate-ended": lambda site: issued(site, 400),
    "certificate-ends-soon": lambda site: issued(site, 85),
    "certificate-not-yet-valid": lambda site: issued(site, -10),
    "certificate-foreign": closed,
    "key-mismatch": key_mismatch,
    "authority-ended": authority_ended,
    "key-open": lambda site: (site.folder / "site.key").chmod(0o644),
    "signing-key-damaged": lambda site: put(site.folder / "signing.pem", b"no key"),
    "threads-many": more_threads,
    "device-lost": no_device,
    "state-open": state_open,
    "state-among-data": among_data,
    "opposition-damaged": opposition_damaged,
    "opposition-stale": opposition_stale,
    "data-unreadable": data_missing,
    "data-empty": lambda site: (site.folder / "heart.csv").write_bytes(b""),
}
