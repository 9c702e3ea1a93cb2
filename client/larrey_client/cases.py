"""What the gate is told about this node and a study, collected from what was verified.

The same collection serves a running node, which keeps a study's case until anything signed may
have changed, and a person who reads the state while no node runs.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace

from larrey_client.approvals import Consent, consent_of
from larrey_client.charter import charter_of
from larrey_client.consortium import is_entitled
from larrey_client.cost import app_digest
from larrey_client.dossier import Dossier, Dossiers, open_proposal
from larrey_client.families import families_on_record
from larrey_client.gate_facts import Ground, StudyCase, StudyFacts, Warrant
from larrey_client.orders import Standing, derive
from larrey_client.records import SiteRecords
from larrey_client.settings import SiteSettings
from larrey_client.store import SiteStore
from larrey_protocol.amendments import differences, needs_signature
from larrey_protocol.errors import IntegrityError
from larrey_protocol.study import Study

__all__ = [
    "Cases",
    "consent_in",
    "day_of",
    "parent_in",
    "standing_in",
    "study_case",
    "warrant_in",
]

_MAX_VERSIONS = 100  # of one study, followed upwards for an approval that carries over


@dataclass(frozen=True, slots=True)
class _Kept:
    """Cases that hold until the day or anything signed changes."""

    of: tuple[tuple[int, int], dt.date]
    cases: dict[str, StudyCase]


class Cases:
    """Collects the facts of a running node; for any thread."""

    def __init__(
        self,
        settings: SiteSettings,
        store: SiteStore,
        now: Callable[[], float],
        anchors_code: Callable[[], str] = lambda: "",
        pinned: str = "",
    ) -> None:
        """Take what a node stands on; ``pinned`` is another consortium's key than the first."""
        self._settings, self._store, self._now = settings, store, now
        self._anchors_code = anchors_code
        self._charter = charter_of(settings).digest
        self._dossiers = Dossiers(store, pinned or settings.consortium.key)
        self._kept: _Kept | None = None

    @property
    def dossier(self) -> Dossier:
        """Return the verified documents as they are now."""
        return self._dossiers.now()

    @property
    def today(self) -> dt.date:
        """Return the day in UTC, by the later of the clock and this site's own records."""
        return day_of(max(self._now(), self._store.latest_at))

    def ground(self) -> Ground:
        """Return what the node stands on."""
        dossier = self.dossier
        return Ground(
            is_policy_signed=dossier.is_charter(self._charter),
            clock_lag_s=self._store.latest_at - self._now(),
            anchors_code=self._anchors_code(),
            altered=dossier.altered,
        )

    def of(self, digest: str) -> tuple[Ground, StudyCase | None]:
        """Return ground and case of a study; no case where it was never proposed."""
        ground = self.ground()
        if ground.altered:
            return ground, None
        try:
            return ground, self._with_app(self._case(digest))
        except IntegrityError as error:
            return replace(ground, altered=str(error)), None

    def study(self, digest: str) -> Study | None:
        """Return a proposed study, verified again; None where `of` has no case."""
        try:
            case = None if self.dossier.altered else self._case(digest)
        except IntegrityError:
            return None
        return case.study if case else None

    def _with_app(self, case: StudyCase | None) -> StudyCase | None:
        """Return the case with the digest of a listed app's source as it is at this moment."""
        rule = self._settings.app(case.study.file.training.app or "") if case else None
        if case is None or rule is None:
            return case
        return replace(case, facts=replace(case.facts, app_digest=app_digest(rule.module)))

    def standing(self, digest: str) -> Standing:
        """Return who launched the study and who stopped it."""
        dossier = self.dossier
        with self._store.reading() as records:
            return standing_in(records, dossier, digest, site=self._settings.site.name)

    def _case(self, digest: str) -> StudyCase | None:
        with self._store.reading() as records:
            key = self._store.revision, self.today
            if self._kept is None or self._kept.of != key:
                self._kept = _Kept(key, {})
            if digest not in self._kept.cases:
                case = study_case(records, self.dossier, self._settings, digest, self.today)
                if case is None:
                    return None
                self._kept.cases[digest] = case
            return self._kept.cases[digest]


def study_case(
    records: SiteRecords, dossier: Dossier, settings: SiteSettings, digest: str, day: dt.date
) -> StudyCase | None:
    """Return a proposed study as the gate wants it, verified again; None if it is unknown.

    Without the digest of a listed app, whose file may change at any moment.

    Raises:
        IntegrityError: the kept proposal does not verify.
    """
    signed = records.proposal(digest)
    if signed is None:
        return None
    study = open_proposal(signed, digest, dossier)
    consent, decision = consent_in(records, dossier, study), records.decision(digest)
    dataset = settings.dataset(consent.dataset)
    return StudyCase(
        site=settings.site.name,
        policy=settings.policy,
        study=study,
        facts=StudyFacts(decision.epsilon if decision else -1.0),
        datasets=tuple(one.name for one in settings.datasets),
        dataset=consent.dataset,
        unit=dataset.unit if dataset else None,
        is_registered=consent.dataset in families_on_record(records.connection),
        warrant=warrant_in(dossier, study, signed.signer, day),
        consent=consent,
        is_superseded=_is_superseded(records, digest),
        parent=parent_in(records, dossier, study),
    )


def warrant_in(dossier: Dossier, study: Study, signer: str, day: dt.date) -> Warrant:
    """Return what the consortium and the authority vouch for about a study."""
    digest, permit = dossier.permit(study.file.study.permit)
    # A proposal of an earlier consortium key stands: that key's successor was signed by it.
    is_ours = signer in dossier.keys
    return Warrant(
        signer=dossier.keys[-1] if is_ours else signer,
        consortium=dossier.keys[-1],
        roster=dossier.roster,
        permit=permit,
        permit_digest=digest,
        seats=dossier.roster.seats_digest(study.file.site_names),
        is_countersigned=digest in dossier.countersigned,
        day=day,
    )


def consent_in(records: SiteRecords, dossier: Dossier, study: Study) -> Consent:
    """Return what persons here said about a study, or about the parent it only amends in patience.

    Raises:
        IntegrityError: a kept proposal does not verify.
    """
    own = consent_of(dossier.approvals.get(study.digest, ()), dossier.approvers)
    version = study
    for _ in range(_MAX_VERSIONS):
        parent = parent_in(records, dossier, version)
        if own.state != "none" or parent is None or needs_signature(differences(parent, version)):
            return own
        above = consent_of(dossier.approvals.get(parent.digest, ()), dossier.approvers)
        if above.state == "approved":
            return replace(above, carried_from=parent.digest)
        if above.state != "none":
            return own
        version = parent
    return own


def parent_in(records: SiteRecords, dossier: Dossier, study: Study) -> Study | None:
    """Return the version that a study amends, None where it is not known here.

    Raises:
        IntegrityError: the kept proposal does not verify.
    """
    digest = study.file.study.parent
    signed = records.proposal(digest) if digest else None
    return open_proposal(signed, digest, dossier) if signed else None


def standing_in(records: SiteRecords, dossier: Dossier, digest: str, *, site: str) -> Standing:
    """Return how a study stands by the orders of people entitled to give them."""
    orders = [
        replace(one, key=dossier.keys[-1]) if one.key in dossier.keys else one
        for one in dossier.orders.get(digest, ())
        if is_entitled(one.key, one.order.verb, dossier.keys, dossier.rosters)
    ]
    is_closed = records.is_closing(digest)
    return derive(digest, orders, records.stops(digest), site=site, is_closed=is_closed)


def day_of(at: float) -> dt.date:
    """Return the day in UTC."""
    return dt.datetime.fromtimestamp(at, tz=dt.UTC).date()


def _is_superseded(records: SiteRecords, digest: str) -> bool:
    decisions = [records.decision(child) for child in records.children(digest)]
    return any(one is not None and one.decision in {"approved", "revoked"} for one in decisions)
