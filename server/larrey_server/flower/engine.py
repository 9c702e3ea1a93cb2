"""Flower's state, nodes and runs of one coordinator process.

Each registered site has one Flower node. Node ids and runs change with every start of the process;
names of sites are what lasts. Does not know studies, rounds or receipts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric import ec

from larrey_server.doorbell import Doorbell
from larrey_server.flower.names import (
    FLWR_IN_MEMORY_DB_NAME,
    NOOP_ACCOUNT_NAME,
    NOOP_FEDERATION_ID,
    NOOP_FLWR_AID,
    LinkState,
    LinkStateFactory,
    NoOpFederationManager,
    ObjectStore,
    ObjectStoreFactory,
    Run,
    SubStatus,
    TaskType,
    public_key_to_bytes,
)

__all__ = ["HEARTBEAT_S", "Engine"]

logger = logging.getLogger(__name__)
HEARTBEAT_S = 30.0  # Flower calls a node offline after twice this
_LEASE_RENEWAL_S = 20.0  # a run's lease is 60 s

ReplyHook = Callable[[str], None]  # called with the id of the message that was replied to


class Engine:
    """Flower's in-memory link state, hosted here."""

    def __init__(self, sites: Mapping[str, ec.EllipticCurvePublicKey]) -> None:
        self._adding = threading.Lock()
        logging.getLogger("flwr").setLevel(logging.WARNING)  # ours names studies and sites
        self.objects = ObjectStoreFactory(FLWR_IN_MEMORY_DB_NAME)
        self.factory = LinkStateFactory(
            FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), self.objects
        )
        self.state: LinkState = self.factory.state()
        self.store: ObjectStore = self.objects.store()
        self.keys: dict[str, bytes] = {}
        self._nodes: dict[str, int] = {}
        self._sites: dict[int, str] = {}
        self._bells: dict[str, Doorbell] = {}
        for site, key in sites.items():
            self.add_site(site, key)
        self._hooks: dict[int, ReplyHook] = {}
        self._losses: dict[int, Callable[[], None]] = {}
        self._runs: dict[int, int] = {}  # run id -> primary task id
        self._stopped = threading.Event()
        self._renewal = threading.Thread(target=self._renew, name="flower-leases", daemon=True)
        self._renewal.start()

    def add_site(self, site: str, key: ec.EllipticCurvePublicKey) -> None:
        """Give a site its node; one that it has already stays, with its first key.

        A plain Flower client of a site that changed its key is therefore known again only after a
        restart; our own calls do not depend on Flower's key.
        """
        with self._adding:
            if site in self._nodes:
                return
            self.keys[site] = public_key_to_bytes(key)
            node = self._create_node(site)
            self._sites[node] = site
            self._nodes[site] = node

    def node_of(self, site: str) -> int:
        """Return the Flower node of a registered site."""
        return self._nodes[site]

    def site_of(self, node: int) -> str:
        """Return the site behind a Flower node."""
        return self._sites[node]

    def bell(self, site: str) -> Doorbell:
        """Return what wakes the site's long poll; a site that is no member now has one too."""
        return self._bells.setdefault(site, Doorbell())

    def ring_all(self) -> None:
        """Wake every long poll."""
        for bell in list(self._bells.values()):
            bell.ring()

    def activate(self, site: str) -> None:
        """Mark a site's node as online; one that came back after a crash too.

        A node that Flower believes online refuses activation for a minute: deactivate it first.
        """
        node = self._nodes[site]
        self.state.deactivate_node(node)
        self.state.activate_node(node, HEARTBEAT_S)

    def heartbeat(self, site: str) -> None:
        """Prolong a site's presence in Flower's eyes."""
        self.state.acknowledge_node_heartbeat(self._nodes[site], HEARTBEAT_S)

    def start_run(self, name: str) -> Run:
        """Return a new running Flower run without any app bundle."""
        run_id = self.state.create_run(
            f"larrey/{name}",
            "1.0.0",
            None,
            {},
            NOOP_FEDERATION_ID,
            None,
            NOOP_FLWR_AID,
            TaskType.SERVER_APP,
        )
        run = self._run(run_id)
        task = run.primary_task_id
        if task is None or not self.state.claim_task(task) or not self.state.activate_task(task):
            raise RuntimeError(f"Flower did not start run {run_id}")
        self._runs[run_id] = task
        return self._run(run_id)

    def finish_run(self, run: Run) -> None:
        """End a run and free all its messages and objects."""
        task = self._runs.pop(run.run_id, None)
        self._hooks.pop(run.run_id, None)
        self._losses.pop(run.run_id, None)
        if task is not None:
            self.state.finish_task(task, SubStatus.COMPLETED, "")
            self.state.cleanup_run(run.run_id)

    def on_reply(self, run: Run, hook: ReplyHook) -> None:
        """Call ``hook`` when a reply of this run is complete."""
        self._hooks[run.run_id] = hook

    def on_loss(self, run: Run, hook: Callable[[], None]) -> None:
        """Call ``hook`` when Flower ended this run because its lease was not renewed in time."""
        self._losses[run.run_id] = hook

    def replied(self, run_id: int, message_id: str) -> None:
        """Tell the owner of a run that a message was answered completely."""
        hook = self._hooks.get(run_id)
        if hook is not None:
            hook(message_id)

    def stop(self) -> None:
        """Finish all runs and stop renewing leases."""
        self._stopped.set()
        for run_id in list(self._runs):
            self.finish_run(self._run(run_id))
        self._renewal.join(timeout=1.0)

    def _create_node(self, site: str) -> int:
        node = self.state.create_node(
            NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, self.keys[site], HEARTBEAT_S, name=site
        )
        # Flower queues messages only for nodes that were online once.
        self.state.activate_node(node, HEARTBEAT_S)
        self.state.deactivate_node(node)
        return node

    def _run(self, run_id: int) -> Run:
        return self.state.get_run_info(run_ids=[run_id])[0]

    def renew_leases(self) -> None:
        """Keep all runs going; an owner whose run is over all the same is told."""
        for run_id, task in list(self._runs.items()):
            lost = not self.state.acknowledge_task_heartbeat(task)
            hook = self._losses.get(run_id)  # none: it was finished meanwhile
            if lost and hook is not None:
                logger.warning("flower run lost, starting another")
                hook()

    def _renew(self) -> None:
        while not self._stopped.wait(_LEASE_RENEWAL_S):
            self.renew_leases()
