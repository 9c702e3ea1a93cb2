"""Who is a member, as a pure function of what the settings list and what the journal adds.

Rows are only ever added. A site is invited, then active with one key a certificate, then perhaps
revoked or gone; the rows of a site stand above its entry in the settings. A key that a renewal
replaced stays good until its certificate ends, so that work in flight is not lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from larrey_protocol.errors import Refusal

__all__ = ["EMPTY", "Member", "MemberRow", "Standing", "Transport", "View", "fold"]

State = Literal["invited", "active", "revoked", "left"]


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One step of a site's membership, as stored."""

    site: str
    state: State
    at: float  # seconds since 1970
    transport_key: bytes = b""  # DER; of the invitation, or of the site
    signing_key: str = ""  # Ed25519 public key; empty while invited
    invitation: str = ""
    expires_at: float = 0.0  # end of invitation or certificate


@dataclass(frozen=True, slots=True)
class Member:
    """A registered caller."""

    name: str
    role: Literal["site", "operator", "invited"]
    signing_key: str  # Ed25519 public key of a site; empty for others
    transport_key: bytes  # public key of the certificate, DER
    invitation: str = ""  # of an invited site


@dataclass(frozen=True, slots=True)
class Transport:
    """One key that a site may call with."""

    key: bytes
    expires_at: float  # 0 where only the certificate itself says


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a site's membership stands."""

    site: str
    state: State
    since: float
    signing_key: str = ""
    transports: tuple[Transport, ...] = ()  # of a site; newest last
    invited: MemberRow | None = None  # the invitation that still opens the door
    used: MemberRow | None = None  # the membership that came of it
    renewed_at: float = 0.0

    @property
    def expires_at(self) -> float:
        """Return when the site's newest certificate or invitation ends, 0 if not known."""
        if self.state == "invited" and self.invited:
            return self.invited.expires_at
        return self.transports[-1].expires_at if self.transports else 0.0


@dataclass(frozen=True, slots=True)
class View:
    """Everybody who may call, at one moment.

    Attributes:
        keys: callers by their certificate's public key.
        sites: active sites by name.
        standings: every site that ever was, by name.
    """

    keys: Mapping[bytes, Member] = field(default_factory=dict)
    sites: Mapping[str, Member] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)

    def standing(self, site: str) -> Standing:
        """Return where a site's membership stands.

        Raises:
            Refusal: ``unknown-site``.
        """
        if site not in self.standings:
            raise Refusal("unknown-site", f"no site '{site}' here", "See: larrey sites list")
        return self.standings[site]


EMPTY = View()


def fold(listed: Iterable[Member], rows: Iterable[MemberRow]) -> View:
    """Return who may call, from the settings' entries and the journal's rows, oldest first."""
    members = tuple(listed)
    standings = {
        m.name: Standing(m.name, "active", 0.0, m.signing_key, (Transport(m.transport_key, 0.0),))
        for m in members
        if m.role == "site"
    }
    for row in rows:
        standings[row.site] = _after(standings.get(row.site), row)
    keys = {m.transport_key: m for m in members if m.role == "operator"}
    sites: dict[str, Member] = {}
    for standing in standings.values():
        for member in _callers(standing):
            keys[member.transport_key] = member
            if member.role == "site":
                sites[member.name] = member  # the newest key comes last
    return View(MappingProxyType(keys), MappingProxyType(sites), MappingProxyType(standings))


def _after(standing: Standing | None, row: MemberRow) -> Standing:
    if row.state == "invited":
        return Standing(row.site, "invited", row.at, invited=row)
    if row.state != "active":
        signing_key = standing.signing_key if standing else ""
        return Standing(row.site, row.state, row.at, signing_key)
    transport = Transport(row.transport_key, row.expires_at)
    if standing is None or standing.state != "active":
        invited = standing.invited if standing else None
        key = row.signing_key
        return Standing(row.site, "active", row.at, key, (transport,), invited, row, row.at)
    kept = tuple(
        known
        for known in standing.transports
        if known.key != transport.key and not 0.0 < known.expires_at <= row.at
    )
    transports = (*kept, transport)
    if row.invitation:  # the same join once more: its first answer was lost on the way
        return replace(standing, transports=transports, renewed_at=row.at)
    return replace(standing, transports=transports, invited=None, used=None, renewed_at=row.at)


def _callers(standing: Standing) -> Iterable[Member]:
    if standing.invited is not None:
        row = standing.invited
        yield Member(row.site, "invited", "", row.transport_key, row.invitation)
    for transport in standing.transports:
        yield Member(standing.site, "site", standing.signing_key, transport.key)
