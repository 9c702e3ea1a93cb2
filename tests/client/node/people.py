"""The persons of a test's hospital and consortium: what they sign, as their commands would."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from larrey_client.agent import Agent
from larrey_client.charter import charter_of
from larrey_client.families import is_registered, patients_digest, register
from larrey_client.settings import SiteSettings
from larrey_client.signing import countersign, policy_version, sign_policy
from larrey_client.store import SiteStore
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.decisions import Approval, Order, PolicySignature, Registration
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person
from larrey_protocol.permit import Countersignature, Permit
from larrey_protocol.roster import Roster, Seat
from larrey_protocol.signed import Signed, sign
from larrey_protocol.study import Study

__all__ = ["DOCUMENT", "People", "make_permit", "make_roster"]

DOCUMENT = digest_bytes(b"the authority's own document")
BETA = SigningKey.generate()


def make_roster(alpha: str, *people: Person, version: int = 1, beta: str = "") -> Roster:
    """Return a roster of alpha and beta."""
    seats = (Seat(name="alpha", key=alpha), Seat(name="beta", key=beta or BETA.public))
    return Roster(version=version, issued_at=1.0, sites=seats, people=people)


def make_permit(*, today: dt.date | None = None, **changes: Any) -> Permit:
    """Return a permit for the sample study, valid today; ``use__purposes=...`` replaces a value."""
    today = today or dt.datetime.now(dt.UTC).date()
    tables: dict[str, Any] = {
        "permit": {
            "reference": "test/1",
            "authority": "an authority",
            "decided_on": today,
        },
        "use": {
            "legal_basis": "internal",
            "purposes": ["scientific-research"],
            "controllers": ["Hospital Alpha"],
            "people": ["ada"],
            "valid_from": today - dt.timedelta(days=1),
            "valid_until": today + dt.timedelta(days=30),
            "retention_until": today + dt.timedelta(days=60),
        },
        "datasets": [{"site": s, "dataset": "heart"} for s in ("alpha", "beta")],
        "rules": {"dpia": "dpia 1", "ethics": "none needed"},
        "hosting": {"provider": "a provider", "country": "FR"},
    }
    for path, value in changes.items():
        table, _, key = path.partition("__")
        if key:
            tables[table][key] = value
        else:
            tables[table] = value
    return Permit.model_validate(tables)


@dataclass(frozen=True)
class People:
    """Who decides at alpha: ines of IT and dora, the data protection officer."""

    it: SigningKey = field(default_factory=SigningKey.generate)
    dpo: SigningKey = field(default_factory=SigningKey.generate)

    def name(self, key: SigningKey) -> str:
        return "ines" if key.public == self.it.public else "dora"

    def policy_word(self, store: SiteStore, settings: SiteSettings, key: SigningKey) -> Signed:
        charter = charter_of(settings)
        word = PolicySignature(
            site=charter.site,
            version=policy_version(store, settings),
            policy=charter.digest,
            person=self.name(key),
            at=1.0,
        )
        return sign(word, key)

    def sign_charter(self, settings: SiteSettings, *keys: SigningKey) -> SiteSettings:
        """Sign the charter as both persons, or as those given, while no node runs."""
        store = SiteStore.open(settings.site.state, time.time)
        try:
            for key in keys or (self.it, self.dpo):
                sign_policy(store, settings, self.policy_word(store, settings, key))
        finally:
            store.close()
        return settings

    def register(self, agent: Agent) -> None:
        """Place every dataset that names its patients' column, as the officer, where nobody did."""
        node = agent.node
        for data in node.settings.datasets:
            if data.unit is None or is_registered(node.store, data.name):
                continue
            patients = hashlib.sha256(data.name.encode()).digest()[:16]  # one, of no other dataset
            word = Registration(
                site=node.site,
                dataset=data.name,
                unit=data.unit,
                patients=patients_digest(patients),
                epsilon=data.epsilon,
                delta=data.delta,
                person=self.name(self.dpo),
                at=1.0,
            )
            signed = sign(word, self.dpo)
            people = node.settings.people
            register(node.store, data, patients, signed, people, site=node.site)

    def countersign(self, agent: Agent, reference: str, key: SigningKey | None = None) -> None:
        """Countersign the newest version of a permit with the authority's document."""
        signer = key or self.dpo
        word = Countersignature(
            permit=agent.node.cases.dossier.permit(reference)[0],
            document=DOCUMENT,
            site="alpha",
            person=self.name(signer),
            at=1.0,
        )
        countersign(agent.node.store, agent.node.settings, sign(word, signer))

    def approval(self, agent: Agent, study: Study, key: SigningKey, **changes: Any) -> Signed:
        """Return one person's approval of what holds now."""
        terms = agent.approving.terms(study.digest, changes.pop("dataset", None))
        fields = {name: terms[name] for name in ("study", "permit", "seats", "site", "dataset")}
        fields |= {"decision": "approved", "person": self.name(key), "at": time.time()} | changes
        return sign(Approval.model_validate(fields), key)

    def approve(
        self, agent: Agent, study: Study, key: SigningKey, **changes: Any
    ) -> dict[str, Any]:
        return agent.approving.decide(self.approval(agent, study, key, **changes))

    def decide(self, agent: Agent, study: Study, key: SigningKey, word: str) -> dict[str, Any]:
        """Refuse or revoke."""
        empty = dict.fromkeys(("permit", "seats"), "")
        signed = self.approval(agent, study, key, decision=word, **empty)
        return agent.approving.decide(signed)

    def launch(self, agent: Agent, study: Study, key: SigningKey, person: str = "ada") -> None:
        """Have a launch order on record at the site."""
        self.order(agent, study, key, verb="launch", person=person)

    def order(self, agent: Agent, study: Study, key: SigningKey, **changes: Any) -> None:
        store = agent.node.store
        with store.transaction():
            number = len(store.records.documents("order", study.digest)) + 1
            fields = {"study": study.digest, "number": number, "person": "ada", "at": 1.0}
            order = Order.model_validate(fields | changes)
            store.add_document(sign(order, key), subject=study.digest, number=number)
