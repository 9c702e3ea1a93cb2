"""Everything of one coordinator that lives while it runs, put together in one place.

Starts and ends studies, carries answers to their conductors, tells conductors which sites are
there. The services in front of it translate gRPC; the rules behind it are in `rounds`, `studies`
and `claims`.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from larrey_protocol.canonical import short
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.permit import Permit
from larrey_protocol.signed import Answer, Signed
from larrey_protocol.study import Study
from larrey_protocol.waypoints import reached
from larrey_server import told
from larrey_server.aggregator import Aggregator
from larrey_server.anchors import AnchorBook
from larrey_server.checkpoints import Checkpoints
from larrey_server.claims import true_epsilon
from larrey_server.command import Commander
from larrey_server.conductor import Conductor
from larrey_server.feed import Feed
from larrey_server.flower.courier import Dispatch, Errand, StudyCourier
from larrey_server.flower.engine import Engine
from larrey_server.flower.post import Post
from larrey_server.journal import Journal, StudyRow
from larrey_server.lawbook import LawBook
from larrey_server.membership import Authority, Membership
from larrey_server.metrics import Metrics
from larrey_server.registry import Registry, public_key
from larrey_server.round_snapshots import restore
from larrey_server.round_values import plan_of
from larrey_server.rounds import begin
from larrey_server.seal import Seal
from larrey_server.settings import CoordinatorSettings
from larrey_server.site_presence import SitePresence
from larrey_server.spool import Spool
from larrey_server.storage import Storage, write_trial
from larrey_server.studies import StudyBook
from larrey_server.tally import count, known, stand
from larrey_server.watching import describe

__all__ = ["Coordinator", "Facts"]

logger = logging.getLogger(__name__)
_TICK_S = 1.0  # how often silence is looked for
_CLOSING_TICKS = 60  # how often, in ticks, studies are looked for whose time is over

Facts = dict[str, Any]  # Any: JSON


class Coordinator:
    """The running parts of one coordinator."""

    def __init__(self, settings: CoordinatorSettings, registry: Registry, metrics: Metrics) -> None:
        self.signer = SigningKey.load(settings.identity.signing_key)
        self.state = settings.coordinator.state
        self.journal = Journal.open(self.state / "coordinator.db")
        self.journal.on_audit = Seal(self.state, self.signer, time.time).write
        self.storage = Storage(self._try_to_write)
        self.storage.changed = self._storage_changed
        self.journal.on_fault = self.storage.failed
        self.registry = registry
        self.metrics = metrics
        self.spool = Spool.open(self.state / "spool")
        self.spool.on_fault = self.storage.failed
        law = LawBook(self.journal, settings.consortium.key, time.time)
        self.book = StudyBook(self.journal, registry, law)
        self.anchors = AnchorBook(self.journal, registry)
        self.feed = Feed()
        self.membership = self._memberships(settings)
        self.engine = Engine(
            {name: public_key(m.transport_key) for name, m in registry.sites.items()}
        )
        self.post = Post(self.engine)
        self.dispatch = Dispatch(
            self.engine,
            bare_reply=lambda errand: self.answered(errand, "", None, "receipt-missing"),
            abandoned=self.spool.drop,
        )
        self.presence = SitePresence(self.engine, metrics, self._conductors)
        self._aggregator = Aggregator.start()
        self._lock = threading.RLock()
        self._running: dict[str, tuple[Conductor, StudyCourier]] = {}
        self.commander = Commander(self)
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look_for_silence, name="presence", daemon=True)
        self._watch.start()

    def _memberships(self, settings: CoordinatorSettings) -> Membership:
        identity = settings.identity
        membership = Membership(
            self.journal,
            self.registry,
            Authority(identity.authority, identity.authority_key),
            max_sites=settings.coordinator.max_sites,
        )
        membership.joined = self._admitted
        membership.listen(self._dismissed)
        return membership

    def _admitted(self, site: str) -> None:
        """Make room for a site that became a member."""
        self.engine.add_site(site, public_key(self.registry.sites[site].transport_key))
        self.book.changed([site])
        self._join_late()

    def _dismissed(self, site: str) -> None:
        """Address a site no more whose membership ended."""
        self.presence.lost(site)
        self.metrics.site_gone(site)
        for conductor in self._conductors():
            conductor.site_stopped(site, "membership-ended")
        self.engine.bell(site).ring()

    def resume(self) -> None:
        """Go on with the studies that were running when the coordinator last stopped."""
        rows = self.book.rows()
        running = [row.digest for row in rows if row.state == "open"]
        begun = {digest: self.begin(self.book.study(digest)) for digest in running}
        began = [self.journal.round_began(digest) for digest in running]
        # Conductors hold the updates of the last applied round.
        logger.info("spool swept files=%d", self.spool.sweep(min(began, default=math.inf)))
        self.metrics.watch_volume(self.state)
        for row in rows:
            if row.state != "ended":
                known(self.metrics, self.book.study(row.digest))
            conductor = begun.get(row.digest)
            if conductor is not None:
                conductor.resume()
                stand(self.metrics, row.name, conductor.status())
                for site in self.book.study(row.digest).file.site_names:
                    if site not in self.registry.sites:
                        conductor.site_stopped(site, "membership-ended")
                self.commander.join_late(row.digest)
                logger.info("study resumed study=%s", short(row.digest))
            self.commander.catch_up(row)
        self.commander.close_due()
        told.catch_up(self)
        reached("coordinator.resumed")

    def propose(self, signed: Signed) -> Study:
        """Store a proposal; see `StudyBook.propose`."""
        study = self.book.propose(signed)
        known(self.metrics, study)
        self.wake(study.file.site_names)
        logger.info("study proposed study=%s", short(study.digest))
        return study

    def take_permit(self, signed: Signed) -> Permit:
        """Store a version of a permit and tell its sites; studies that it ends are halted.

        Raises:
            IntegrityError, Refusal: as `LawBook.take_permit`.
        """
        permit = self.book.law.take_permit(signed)
        studies = self.book.under(permit.reference)
        sites = {site for row in studies for site in self.book.study(row.digest).file.site_names}
        self.book.changed(sites)
        self.wake(tuple(sites))
        self._halt_lapsed()
        self._join_late()
        return permit

    def take_roster(self, signed: Signed) -> None:
        """Store a roster or a change of the consortium's key and tell all sites.

        Raises:
            IntegrityError, Refusal: as `LawBook.take_roster`.
        """
        if self.book.law.take_roster(signed):
            sites = tuple(self.registry.sites)
            self.book.changed(sites)
            self.wake(sites)
            self._halt_lapsed()
            self._join_late()

    def command(self, signed: Signed) -> Facts:
        """Carry out a person's signed order; see `Commander.command`."""
        return self.commander.command(signed)

    def halt(self, digest: str, code: str) -> None:
        """Halt a running study without an order; see `Commander.halt`."""
        self.commander.halt(digest, code)

    def start(self, row: StudyRow, sites: Sequence[str], number: int) -> None:
        """Start a study with these sites, by the order of that number."""
        conductor = self.begin(self.book.study(row.digest))
        self.presence.introduce(conductor, sites, lambda: conductor.launch(sites, number))
        logger.info("study launched study=%s sites=%d", short(row.digest), len(sites))

    def status(self, row: StudyRow) -> Facts:
        """Return what a person wants to know of a study, as JSON; see `watching.describe`."""
        study = self.book.study(row.digest)
        answers = self.book.answers(row.digest)
        return {
            **self.progress(study),
            "proposed_at": row.proposed_at,
            "epsilon": true_epsilon(study),
            "delta": getattr(study.file.privacy, "delta", None),
            "approved": list(answers.approved),
            "refused": answers.refused,
            "silent": list(answers.silent),
            "outdated": list(answers.outdated),
            **self._law_of(study),
            **self.commander.facts(row),
        }

    def answered(self, errand: Errand, update: str, receipt: Signed | None, code: str) -> None:
        """Carry a site's answer to the study's conductor."""
        study = errand.courier.study.name
        if update:
            self.metrics.update_received(study, errand.site, self.spool.have(update))
            seconds = time.monotonic() - errand.since
            self.metrics.task_ended(study, errand.site, errand.task.phase, seconds)
        conductor = self.conductor(errand.task.study)
        if conductor is not None:
            conductor.reply(
                errand.site,
                errand.task.key,
                update=update,
                receipt=receipt,
                code=code,
                transfer_s=errand.transfer_s,
            )

    def late(self, errand: Errand) -> None:
        """Tell the study's conductor that a site's update comes after its round was over."""
        conductor = self.conductor(errand.task.study)
        if conductor is not None:
            conductor.late(errand.site, errand.task.key)

    def decided(self, site: str, answer: Answer) -> None:
        """Act on a site's decision, which is on record, and tell whoever watches the study."""
        conductor = self.conductor(answer.study)
        if answer.decision == "revoked" and conductor is not None:
            conductor.site_stopped(site, "approval-revoked")
        self.commander.join_late(answer.study)
        self.feed.publish(answer.study, self.status(self.book.find(answer.study)))
        self.engine.bell(site).ring()

    def checkpoint(self, row: StudyRow, number: int) -> Path:
        """Return the model file after a round; 0 is the starting point, -1 the latest.

        Raises:
            Refusal: ``no-such-round``.
        """
        study = self.book.study(row.digest)
        applied = int(self.progress(study)["applied"])
        wanted = applied if number < 0 else number
        path = Checkpoints(self.state / "studies", study).model(wanted)
        if wanted > applied or not path.is_file():  # a halt may leave what was not applied
            raise Refusal(
                "no-such-round",
                f"study {row.name} has no model of round {wanted}",
                "See how far it is, and whether it was closed: larrey study list",
            )
        return path

    def is_ready(self) -> bool:
        """Return whether work is accepted."""
        return not self._stopped.is_set()

    def is_sound(self) -> bool:
        """Return whether work is accepted and can be written down."""
        return self.is_ready() and not self.storage.fault

    def _storage_changed(self, code: str) -> None:
        self.metrics.storage_fault(code)
        for conductor in self._conductors():
            conductor.tick()  # so that it says at once that it stands still

    def _try_to_write(self) -> None:
        write_trial(self.state)
        self.journal.try_commit()

    def stop(self) -> None:
        """Stop all studies where they are; the journal knows how to go on."""
        self._stopped.set()
        with self._lock:
            running, self._running = list(self._running.values()), {}
        for conductor, _ in running:
            conductor.stop()
        self.feed.close()
        self.engine.ring_all()
        self._watch.join()
        self._aggregator.stop()
        self.engine.stop()
        self.journal.close()

    def progress(self, study: Study) -> Facts:
        """Return how far a study is: asked of its conductor, else read from the journal."""
        conductor = self.conductor(study.digest)
        if conductor is not None:
            return conductor.status()
        plan, kept = plan_of(study), self.journal.snapshot(study.digest)
        state = restore(plan, kept) if kept else begin(plan, "")
        rows = self.journal.contributions(study.digest)
        spent = {row.cell.site: row.cell.epsilon for row in rows}  # the last one of each site
        facts = describe(study, state, at=time.monotonic(), checking=(), epsilon=spent)
        return facts if kept else {**facts, "state": "proposed"}

    def _law_of(self, study: Study) -> Facts:
        """Return under which permit a study stands, and how that stands today."""
        reference = study.file.study.permit
        newest = self.book.law.newest(reference)
        return {
            "permit": reference,
            "permit_version": newest[1].permit.version if newest else 0,
            "permit_state": self.book.law.state(reference),
            "version": study.file.study.version,
            "parent": study.file.study.parent,
        }

    def _halt_lapsed(self) -> None:
        """Halt the running studies that permit and roster do not carry any more."""
        for digest in tuple(self._running):
            if reason := self.book.lapsed(digest):
                self.halt(digest, reason[0])

    def _join_late(self) -> None:
        for digest in tuple(self._running):
            self.commander.join_late(digest)

    def begin(self, study: Study) -> Conductor:
        """Return a new conductor of a study, which waits for its first message."""
        courier = self.dispatch.courier(study)
        conductor = Conductor(
            study,
            journal=self.journal,
            spool=self.spool,
            aggregator=self._aggregator,
            courier=courier,
            clock=time.monotonic,
            publish=lambda event: self._publish(study, event),
            signer=self.signer,
            storage=self.storage,
        )
        with self._lock:
            self._running[study.digest] = (conductor, courier)
        return conductor

    def _publish(self, study: Study, event: Facts) -> None:
        self.feed.publish(study.digest, self.commander.credited(study.digest, event))
        count(self.metrics, study.name, event)
        if event["event"] == "study-ended":
            self._ended(study)

    def _ended(self, study: Study) -> None:
        with self._lock:
            running = self._running.pop(study.digest, None)
        if running is not None:
            running[1].close()
        reached("coordinator.study-closed")
        self.book.changed(study.file.site_names)
        self.wake(study.file.site_names)
        self.feed.publish(study.digest, None)

    def conductor(self, digest: str) -> Conductor | None:
        """Return who conducts a running study, None where it does not run."""
        with self._lock:
            return self._running.get(digest, (None, None))[0]

    def _conductors(self) -> list[Conductor]:
        with self._lock:
            return [conductor for conductor, _ in self._running.values()]

    def wake(self, sites: tuple[str, ...]) -> None:
        """Wake the long polls of these sites."""
        for site in sites:
            self.engine.bell(site).ring()

    def _look_for_silence(self) -> None:
        ticks = itertools.count(1)
        while not self._stopped.wait(_TICK_S):
            try:
                self._look(next(ticks))
            except Exception:  # the watch's guard: permits end while a disk is full, too
                logger.exception("look failed")

    def _look(self, tick: int) -> None:
        self.storage.look()
        self.presence.look()
        self._halt_lapsed()
        if tick % _CLOSING_TICKS == 0:
            self.commander.close_due()
