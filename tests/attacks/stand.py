"""A hospital's node under attack: the shipped node, beside a coordinator that the attack plays."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from larrey_client.agent import Agent
from larrey_client.node import Trainer
from larrey_client.run import open_node
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.task import Task
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.decisions import Order
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey, write_private
from larrey_protocol.people import Person
from larrey_protocol.permit import Permit
from larrey_protocol.roster import Roster
from larrey_protocol.signed import Proposal, Signed, sign
from larrey_protocol.study import Study
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.attacks.around import Coordinator, QuickTrainer, Troubles, said
from tests.attacks.catalogue import Attack
from tests.client.node.conftest import Pki
from tests.client.node.peer import Given, wait_until
from tests.client.node.people import BETA, make_permit, make_roster
from tests.protocol.samples import study as make_study

__all__ = ["SECRETS", "Site", "site"]

APP = Path(__file__).with_name("standard_app.py")
SECRETS = (b"Dupont", b"heart.csv", b"site.key")  # a patient, a path, a key: never on the wire
SITE_TOML = """
[site]
name = "alpha"
metrics = ""
[coordinator]
address = "localhost:{port}"
authority = "ca.crt"
[identity]
certificate = "site.crt"
key = "site.key"
signing_key = "signing.pem"
[consortium]
key = "{consortium}"
[witness]
file = "elsewhere/witness"
[[datasets]]
name = "heart"
path = "heart.csv"
unit = "pid"
epsilon = 90.0
[[datasets]]
name = "lung"
path = "lung.csv"
unit = "pid"
[[datasets]]
name = "skin"
path = "skin.csv"
[[datasets]]
name = "scans"
path = "scans.csv"
unit = "pid"
[[people]]
name = "ines"
role = "it"
key = "{it}"
[[people]]
name = "dora"
role = "dpo"
key = "{dpo}"
[[people]]
name = "axel"
role = "auditor"
key = "{auditor}"
[policy]
approvals = ["it", "dpo"]
min_noise_multiplier = 1.0
max_epsilon_per_study = 3.0
completion_bucket_s = 0.0
allow_without_dp = ["scans"]
[[policy.apps]]
name = "std"
module = "tests.attacks.standard_app:app"
digest = "{app}"
unaccounted = true
metrics = true
[[policy.apps]]
name = "silent"
module = "tests.attacks.standard_app:app"
digest = "{app}"
unaccounted = true
[[policy.apps]]
name = "changed"
module = "tests.attacks.standard_app:app"
digest = "sha256:{zeros}"
unaccounted = true
"""


@dataclass
class _Mark:
    """How things stood when the attack began."""

    received: int
    audit: int
    troubles: int
    spent: dict[str, int]


class Site:
    """One running node with its people, its consortium and a coordinator to be played."""

    def __init__(self, pki: Pki, folder: Path, stack: ExitStack) -> None:
        self.pki, self.people, self.consortium = pki, pki.people, pki.consortium
        self.folder, self._stack = folder, stack
        self.ada, self.ben, self.olga, self.zoe, self.axel = (
            SigningKey.generate() for _ in range(5)
        )
        self.peer = Coordinator()
        self.peer.start(pki.server, pki.authority.certificate)
        stack.callback(self.peer.stop)
        self.settings = self._settings()
        self.trainer = QuickTrainer()
        self.troubles = Troubles()
        self._count, self._version, self._number = 0, 1, 0
        self._node = ExitStack()
        stack.callback(self._node.close)
        self.agent: Agent | None = None
        self.peer.rosters.append(sign(self.roster(), self.consortium).to_bytes())
        self.start()
        self.daily = self.running(training__rounds=400, privacy__noise_multiplier=90.0)
        self._day = 0
        self.watch()

    # --- the node -----------------------------------------------------------------------------

    def start(self, settings: SiteSettings | None = None, trainer: Trainer | None = None) -> None:
        """Start the node, the one before it being stopped.

        Raises:
            LarreyError: it does not start.
        """
        self.halt()
        self._node = ExitStack()
        self.settings = settings or self.settings
        made: Any = trainer or self.trainer
        agent = self._node.enter_context(
            open_node(self.settings, lambda _: made, threading.Event())
        )
        agent.node.epsilons.stop()  # receipts then state the upper bound
        self.agent = agent
        log = logging.getLogger("larrey_client")
        log.addHandler(self.troubles)
        self._node.callback(log.removeHandler, self.troubles)

    def halt(self) -> None:
        """End the node's processes; its state stays."""
        self.agent = None
        self._node.close()

    @property
    def node(self) -> Agent:
        if self.agent is None:
            raise AssertionError("no node runs")
        return self.agent

    # --- what the consortium signs --------------------------------------------------------------

    def roster(
        self, version: int = 1, beta: str = "", extra: tuple[Person, ...] = (), **seat: str
    ) -> Roster:
        persons = (
            Person(name="ada", role="lead", key=self.ada.public),
            Person(name="ben", role="member", key=self.ben.public),
            Person(name="olga", role="operator", key=self.olga.public),
            Person(name="zoe", role="lead", key=self.zoe.public),
            *extra,
        )
        alpha = seat.get("alpha", self.pki.signing.public)
        return make_roster(alpha, *persons, version=version, beta=beta or BETA.public)

    def study(self, **changes: Any) -> Study:
        """Return a study of its own name and permit."""
        self._count += 1
        own = {"study__name": f"study-{self._count}", "study__permit": f"test/{self._count}"}
        return make_study(**(own | changes))

    def permit(self, study: Study, **changes: Any) -> Permit:
        datasets = [
            {"site": site, "dataset": dataset}
            for site in ("alpha", "beta")
            for dataset in ("heart", "lung", "scans", "skin")
        ]
        own = {
            "permit__reference": study.file.study.permit,
            "use__people": ["ada", "ben", "ines"],
            "datasets": datasets,
        }
        return make_permit(**(own | changes))

    def amended(self, study: Study, state: str = "AMENDED", **changes: Any) -> Signed:
        """Return the permit's next version, signed."""
        digest, permit = self.node.node.cases.dossier.permit(study.file.study.permit)
        assert permit is not None
        own = {"permit__version": permit.permit.version + 1, "permit__previous": digest}
        return sign(self.permit(study, **own, permit__state=state, **changes), self.consortium)

    def proposal(self, study: Study, key: SigningKey | None = None) -> Signed:
        return sign(Proposal(study=study, proposed_at=1.0), key or self.consortium)

    def order(self, study: Study, verb: str = "launch", **changes: Any) -> Signed:
        """Return the next order about a study; ``key`` and ``person`` say whose."""
        self._number += 1
        key = changes.pop("key", self.consortium)
        person = "consortium" if key is self.consortium else "ada"
        fields = {"study": study.digest, "number": self._number, "verb": verb, "person": person}
        return sign(Order.model_validate(fields | {"at": 1.0} | changes), key)

    # --- honest steps ---------------------------------------------------------------------------

    def propose(self, study: Study, *, is_signed: bool = True, **permit: Any) -> Study:
        """Have permit and proposal arrive, and the officer countersign."""
        given = sign(self.permit(study, **permit), self.consortium)
        self.tell(permits=given.to_bytes(), proposals=self.proposal(study).to_bytes())
        if is_signed:
            self.people.countersign(self.node, study.file.study.permit)
        self.people.register(self.node)
        return study

    def approve(self, study: Study, dataset: str = "heart") -> Study:
        """Have both persons approve, and send the site's answer."""
        for key in (self.people.it, self.people.dpo):
            self.people.approve(self.node, study, key, dataset=dataset)
        self.node.desk.send_decisions()
        return study

    def launch(self, study: Study, **by: Any) -> Study:
        self.tell(orders=self.order(study, **by).to_bytes())
        return study

    def running(self, dataset: str = "heart", **changes: Any) -> Study:
        """Return a study that everybody signed and that was launched."""
        return self.launch(self.approve(self.propose(self.study(**changes)), dataset))

    def with_app(self) -> Study:
        """Return a running study of a standard app, which also evaluates."""
        return self.running(
            "scans", privacy={"mechanism": "none"}, training__app="std",
            training__calls=["train", "evaluate"], training__metrics=["count"],
        )  # fmt: skip

    # --- what the attack does -------------------------------------------------------------------

    def watch(self) -> None:
        """Begin to watch: from here on, what is spent and what leaves counts."""
        with self.node.node.store.reading() as records:
            audit = sum(1 for _ in records.audit())
        self._mark = _Mark(len(self.peer.received), audit, len(self.troubles.codes), self._spent())

    def tell(self, **documents: bytes) -> str:
        """Pass documents on, wait until the node has taken them in; return why it dropped one."""
        before = len(self._codes("rejected"))
        self.peer.tell(**documents)
        wait_until(lambda: self.peer.seen == self.peer.revision)
        return (self._codes("rejected")[before:] or [""])[-1]

    def ask(self, study: Study, number: int = 1, **changes: Any) -> str:
        """Ask for a round; return the code that it ended in at the site."""
        return self.request(self.peer.first_task(study, number), **changes)

    def request(self, task: Task, **changes: Any) -> str:
        before = len(self._codes("request"))
        given = self.peer.request(task, **changes)
        local = self._codes("request")[before:]
        return local[-1] if local else str(given.fields["code"])

    def push(self, reply: wire.TakeReply) -> str:
        """Send a message as it is; return the code of the reply."""
        return str(self.pushed(reply).fields["code"])

    def pushed(self, reply: wire.TakeReply) -> Given:
        count = len(self.peer.given)
        self.peer.push(reply)
        wait_until(lambda: len(self.peer.given) > count)
        return self.peer.given[count]

    def offer(self, study: Study, model: bytes, number: int = 1) -> Task:
        """Return the request for a round that begins with these bytes."""
        digest = digest_bytes(model)
        self.peer.blobs[digest] = model
        return replace(self.peer.first_task(study, number), model=digest)

    def trouble(self, code: str = "") -> str:
        """Return a code that the node only logs: this one once it came, or the next of any."""
        seen = self._mark.troubles
        wait_until(lambda: [c for c in self.troubles.codes[seen:] if code in {"", c}])
        return code or self.troubles.codes[-1]

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_until(condition)

    def refused(self, act: Callable[[], Any]) -> str:
        """Return the code with which something is refused on this side of the border."""
        try:
            act()
        except LarreyError as error:
            return error.code
        return ""

    # --- what it came to ------------------------------------------------------------------------

    def left(self) -> set[str]:
        """Return what left since `watch`: codes, and words for anything else."""
        sent = self.peer.received[self._mark.received :]
        leaked = [secret for secret in SECRETS if any(secret in data for _, data in sent)]
        assert not leaked
        return {word for method, data in sent for word in said(method, data)}

    @property
    def is_worn(self) -> bool:
        """Return whether so much lies here by now that reading it again costs time."""
        return self._count > 14

    def is_unspent(self) -> bool:
        """Return whether no ledger unit was used since `watch`."""
        return self.agent is None or self._spent() == self._mark.spent

    def serves(self) -> str:
        """Ask for an honest round; return the code, empty where it was answered."""
        if self.agent is None:
            return self.refused(self.start)
        self._day += 1
        self.peer.forget()
        return self.ask(self.daily, self._day)

    def check(self, attack: Attack) -> None:
        """Assert what every attack must leave behind."""
        assert self.left() == set(attack.leaves)
        if not attack.spends:
            assert self.is_unspent()
        assert self.serves() == (attack.code if attack.until else "")

    def _spent(self) -> dict[str, int]:
        with self.node.node.store.reading():
            return dict(self.node.node.store.ledger.spent())

    def _codes(self, kind: str) -> list[str]:
        with self.node.node.store.reading() as records:
            return [r.code for r in records.audit() if kind in r.action and r.code]

    def _settings(self) -> SiteSettings:
        pki, folder = self.pki, self.folder
        (folder / "elsewhere").mkdir(parents=True)
        (folder / "ca.crt").write_bytes(pki.authority.certificate)
        (folder / "site.crt").write_bytes(pki.site.certificate)
        write_private(folder / "site.key", pki.site.key)
        pki.signing.save(folder / "signing.pem")
        text = SITE_TOML.format(
            port=self.peer.port,
            consortium=pki.consortium.public,
            it=self.people.it.public,
            dpo=self.people.dpo.public,
            auditor=self.axel.public,
            app=digest_bytes(APP.read_bytes()),
            zeros="0" * 64,
        )
        (folder / "site.toml").write_text(text)
        return self.people.sign_charter(load_settings(folder / "site.toml"))


@contextmanager
def site(pki: Pki, folder: Path) -> Iterator[Site]:
    """Yield a fresh node under attack; everything it started ends with the context."""
    with ExitStack() as stack:
        yield Site(pki, folder, stack)
