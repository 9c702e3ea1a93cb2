"""Studies and steps that tests of the exchange share."""

from __future__ import annotations

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.study import Study
from tests.protocol.samples import study
from tests.server.peers import (
    Federation,
    SitePeer,
    Work,
    small_update,
)

BIG = study(model={"name": "mlp", "hidden": [512, 512]}, training__rounds=1)  # about 1 MiB
TINY = study()
CALLED = study(
    privacy={"mechanism": "none"},
    training__app="judge",
    training__calls=["train", "evaluate"],
    training__metrics=["loss"],
)


def start(federation: Federation, wanted: Study = TINY) -> str:
    digest = federation.propose(wanted)
    for name in ("alpha", "beta"):
        with federation.site(name) as site:
            site.approve(digest)
    federation.launch(digest)
    return digest


def rejected(federation: Federation, code: str) -> float:
    labels = {"study": "tiny", "site": "alpha", "reason": code}
    registry = federation.hub.metrics.registry
    return registry.get_sample_value("larrey_updates_rejected_total", labels) or 0.0


def uploaded(alpha: SitePeer) -> tuple[Work, str, int]:
    work = alpha.work()
    update = small_update(TINY)
    alpha.store(update)
    return work, digest_bytes(update), len(update)
