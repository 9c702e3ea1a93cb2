"""10 MB each way at 4 Mbit/s, cut in the middle and the node's connection made anew: what passes.

The node's own exchange and spools, a coordinator in this process, a line between them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from larrey_client.exchange import Exchange, Tls
from larrey_client.model_spool import ModelSpool
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import TransportError
from larrey_protocol.models import model_layout
from larrey_protocol.tensors import pack
from tests.chaos.proxy import Fault, Line, Network, Way
from tests.chaos.storm_transfer import wide
from tests.protocol.samples import study
from tests.server.exchange_bench import start
from tests.server.peers import Federation, Folder, Work, running

MEGABYTES = 10.0
RATE = 4e6 / 8
LARGE = study(
    model={"name": "mlp", "hidden": wide(MEGABYTES)}, training__rounds=1, rounds__deadline_s=600.0
)
_LAYOUT = model_layout(LARGE)
_LIMIT_S = 3 * _LAYOUT.nbytes / RATE


@dataclass(frozen=True)
class Resumed:
    """What a transfer that was cut once passed, both ways, and whether all of it came."""

    nbytes: int
    passed: dict[Way, int]
    cuts: int
    is_accepted: bool


def resume(folder: Path) -> Resumed:
    """Move one model and one update at once; cut both after half of all bytes."""
    keys = Folder.make(folder / "keys")
    with Network() as network, contextmanager(running)(keys, folder / "state") as federation:
        start(federation, LARGE)
        line = network.line(int(federation.hub.address.rpartition(":")[2]))
        with (
            federation.site("alpha") as alpha,
            federation.site("beta") as beta,
            ThreadPoolExecutor(1) as pool,
        ):
            other = pool.submit(beta.work)  # a round opens once both are there
            work = alpha.work()
            other.result()
            update = folder / "update"
            update.write_bytes(pack(_LAYOUT, np.full(_LAYOUT.size, 1e-6, np.float32)))
            cut = Fault("cut", after=_LAYOUT.nbytes)
            line.strike(Fault("bandwidth", rate=RATE), cut)
            cuts = _move(federation, line, work, folder)
            cuts += _move(federation, line, work, folder)
            data = update.read_bytes()
            receipt = alpha.receipt(work, digest_bytes(data), len(data))
            is_accepted = alpha.give(work, digest_bytes(data), receipt=receipt).accepted
        return Resumed(_LAYOUT.nbytes, dict(line.passed), cuts, is_accepted)


def _move(federation: Federation, line: Line, work: Work, folder: Path) -> int:
    """Fetch and store as a node does that starts now; return how many of both were cut."""
    credential, _ = federation.folder.sites["alpha"]
    authority = federation.folder.authority.certificate
    tls = Tls(authority, credential.certificate, credential.key)
    exchange = Exchange(f"127.0.0.1:{line.port}", tls, lambda *_: None)

    def fetch() -> None:
        with ModelSpool(folder).begin(
            LARGE.digest, str(work.fields["model"]), _LAYOUT.nbytes
        ) as one:
            if not one.is_whole:
                exchange.fetch(one, timeout_s=_LIMIT_S)

    def store() -> None:
        path = folder / "update"
        exchange.store(digest_bytes(path.read_bytes()), path, timeout_s=_LIMIT_S, resume=True)

    with ThreadPoolExecutor(2) as pool:
        errors = [future.exception() for future in [pool.submit(fetch), pool.submit(store)]]
    exchange.close()
    assert all(error is None or isinstance(error, TransportError) for error in errors), errors
    return sum(error is not None for error in errors)
