"""`larrey-site run`: put the parts of a node together, say when it is ready, end it cleanly."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from larrey_client import proofs, views
from larrey_client.cases import Cases
from larrey_client.credentials import days_left, read_tls, settle
from larrey_client.decision_pages import policy_view
from larrey_client.epsilons import EpsilonTable
from larrey_client.exchange import Exchange, Tls
from larrey_client.extract.snapshots import folder_of
from larrey_client.families import family_of
from larrey_client.incident import open_incidents
from larrey_client.leaving import departure_of
from larrey_client.ledger_pages import ledger_view
from larrey_client.local import Door, Handler
from larrey_client.logs import open_logs, purge_study
from larrey_client.metrics import SiteMetrics, serve_metrics
from larrey_client.node import Node, Trainer
from larrey_client.people_door import people_handlers, who_signed
from larrey_client.registrar import registrar_handlers
from larrey_client.settings import SiteSettings
from larrey_client.sources_settings import FileSource, ImageSource, SqlSource
from larrey_client.stopping import standing_stops
from larrey_client.store import SiteStore, open_readonly
from larrey_client.trail import Seal
from larrey_client.trainer_link import TrainerLink
from larrey_client.trainer_process import Limits
from larrey_client.watch import open_watch
from larrey_protocol.keys import SigningKey
from larrey_protocol.streams import reuse_buffers

if TYPE_CHECKING:
    from larrey_client.agent import Agent

__all__ = ["handlers", "open_node", "run", "start_trainer"]

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
    with open_node(settings, start_trainer, stopping):
        ready()
        stopping.wait()


@contextmanager
def open_node(
    settings: SiteSettings,
    start_trainer: Callable[[SiteSettings], Trainer],
    stopping: threading.Event,
) -> Iterator[Agent]:
    """Yield the agent of a running node; everything it started ends with the context."""
    settle(settings.identity)  # a renewal that was cut
    tls, key = read_tls(settings), SigningKey.load(settings.identity.signing_key)
    with ExitStack() as stack:
        store = SiteStore.open(settings.site.state, time.time)
        stack.callback(store.close)
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
        from larrey_client.agent import Agent
        from larrey_client.border import Border
        from larrey_client.closing import payload_closer
        from larrey_client.leaving import require_task

        require_task(store.records)

        metrics = _metrics(settings, store, tls)
        metrics.watch_isolation(lambda: trainer.isolation)
        logs = stack.enter_context(open_logs(settings, store, stopping))
        border = Border(logs.egress, store.spool, time.time)
        exchange = Exchange(settings.coordinator.address, tls, metrics.count_bytes, border)
        stack.callback(exchange.close)
        node = Node(
            settings=settings,
            store=store,
            anchors=anchors,
            cases=Cases(settings, store, time.time, lambda: anchors.code),
            exchange=exchange,
            trainer=trainer,
            trainer_turn=threading.Lock(),
            key=key,
            epsilons=EpsilonTable(),
            metrics=metrics,
            now=time.time,
            monotonic=time.monotonic,
            stopping=stopping,
        )
        stack.callback(node.epsilons.stop)
        agent = Agent(node, [payload_closer(lambda study: purge_study(logs, store, study))])
        if settings.site.metrics:
            web = serve_metrics(settings.site.metrics, metrics, lambda: agent.is_connected)
            stack.callback(web.server_close)
            stack.callback(web.shutdown)
        commands = {**handlers(node, agent), **proofs.handlers(node)}

        def used(actor: str, verb: str, code: str, signed: str) -> None:
            logs.used(actor, verb, code, who_signed(node, verb, signed))

        door = Door(settings.site.state, commands, used)
        stack.callback(door.close)
        agent.start()
        stack.callback(agent.stop)
        yield agent


def handlers(node: Node, agent: Agent) -> Mapping[str, Handler]:
    """Return what the local door can be asked."""
    from larrey_client.stop_door import stop_handlers

    settings, state = node.settings, node.settings.site.state

    def reading(view: Callable[..., Any], *arguments: Any) -> Any:  # Any: one of several views
        connection = open_readonly(state)
        try:
            return view(connection, *arguments)
        finally:
            connection.close()

    return {
        "status": lambda _request, _actor: _status(node, agent),
        "study list": lambda _request, _actor: reading(views.studies_view, settings),
        "study show": lambda request, _actor: reading(
            views.study_view, settings, str(request["study"])
        ),
        "ledger": lambda _request, _actor: reading(ledger_view, settings),
        **registrar_handlers(node),
        **people_handlers(node, agent.approving, agent.desk.send_decisions),
        **stop_handlers(node, agent.closing),
        "audit verify": lambda _request, _actor: reading(views.verify_view, node.key.public),
    }


def _status(node: Node, agent: Agent) -> Json:
    with node.store.reading() as records:
        known = records.known()
        states = Counter(one.state for one in known)
        ended = {one.study.digest for one in known if one.state == "ended"}
        stopped = [one for one in standing_stops(records) if one["study"] not in ended]
        heads = node.store.ledger_head, node.store.audit_head
        policy = policy_view(records.connection, node.settings)
        has_left = departure_of(records) is not None
        incidents = len(open_incidents(records))
    return {
        "site": node.site,
        "has_left": has_left,
        "policy": {name: policy[name] for name in ("version", "is_in_effect", "missing")},
        "incidents": incidents,
        "coordinator": node.settings.coordinator.address,
        "is_connected": agent.is_connected,
        "trouble": agent.trouble,
        "studies": dict(states),
        "certificate_days": days_left(node.settings.identity, node.now()),
        "epsilon_ready": node.epsilons.is_idle,
        "ledger_head": heads[0],
        "audit_head": heads[1],
        "isolation": _isolation(node),
        "witness": node.settings.witness.kinds,
        "stopped": stopped,
    }


def _isolation(node: Node) -> Json:
    """Return the trainer's barriers; empty for a moment after a start."""
    isolation = node.trainer.isolation
    if isolation is None:
        return {"stands": [], "missing": {}}
    return {"stands": list(isolation.stands), "missing": isolation.missing}


def _metrics(settings: SiteSettings, store: SiteStore, tls: Tls) -> SiteMetrics:
    metrics = SiteMetrics(settings.site.state)
    for dataset in settings.datasets:
        metrics.budget.labels(dataset.name).set(dataset.epsilon)
        account = store.ledger.account(family_of(store, dataset.name))
        spent = account.filter.epsilon_of_units(account.used_units) if account else 0.0
        metrics.spent.labels(dataset.name).set(spent)
    expiry = x509.load_pem_x509_certificate(tls.certificate).not_valid_after_utc
    metrics.certificate_expiry.set(expiry.timestamp())
    if expiry.timestamp() < time.time():
        logger.error("this site's certificate expired at=%s; ask for a new one", expiry)
    return metrics


def start_trainer(settings: SiteSettings, *, warm: bool = True) -> TrainerLink:
    """Return the trainer of a site, which may read its datasets and neither keys nor state.

    ``warm`` is `TrainerLink.start`'s.
    """
    scratch = settings.site.state / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # rows that a killed node's trainer wrote there
    scratch.mkdir(mode=0o700, parents=True)
    identity, trainer = settings.identity, settings.trainer
    limits = Limits(
        threads=trainer.threads,
        device=trainer.device,
        memory_mb=trainer.memory_mb,
        readable=(*trainer.readable, *_rows(settings)),
        hidden=(identity.key, identity.signing_key, settings.site.state),
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
