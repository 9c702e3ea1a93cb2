"""Lets sites in, renews their certificates, and ends memberships; every step is in the journal.

Guarantees: an invitation admits one pair of keys (repeating that very join changes nothing), only
until it expires, only for its site; a certificate is issued for a key that its holder proved to
have; who was revoked stays so across restarts, until somebody invites the site anew.
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larrey_protocol.audit import AuditRecord
from larrey_protocol.certificates import (
    CLIENT_DAYS,
    Credential,
    issue_for_request,
    key_bytes,
    reissue_client,
    request_key,
)
from larrey_protocol.enrolment import (
    Admission,
    JoinRequest,
    MailedRequest,
    open_request,
    verify_proof,
)
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.keys import fingerprint, read_private
from larrey_protocol.signed import Signed, open_signed
from larrey_server.closing import COORDINATOR
from larrey_server.journal import Journal
from larrey_server.members import Member, MemberRow, Standing
from larrey_server.registry import Registry, public_key

__all__ = ["OPERATOR_DAYS", "Authority", "Membership"]

OPERATOR_DAYS = 365  # of an operator's certificate
_DAY_S = 86400.0
_MAX_DAYS = 30  # of an invitation
_MAX_TRIES = 10  # joins of one invitation, in one run of the coordinator
_RENEWAL_PAUSE_S = _DAY_S  # a site renews every other month; more often is a fault or a flood

Facts = dict[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority as its files say now; ``key`` is None where it lies elsewhere."""

    certificate: Path
    key: Path | None

    def certificates(self) -> bytes:
        """Return the authority's PEM: the one that issues first, others that still count after."""
        return self.certificate.read_bytes()

    def credential(self) -> Credential:
        """Return what issues certificates.

        Raises:
            Refusal: ``authority-absent``.
        """
        if self.key is None:
            raise Refusal(
                "authority-absent",
                "this coordinator does not hold its authority's key and cannot issue certificates",
                "Name it in coordinator.toml: [identity] authority_key.",
            )
        return Credential(self.certificates(), read_private(self.key))


class Membership:
    """The memberships of one coordinator; thread-safe."""

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        authority: Authority,
        *,
        max_sites: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._authority = authority
        self._max_sites = max_sites
        self._clock = clock
        self._lock = threading.RLock()
        self._tries: Counter[str] = Counter()  # joins, by invitation
        self.joined: Callable[[str], None] = lambda _: None  # told when a site became a member
        self._listeners: list[Callable[[str], None]] = []
        registry.follow(*journal.members())

    def listen(self, ended: Callable[[str], None]) -> None:
        """Call ``ended`` with the site whenever a membership or invitation has ended."""
        self._listeners.append(ended)

    def invite(self, site: str, request: bytes, days: float, actor: str) -> Facts:
        """Return a new invitation for a site: its id, certificate, authority and end.

        Args:
            site: name that is not a member now; an earlier unused invitation stops counting.
            request: certificate request of the bootstrap key, which stays with the operator.
            days: for how long, up to 30.
            actor: operator, for the record.

        Raises:
            Refusal: ``already-member``, ``too-many-sites``, ``name-reserved``, ``bad-request``,
                ``authority-absent``.
        """
        if not 0 < days <= _MAX_DAYS:
            raise Refusal("bad-request", f"an invitation lasts up to {_MAX_DAYS} days", "")
        with self._lock:
            self._require_place(site)
            now = self._clock()
            row = MemberRow(
                site,
                "invited",
                now,
                key_bytes(_key_of(request)),
                invitation=secrets.token_hex(16),
                expires_at=now + days * _DAY_S,
            )
            certificate = self._issue(request, f"invitation {site}", now, days)
            self._add(row, actor, "site-invited")
        return {
            "invitation": row.invitation,
            "certificate": certificate.decode(),
            "authority": self._authority.certificates().decode(),
            "expires_at": row.expires_at,
        }

    def join(self, invited: Member, data: bytes) -> bytes:
        """Return the certificate of a site that joins with its invitation's credential.

        Raises:
            Refusal: ``invitation-unknown``, ``invitation-expired``, ``invitation-used``,
                ``invitation-other-site``, ``key-taken``, ``too-many-attempts``.
            IntegrityError: the request does not verify.
        """
        with self._lock:
            self._count(invited.invitation)
            request = open_request(Signed.from_bytes(data))
            if request.invitation != invited.invitation:
                raise _unknown_invitation()
            if request.site != invited.name:
                raise Refusal(
                    "invitation-other-site", f"the invitation is of {invited.name}", "Ask again."
                )
            return self._admit(request, invited.name, "site-joined")

    def admit(self, mailed: MailedRequest, actor: str) -> Facts:
        """Return the admission of a site whose request came by mail, and its fingerprint.

        Raises:
            Refusal, IntegrityError: as `join`.
        """
        with self._lock:
            request = open_request(mailed.request)
            standing = self._registry.view.standings.get(request.site)
            if standing is None or standing.invited is None:
                raise _unknown_invitation()
            verify_proof(mailed, public_key(standing.invited.transport_key))
            certificate = self._admit(request, actor, "site-admitted")
        admission = Admission(
            site=request.site,
            certificate=certificate.decode(),
            authority=self._authority.certificates().decode(),
        )
        return {
            "admission": admission.model_dump(mode="json"),
            "fingerprint": fingerprint(request.signing_key),
        }

    def renew(self, site: Member, data: bytes) -> bytes:
        """Return a member's next certificate.

        Raises:
            Refusal: ``not-a-member``, ``renewed-lately``, ``key-taken``, ``authority-absent``.
            IntegrityError: the request is not signed by the member's signing key.
        """
        with self._lock:
            standing = self._registry.view.standing(site.name)
            if standing.state != "active":  # it ended while this call waited for its turn
                raise Refusal("not-a-member", f"the membership of {site.name} has ended")
            request = open_signed(Signed.from_bytes(data), JoinRequest, standing.signing_key)
            if request.site != site.name or request.signing_key != standing.signing_key:
                raise IntegrityError("wrong-signer", f"{site.name} renews for somebody else")
            now = self._clock()
            if now - standing.renewed_at < _RENEWAL_PAUSE_S:
                raise Refusal("renewed-lately", f"{site.name} has a certificate of today", "")
            return self._activate(request, site.name, now, "site-renewed", site.name)

    def renew_operator(self, operator: str, certificate: bytes) -> Facts:
        """Return an operator's next certificate, for the key of the one they called with.

        Raises:
            Refusal: ``authority-absent``.
        """
        now, issuer = self._clock(), self._authority.credential()
        moment = dt.datetime.fromtimestamp(now, dt.UTC)
        renewed = reissue_client(issuer, certificate, operator, now=moment, days=OPERATOR_DAYS)
        self._journal.note(AuditRecord(0, now, operator, "operator-renewed", subject=operator))
        return {"certificate": renewed.decode(), "authority": issuer.certificate.decode()}

    def revoke(self, site: str, actor: str) -> Facts:
        """End a site's membership, or its invitation, for good; its calls end at once.

        Raises:
            Refusal: ``unknown-site``.
        """
        self._end(site, "revoked", actor)
        return self.show(site)

    def leave(self, site: str) -> None:
        """End a site's membership because the site said so.

        Raises:
            Refusal: ``unknown-site``.
        """
        self._end(site, "left", site)

    def show(self, site: str) -> Facts:
        """Return where a site's membership stands, as JSON.

        Raises:
            Refusal: ``unknown-site``.
        """
        return _facts(self._registry.view.standing(site))

    def list(self) -> list[Facts]:
        """Return where every site's membership stands, by name."""
        standings = self._registry.view.standings
        return [_facts(standings[site]) for site in sorted(standings)]

    @property
    def authority(self) -> bytes:
        """Return the PEM of the authorities that count."""
        return self._authority.certificates()

    def _admit(self, request: JoinRequest, actor: str, action: str) -> bytes:
        standing = self._registry.view.standing(request.site)
        invited, used, now = standing.invited, standing.used, self._clock()
        if invited is None or invited.invitation != request.invitation:
            raise _unknown_invitation()
        if now >= invited.expires_at:
            raise Refusal(
                "invitation-expired",
                f"the invitation of {request.site} has expired",
                "Ask the consortium for a new one.",
            )
        key = key_bytes(_key_of(request.request.encode()))
        if used is not None and (used.transport_key, used.signing_key) != (
            key,
            request.signing_key,
        ):
            raise Refusal(
                "invitation-used",
                f"the invitation of {request.site} was used before, with other keys",
                "If that was not you, tell the consortium by phone at once.",
            )
        return self._activate(request, request.site, now, action, actor)

    def _activate(
        self, request: JoinRequest, site: str, now: float, action: str, actor: str
    ) -> bytes:
        csr = request.request.encode()
        key, view = key_bytes(_key_of(csr)), self._registry.view
        holder = view.keys.get(key)
        twin = next(
            (
                s
                for s in view.sites.values()
                if s.signing_key == request.signing_key and s.name != site
            ),
            None,
        )
        if twin is not None or (
            holder is not None and (holder.name, holder.role) != (site, "site")
        ):
            raise Refusal("key-taken", "these keys belong to another member", "Make new keys.")
        certificate = self._issue(csr, site, now, CLIENT_DAYS)
        row = MemberRow(
            site,
            "active",
            now,
            key,
            request.signing_key,
            request.invitation,
            now + CLIENT_DAYS * _DAY_S,
        )
        is_new = site not in view.sites
        self._add(row, actor, action)
        if is_new:
            self.joined(site)
        return certificate

    def _end(self, site: str, state: Any, actor: str) -> None:  # Any: one of two literals
        with self._lock:
            standing = self._registry.view.standing(site)
            if standing.state in ("revoked", "left"):
                return
            row = MemberRow(site, state, self._clock(), signing_key=standing.signing_key)
            self._add(row, actor, f"site-{state}")
        for told in self._listeners:
            told(site)

    def _require_place(self, site: str) -> None:
        if site == COORDINATOR:
            raise Refusal(
                "name-reserved", f"'{site}' is how the coordinator signs", "Choose another."
            )
        view = self._registry.view
        standing = view.standings.get(site)
        if standing is not None and standing.state == "active":
            raise Refusal(
                "already-member",
                f"{site} is a member",
                f"If it lost its keys or its certificate ended: larrey sites revoke {site}",
            )
        count = sum(s.state in ("active", "invited") for s in view.standings.values())
        has_place = standing is not None and standing.state == "invited"
        if not has_place and count >= self._max_sites:
            raise Refusal(
                "too-many-sites",
                f"{count} sites are members or invited, the limit is {self._max_sites}",
                "Raise [coordinator] max_sites.",
            )

    def _issue(self, request: bytes, name: str, now: float, days: float) -> bytes:
        moment = dt.datetime.fromtimestamp(now, dt.UTC)
        credential = self._authority.credential()
        return issue_for_request(credential, request, name, now=moment, days=days)

    def _add(self, row: MemberRow, actor: str, action: str) -> None:
        """Put one step on record, then let it count."""
        self._journal.add_member(row, AuditRecord(0, row.at, actor, action, subject=row.site))
        self._registry.follow(row)

    def _count(self, invitation: str) -> None:
        """Count a join; one that went well too, since each is kept."""
        if self._tries[invitation] >= _MAX_TRIES:
            raise Refusal("too-many-attempts", "too many joins with this invitation", "")
        self._tries[invitation] += 1


def _key_of(request: bytes) -> Any:  # Any: an EC public key
    try:
        return request_key(request)
    except ValueError as error:
        raise Refusal("bad-request", "the certificate request is malformed", "") from error


def _unknown_invitation() -> Refusal:
    return Refusal(
        "invitation-unknown",
        "the invitation is not the one that counts for this site",
        "Ask the consortium for a new one.",
    )


def _facts(standing: Standing) -> Facts:
    key = standing.signing_key
    return {
        "site": standing.site,
        "state": standing.state,
        "since": standing.since,
        "expires_at": standing.expires_at,
        "key": key,
        "fingerprint": fingerprint(key) if key else "",
    }
