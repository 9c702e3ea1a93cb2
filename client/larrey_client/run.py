"""`larrey-site run`: put the parts of a node together, say when it is ready, end it cleanly.

One process, one ledger, one trainer, one trail and one log of what left, whatever the number of
memberships; each has a connection and a few threads of its own.
"""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from larrey_client import proofs
from larrey_client.cases import Cases
from larrey_client.charter import people_ever
from larrey_client.credentials import days_left, read_tls, settle
from larrey_client.decision_pages import policy_view
from larrey_client.dossier import read_dossier
from larrey_client.epsilons import EpsilonTable
from larrey_client.exchange import Exchange, Tls
from larrey_client.extract.snapshots import folder_of
from larrey_client.families import family_of, require_signed
from larrey_client.incident import open_incidents
from larrey_client.leaving import departure_of
from larrey_client.ledger_pages import ledger_view
from larrey_client.local import Door, Handler
from larrey_client.logs import kept_of, open_logs, purge_study
from larrey_client.metrics import SiteMetrics, serve_metrics
from larrey_client.node import Node, Trainer
from larrey_client.people_door import people_handlers, who_signed
from larrey_client.registrar import registrar_handlers
from larrey_client.settings import Member, SiteSettings
from larrey_client.sources_settings import FileSource, ImageSource, SqlSource
from larrey_client.stopping import standing_stops
from larrey_client.store import SiteStore, open_readonly
from larrey_client.trail import Seal
from larrey_client.trainer_link import TrainerLink
from larrey_client.trainer_process import Limits
from larrey_client.turn import Turn
from larrey_client.views import studies_view, study_view, verify_view
from larrey_client.watch import Anchors, open_watch
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.streams import reuse_buffers
from larrey_protocol.waypoints import reached

if TYPE_CHECKING:
    from larrey_client.agent import Agent
    from larrey_client.border import Border
    from larrey_client.members import Members

__all__ = ["handlers", "open_members", "open_node", "run", "start_trainer"]

logger = logging.getLogger(__name__)

Json = dict[str, Any]  # Any: JSON values are recursive


def run(settings: SiteSettings, ready: Callable[[], None]) -> None:
    """Run the node until SIGINT or SIGTERM; call ``ready`` once it works.

    Raises:
        FileError: a key or certificate is missing, exposed or not one.
        UsageError: ``state-locked``, ``port-busy``.
        IntegrityError: the ledger or the audit trail does not verify.
    """
    reuse_buffers()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with open_members(settings, start_trainer, stopping):
        ready()
        stopping.wait()


@contextmanager
def open_node(
    settings: SiteSettings,
    start_trainer: Callable[[SiteSettings], Trainer],
    stopping: threading.Event,
) -> Iterator[Agent]:
    """Yield the agent of a running node's first membership, as `open_members` does all of them."""
    with open_members(settings, start_trainer, stopping) as members:
        yield members.first


@contextmanager
def open_members(
    settings: SiteSettings,
    start_trainer: Callable[[SiteSettings], Trainer],
    stopping: threading.Event,
) -> Iterator[Members]:
    """Yield the memberships of a running node; everything it started ends with the context."""
    for one in settings.members:
        settle(one.identity)  # a renewal that was cut
    pems = [read_tls(one) for one in settings.members]
    key = SigningKey.load(settings.identity.signing_key)
    with ExitStack() as stack:
        store = SiteStore.open(settings.site.state, time.time)
        stack.callback(store.close)
        _require_families(settings, store)
        seal = Seal(store, settings.site.name, key, time.time)
        store.on_audit = seal.write
        anchors = open_watch(
            store,
            settings.site.name,
            key,
            settings.witness,
            time.time,
            is_optional=settings.policy.witness_optional,
        )
        stack.callback(anchors.close)
        trainer = start_trainer(settings)  # first: it warms up while the rest is imported
        stack.callback(trainer.stop)
        reached("agent.trainer-started")
        from larrey_client.agent import Agent
        from larrey_client.border import Border
        from larrey_client.closing import payload_closer
        from larrey_client.leaving import require_task
        from larrey_client.members import Members

        views = [store.scoped(one.scope, one.name if one.scope else "") for one in settings.members]
        require_task(view.records for view in views)
        metrics = _metrics(settings, store, pems)
        metrics.watch_isolation(lambda: trainer.isolation)
        logs = stack.enter_context(open_logs(settings, store, stopping))
        border = Border(logs.egress, store.spool, time.time)
        shared = _Shared(settings, anchors, trainer, key, EpsilonTable(), metrics, stopping)
        stack.callback(shared.epsilons.stop)
        purge = payload_closer(
            lambda study: kept_of(settings.site.state, study),
            lambda study: purge_study(logs, store, study),
        )
        connect = partial(_connected, stack, metrics, border)
        members = Members(
            Agent(shared.node(one, view, connect(one, tls)), [purge])
            for one, tls, view in zip(settings.members, pems, views, strict=True)
        )
        if settings.site.metrics:
            stack.enter_context(_served(settings, metrics, members))
        commands = {**handlers(members), **proofs.handlers(members.first.node)}

        def used(actor: str, verb: str, code: str, signed: str) -> None:
            logs.used(actor, verb, code, who_signed(members.first.node, verb, signed))

        stack.callback(Door(settings.site.state, commands, used).close)
        for agent in members:
            agent.start()
            stack.callback(agent.stop)
        yield members


def _require_families(settings: SiteSettings, store: SiteStore) -> None:
    """Refuse to start where a dataset left the budget in which this site's officer placed it.

    Who ever was an officer placed for good; where a document was altered the gate refuses all.

    Raises:
        IntegrityError: ``families-altered`` or ``families-damaged``.
    """
    dossier = read_dossier(store.records, settings.consortium.key)
    if not dossier.altered:
        people = people_ever(dossier.past).values() if dossier.past else settings.people
        require_signed(store, {person.key for person in people if person.role == "dpo"})


def _connected(
    stack: ExitStack, metrics: SiteMetrics, border: Border, member: Member, tls: Tls
) -> Exchange:
    exchange = Exchange(member.coordinator.address, tls, metrics.count_bytes, border)
    stack.callback(exchange.close)
    return exchange


@contextmanager
def _served(settings: SiteSettings, metrics: SiteMetrics, members: Members) -> Iterator[None]:
    web = serve_metrics(
        settings.site.metrics,
        metrics,
        lambda: members.is_connected,
        lambda: members.is_registered,
    )
    try:
        yield
    finally:
        web.shutdown()
        web.server_close()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all memberships of a node have in common."""

    settings: SiteSettings
    anchors: Anchors
    trainer: Trainer
    key: SigningKey
    epsilons: EpsilonTable
    metrics: SiteMetrics
    stopping: threading.Event
    turn: Turn = field(default_factory=Turn)
    scanned: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def node(self, member: Member, view: SiteStore, exchange: Exchange) -> Node:
        """Return the node as one membership sees it."""
        anchors, pinned = self.anchors, member.consortium.key
        return Node(
            settings=self.settings,
            store=view,
            anchors=anchors,
            cases=Cases(self.settings, view, time.time, lambda: anchors.code, pinned),
            exchange=exchange,
            trainer=self.trainer,
            trainer_turn=self.turn,
            key=self.key,
            epsilons=self.epsilons,
            metrics=self.metrics,
            now=time.time,
            monotonic=time.monotonic,
            stopping=self.stopping,
            membership=member,
            scanned=self.scanned,
        )


def handlers(members: Members) -> Mapping[str, Handler]:
    """Return what the local door can be asked."""
    from larrey_client.stop_door import stop_handlers

    node = members.first.node
    settings, state = node.settings, node.settings.site.state

    def reading(view: Callable[..., Any], *arguments: Any) -> Any:  # Any: one of several views
        connection = open_readonly(state)
        try:
            return view(connection, *arguments)
        finally:
            connection.close()

    return {
        "status": lambda _request, _actor: _status(members),
        "study list": lambda _request, _actor: reading(studies_view, settings),
        "study show": lambda request, _actor: reading(study_view, settings, str(request["study"])),
        "ledger": lambda _request, _actor: reading(ledger_view, settings),
        **registrar_handlers(node),
        **people_handlers(members),
        **stop_handlers(members),
        "audit verify": lambda _request, _actor: reading(verify_view, node.key.public),
    }


def _status(members: Members) -> Json:
    agent = members.first
    node = agent.node
    connections = [_connection(one) for one in members]
    with node.store.reading() as records:
        known = records.everywhere.known()
        states = Counter(one.state for one in known)
        ended = {one.study.digest for one in known if one.state == "ended"}
        stopped = [one for one in standing_stops(records) if one["study"] not in ended]
        heads = node.store.ledger_head, node.store.audit_head
        policy = policy_view(records.connection, node.settings)
        incidents = len(open_incidents(records))
    return {
        "site": node.site,
        "has_left": all(one["has_left"] for one in connections),
        "policy": {name: policy[name] for name in ("version", "is_in_effect", "missing")},
        "incidents": incidents,
        "coordinator": node.settings.coordinator.address,
        "is_connected": members.is_connected,
        "trouble": agent.trouble,
        "storage": node.store.fault,
        "memberships": connections,
        "studies": dict(states),
        "at_work": [
            {"study": task.study, "round": task.round, "phase": task.phase}
            for one in members
            for task in one.under_way
        ],
        "certificate_days": days_left(node.settings.identity, node.now()),
        "clock_offset_s": members.clock_offset_s,
        "epsilon_ready": node.epsilons.is_idle,
        "ledger_head": heads[0],
        "audit_head": heads[1],
        "isolation": _isolation(node),
        "windows": _windows(node),
        "witness": node.settings.witness.kinds,
        "stopped": stopped,
    }


def _connection(agent: Agent) -> Json:
    node = agent.node
    with node.store.reading() as records:
        has_left = departure_of(records) is not None
    return {
        "name": node.membership.name,
        "coordinator": node.membership.coordinator.address,
        "consortium": fingerprint(node.membership.consortium.key),
        "is_connected": agent.is_connected,
        "trouble": agent.trouble,
        "has_left": has_left,
        "certificate_days": days_left(node.membership.identity, node.now()),
    }


def _windows(node: Node) -> Json:
    """Return when training may begin; ``opens_at`` is 0.0 while it may."""
    trainer = node.settings.trainer
    opens = node.opens_at
    at = dt.datetime.fromtimestamp(opens, trainer.hours.zone) if opens else None
    return {
        "windows": list(trainer.windows),
        "timezone": trainer.timezone,
        "opens_at": opens,
        "opens": at.strftime("%Y-%m-%d %H:%M") if at else "",
    }


def _isolation(node: Node) -> Json:
    """Return the trainer's barriers; empty for a moment after a start."""
    isolation = node.trainer.isolation
    if isolation is None:
        return {"stands": [], "missing": {}}
    return {"stands": list(isolation.stands), "missing": isolation.missing}


def _metrics(settings: SiteSettings, store: SiteStore, pems: Sequence[Tls]) -> SiteMetrics:
    metrics = SiteMetrics(settings.site.state)
    metrics.watch_storage(lambda: store.fault)
    metrics.watch_pending(lambda: _waiting(store))
    metrics.watch_window(lambda: settings.trainer.hours.opens_at(time.time()))
    for dataset in settings.datasets:
        metrics.budget.labels(dataset.name).set(dataset.epsilon)
        metrics.data_ready.labels(dataset.name).set(1)
        account = store.ledger.account(family_of(store, dataset.name))
        spent = account.filter.epsilon_of_units(account.used_units) if account else 0.0
        metrics.spent.labels(dataset.name).set(spent)
    for one, tls in zip(settings.members, pems, strict=True):
        expiry = x509.load_pem_x509_certificate(tls.certificate).not_valid_after_utc
        metrics.expires(one.name, expiry.timestamp())
        if expiry.timestamp() < time.time():
            logger.error("membership=%s its certificate expired at=%s", one.name, expiry)
    return metrics


def _waiting(store: SiteStore) -> int:
    """Return how many proposed studies wait for a person."""
    with store.reading() as records:
        return sum(one.state == "waiting" for one in records.everywhere.known())


def start_trainer(settings: SiteSettings, *, warm: bool = True) -> TrainerLink:
    """Return the trainer of a site, which may read its datasets and neither keys nor state.

    ``warm`` is `TrainerLink.start`'s.
    """
    scratch = settings.site.state / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # rows that a killed node's trainer wrote there
    scratch.mkdir(mode=0o700, parents=True)
    identity, trainer = settings.identity, settings.trainer
    keys = [one.identity.key for one in settings.members]
    limits = Limits(
        threads=trainer.threads,
        device=trainer.device,
        memory_mb=trainer.memory_mb,
        readable=(*trainer.readable, *_rows(settings)),
        hidden=(*keys, identity.signing_key, settings.site.state),
        scratch=scratch,
    )
    return TrainerLink.start(limits, warm=warm)


def _rows(settings: SiteSettings) -> Iterator[Path]:
    """Yield every file and folder with rows of this site."""
    for dataset in settings.datasets:
        match dataset.origin:
            case FileSource(path=path):
                yield path
            case ImageSource(manifest=manifest, root=root):
                yield from (manifest, root)
            case SqlSource():
                folder = folder_of(settings.site.state)
                folder.mkdir(mode=0o700, exist_ok=True)
                yield folder
