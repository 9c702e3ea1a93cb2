"""One private study over four real nodes, and what it leaves behind."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import numpy as np
import pytest

from larrey_client.settings import load_settings
from larrey_client.store import open_readonly
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Certificate, Receipt, Signed, open_signed
from larrey_protocol.study import Study
from tests.system.hospitals import (
    PRIVATE,
    PRIVATE_TRAINING,
    SITES,
    Hospitals,
    descendants,
    make_study,
)

pytestmark = pytest.mark.system
_CONNECTED, _LISTENING = "01", "0A"  # Linux kernel, include/net/tcp_states.h
KEYS = 2 * (len(SITES) + 2) + 2 * (len(SITES) + 1)  # of programs; of two persons a house


@dataclass(frozen=True)
class Ended:
    """A study that ran to its end; everything still runs."""

    hospitals: Hospitals
    study: Study
    certificate: Certificate

    def receipts(self, site: str) -> list[Receipt]:
        """Return a site's receipts of the study, their signatures checked."""
        settings = load_settings(self.hospitals.config(site))
        key = SigningKey.load(settings.identity.signing_key).public
        connection = open_readonly(settings.site.state)
        try:
            query = "SELECT receipt FROM answers WHERE study = ? ORDER BY round"
            rows = connection.execute(query, (self.study.digest,)).fetchall()
        finally:
            connection.close()
        return [open_signed(Signed.from_bytes(bytes(row)), Receipt, key) for (row,) in rows]


@pytest.fixture(scope="session")
def ended(running: Hospitals) -> Ended:
    """Return the one private study; whatever other tests killed was started again."""
    study = make_study("private", training=PRIVATE_TRAINING, privacy=PRIVATE)
    return Ended(running, study, running.finish(running.launch(study)))


def test_a_study_completes_with_every_site_in_every_round(ended: Ended) -> None:
    assert (ended.certificate.outcome, ended.certificate.rounds_applied) == ("COMPLETE", 3)
    cells = {(cell.round, cell.site): cell.outcome for cell in ended.certificate.matrix}
    assert cells == {(n, site): "contributed" for n in (1, 2, 3) for site in SITES}


def test_every_round_changes_the_model_and_the_last_is_certified(
    ended: Ended, tmp_path: Path
) -> None:
    models = [ended.hospitals.model(ended.study, number, tmp_path) for number in range(4)]
    assert all(np.isfinite(model).all() for model in models)
    assert len({model.tobytes() for model in models}) == 4
    last = (tmp_path / "3.safetensors").read_bytes()
    assert ended.certificate.model == digest_bytes(last)


@pytest.mark.parametrize("site", SITES)
def test_each_ledger_holds_exactly_the_rounds_that_receipts_tell(ended: Ended, site: str) -> None:
    assert ended.hospitals.rounds_used(site, ended.study.digest) == 3
    receipts = ended.receipts(site)
    assert [receipt.round for receipt in receipts] == [1, 2, 3]
    certified = [c.epsilon for c in ended.certificate.matrix if c.site == site]
    assert [receipt.epsilon for receipt in receipts] == certified
    assert 0 < max(certified) <= PRIVATE["epsilon"]
    assert ended.hospitals.proofs(site)["is_intact"]


def test_one_port_listens_and_only_on_loopback(ended: Ended) -> None:
    processes = ended.hospitals.federation.processes
    listening = {name: _addresses(pid, state=_LISTENING) for name, pid in processes.items()}
    (address,) = listening.pop("coordinator")
    assert _is_local(address)
    assert not any(listening.values())


def test_nothing_is_connected_beyond_loopback(ended: Ended) -> None:
    processes = ended.hospitals.federation.processes
    peers = {
        peer for pid in processes.values() for peer in _addresses(pid, state=_CONNECTED, column=2)
    }
    assert peers
    assert all(_is_local(peer) for peer in peers)


def test_no_key_shows_in_a_log_a_command_line_or_an_environment(ended: Ended) -> None:
    folder = ended.hospitals.folder
    keys = [path for path in folder.rglob("*") if path.suffix in (".key", ".ed25519")]
    secrets = [w for path in keys for w in re.findall(r"[A-Za-z0-9+/=_-]{40,}", path.read_text())]
    assert len(secrets) >= len(keys) == KEYS
    pids = [p for pid in ended.hospitals.federation.processes.values() for p in _tree(pid)]
    shown = [Path(f"/proc/{pid}/{name}") for pid in pids for name in ("cmdline", "environ")]
    text = b"".join(map(_content, (*shown, *(folder / "logs").iterdir())))
    assert b"larrey-site" in text
    assert not [secret for secret in secrets if secret.encode() in text]


def test_keys_and_doors_are_closed_to_others(ended: Ended) -> None:
    names = ("*.key", "*.ed25519", "agent.sock", "salt")
    private = [path for name in names for path in ended.hospitals.folder.rglob(name)]
    assert len(private) == KEYS + 2 * len(SITES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except ProcessLookupError:  # it ended while we looked
        return b""


def _tree(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def _addresses(pid: int, *, state: str, column: int = 1) -> set[str]:
    """Return local (1) or remote (2) addresses of TCP sockets that a process tree holds."""
    found: set[str] = set()
    for process in _tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # a child that ended meanwhile
            found |= _addresses_of(process, state, column)
    return found


def _addresses_of(process: int, state: str, column: int) -> set[str]:
    sockets, found = _sockets(process), set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in sockets and fields[3] == state:
                found.add(_readable(fields[column].partition(":")[0]))
    return found


def _sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            links.append(str(path.readlink()))
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def _readable(text: str) -> str:
    """Return an address of /proc/net: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    return str(ip_address(b"".join(words)))


def _is_local(text: str) -> bool:
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
