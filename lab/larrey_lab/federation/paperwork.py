"""Everything that people sign before a study may run on one machine: what they would, in order.

The consortium: a roster and a permit. Each site: its policy, the permit's countersignature, its
datasets' registration, the approvals that its policy asks for. Signed here with the persons'
laboratory keys and handed to the node at its own local door, as ``larrey-site`` does, which is not
started for each signature.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from larrey_client.charter import charter_of
from larrey_client.families import families_on_record
from larrey_client.local import ask
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.store import open_readonly
from larrey_lab.federation.workspace import Workspace
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.decisions import Approval, PolicySignature, Registration
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.permit import Countersignature, Permit
from larrey_protocol.roster import Roster, Seat
from larrey_protocol.signed import sign
from larrey_protocol.study import Study
from larrey_protocol.tomlfile import Record
from larrey_server.operator import Operator

__all__ = [
    "DECISION",
    "SiteDesk",
    "approve",
    "grant",
    "make_permit",
    "make_roster",
    "prepare",
    "propose",
]

DECISION = b"Granted.\n"  # stands for the authority's document, which the officer compares
_PATIENCE_S = 30.0  # until a site has heard of a proposal


def propose(workspace: Workspace, operator: Operator, study: Study) -> str:
    """Sign what the study needs where it is missing, propose it, and return its digest."""
    grant(workspace, operator, study)
    return operator.propose(study)


def grant(workspace: Workspace, operator: Operator, study: Study) -> None:
    """Have the roster and the study's permit signed, where the coordinator has none."""
    if not operator.rosters():
        root = SigningKey.load(workspace.root_key)
        operator.put_roster(sign(make_roster(workspace), root))
    if not operator.permits(study.file.study.permit):
        operator.put_permit(sign(make_permit(workspace, study), operator.signer.key))


def approve(workspace: Workspace, study: Study) -> None:
    """Let the persons of every site read and sign, as soon as the study got there."""
    _at_every_desk(workspace, lambda desk: desk.approve(study))


def prepare(workspace: Workspace, study: Study) -> None:
    """Let every site sign all but the study, as soon as it got there."""
    _at_every_desk(workspace, lambda desk: desk.prepare(study))


def _at_every_desk(workspace: Workspace, act: Callable[[SiteDesk], None]) -> None:
    with ThreadPoolExecutor(len(workspace.sites)) as pool:
        list(pool.map(lambda name: act(SiteDesk.of(workspace, name)), workspace.sites))


@dataclass(frozen=True)
class SiteDesk:
    """A site's persons at work: what they sign goes to their own running node."""

    workspace: Workspace
    settings: SiteSettings

    @classmethod
    def of(cls, workspace: Workspace, site: str) -> SiteDesk:
        """Return the desk of one site of a workspace."""
        return cls(workspace, load_settings(workspace.site(site)))

    @property
    def site(self) -> str:
        """Return the site's name."""
        return self.settings.site.name

    def approve(self, study: Study) -> None:
        """Sign whatever is still unsigned: policy, permit, datasets, study.

        Raises:
            LarreyError: as the node says no, or ``not-proposed`` if the study never arrives.
        """
        self.prepare(study)
        for role in self.settings.policy.approvals:
            self._decide(study.digest, role)

    def prepare(self, study: Study) -> None:
        """Sign policy and permit, so that the study waits for its approval alone.

        Raises:
            LarreyError: as `approve`.
        """
        self._await(study.digest)
        self.sign_policy()
        self.countersign(study.file.study.permit)
        self.register()

    def sign_policy(self) -> None:
        """Sign the site's policy for every role that must, where it is not in effect."""
        charter = charter_of(self.settings)
        shown = ask(self.settings.site.state, "policy show")
        if shown["is_in_effect"]:
            return
        for role in shown["missing"]:
            word = PolicySignature(
                site=self.site,
                version=shown["version"],
                policy=charter.digest,
                person=role,
                at=time.time(),
            )
            self._hand_in("policy sign", word, role)

    def countersign(self, reference: str) -> None:
        """Countersign a permit's newest version, where nobody has."""
        newest = ask(self.settings.site.state, "permit show", reference=reference)
        if newest["is_countersigned"]:
            return
        word = Countersignature(
            permit=newest["digest"],
            document=digest_bytes(DECISION),
            site=self.site,
            person="dpo",
            at=time.time(),
        )
        self._hand_in("permit countersign", word, "dpo")

    def register(self) -> None:
        """Place the site's datasets in cohort families, where nobody has.

        Raises:
            LarreyError: ``unit-required`` where the site does not name its patients' column.
        """
        connection = open_readonly(self.settings.site.state)
        try:
            placed = families_on_record(connection)
        finally:
            connection.close()
        for dataset in self.settings.datasets:
            if dataset.name not in placed:
                self._register(dataset.name)

    def _register(self, dataset: str) -> None:
        offered = ask(self.settings.site.state, "data scan", dataset=dataset)
        offered.pop("count")
        word = Registration(**offered, person="dpo", at=time.time())
        signed = sign(word, SigningKey.load(self.workspace.site_key(self.site, "dpo")))
        ask(self.settings.site.state, "data add", signed=signed.to_bytes().decode())

    def _decide(self, study: str, person: str) -> None:
        terms = ask(self.settings.site.state, "study terms", study=study, dataset=None)
        word = Approval(
            study=study,
            permit=terms["permit"],
            seats=terms["seats"],
            site=self.site,
            dataset=terms["dataset"],
            decision="approved",
            person=person,
            at=time.time(),
        )
        self._hand_in("study decide", word, person)

    def _hand_in(self, command: str, word: Record, person: str) -> Any:  # Any: JSON
        signed = sign(word, SigningKey.load(self.workspace.site_key(self.site, person)))
        text = signed.to_bytes().decode()
        return ask(self.settings.site.state, command, signed=text)

    def _await(self, study: str) -> None:
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            known = ask(self.settings.site.state, "study list")
            if study in {view["digest"] for view in known}:
                return
            time.sleep(0.1)
        raise LarreyError("not-proposed", f"study {study} did not reach {self.site}")


def make_roster(workspace: Workspace, version: int = 1) -> Roster:
    """Return the roster of a workspace: its sites with their keys, and its two persons."""
    seats = tuple(
        Seat(name=name, key=SigningKey.load(workspace.site(name).parent / "signing.ed25519").public)
        for name in workspace.sites
    )
    return Roster(version=version, issued_at=time.time(), sites=seats, people=workspace.people())


def make_permit(workspace: Workspace, study: Study) -> Permit:
    """Return the first version of an internal permit for a study over all the workspace's data."""
    today = dt.datetime.now(dt.UTC).date()
    return Permit.model_validate(
        {
            "permit": {
                "reference": study.file.study.permit,
                "authority": "Nobody: data on one machine",
                "decided_on": today,
            },
            "use": {
                "legal_basis": "internal",
                "purposes": [study.file.study.purpose],
                "controllers": ["The owner of this machine"],
                "people": [person.name for person in workspace.people()],
                "valid_from": today - dt.timedelta(days=1),
                "valid_until": today + dt.timedelta(days=365),
                "retention_until": today + dt.timedelta(days=730),
            },
            "datasets": [
                {"site": site, "dataset": dataset}
                for site, dataset in zip(workspace.sites, workspace.datasets, strict=True)
            ],
            "rules": {"dpia": "none: public data", "ethics": "none: public data"},
            "hosting": {"provider": "This machine", "country": "FR"},
        }
    )
