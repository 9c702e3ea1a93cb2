"""How this hospital joins a coordinator: keys are made here, a request leaves, a certificate comes.

Guarantees: no private key leaves the machine; nothing that exists is overwritten; a join that was
cut is repeated with the same keys, so that the invitation is not lost; nothing is sent before a
person compared the consortium's fingerprint. Files lie in one folder: ``site.toml``,
``larrey-site.service`` and ``identity/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from larrey_client.credentials import admission_of, install, next_of
from larrey_client.exchange import Exchange, Tls
from larrey_client.settings import FIRST, Identity, Member, load_settings
from larrey_client.site_files import (
    Service,
    add_membership,
    site_toml,
    unit,
    write_site_toml,
)
from larrey_protocol.certificates import make_request, replace_file
from larrey_protocol.enrolment import (
    Admission,
    Invitation,
    JoinRequest,
    MailedRequest,
    check_admission,
    prove,
    read_record,
)
from larrey_protocol.errors import FileError, Refusal, UsageError
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.signed import Signed, sign
from larrey_protocol.tomlfile import read_text

__all__ = [
    "Home",
    "call",
    "finish",
    "mailed",
    "prepare",
    "read_invitation",
    "require_compared",
    "resume",
]


@dataclass(frozen=True, slots=True)
class Home:
    """The node's folder; a node that joined before keeps the paths of its ``site.toml``.

    ``membership`` names one more coordinator of a node that is a member already; empty for the
    first one.
    """

    folder: Path
    membership: str = ""

    @property
    def settings(self) -> Path:
        """Return the node's settings file."""
        return self.folder / "site.toml"

    @property
    def unit(self) -> Path:
        """Return the systemd unit that is written beside it."""
        return self.folder / "larrey-site.service"

    @property
    def begun(self) -> Path:
        """Return where a join that waits for its answer is remembered; holds no secret."""
        return self._place / "join.json"

    @property
    def _place(self) -> Path:
        return self.folder / "identity" / self.membership

    def member(self) -> Member | None:
        """Return the membership as ``site.toml`` has it, None where it is not in there yet.

        Raises:
            FileError: there is a ``site.toml`` and it is not valid.
        """
        if not self.settings.exists():
            return None
        members = load_settings(self.settings).members
        return next((one for one in members if one.name == (self.membership or FIRST)), None)

    def identity(self) -> Identity:
        """Return where certificate and keys lie.

        Raises:
            FileError: there is a ``site.toml`` and it is not valid.
        """
        member = self.member()
        if member is not None:
            return member.identity
        signing_key = self._place / "signing.ed25519"
        if self.settings.exists():  # the site has one, whatever the number of its memberships
            signing_key = load_settings(self.settings).identity.signing_key
        return Identity(
            certificate=self._place / "site.crt",
            key=self._place / "site.key",
            signing_key=signing_key,
        )

    def authority(self) -> Path:
        """Return where the authority's certificate lies."""
        member = self.member()
        return member.coordinator.authority if member is not None else self._place / "ca.crt"


def read_invitation(path: Path, now: float) -> Invitation:
    """Return the invitation in a file.

    Raises:
        FileError: it is not one. Refusal: ``invitation-expired``.
    """
    invitation = read_record(read_text(path).encode(), Invitation, str(path))
    if now >= invitation.expires_at:
        raise Refusal(
            "invitation-expired",
            f"the invitation of {invitation.site} has expired",
            "Ask the consortium for a new one.",
        )
    return invitation


def require_compared(invitation: Invitation, said: str) -> None:
    """Return if the fingerprint that was read out is the consortium's in the invitation.

    Raises:
        Refusal: ``fingerprint-differs``.
    """
    shown = fingerprint(invitation.consortium)
    if _bare(said) != _bare(shown):
        raise Refusal(
            "fingerprint-differs",
            f"the invitation's consortium has the fingerprint {shown}, which is not the one given",
            "Do not join. Call the consortium: the invitation may not be theirs.",
        )


def prepare(home: Home, invitation: Invitation, now: float) -> Signed:
    """Return the signed request of this site; keys are made, or those of a cut join taken again.

    Raises:
        Refusal: ``other-membership`` if the folder belongs to another site or consortium.
        FileError: a key or ``site.toml`` that is there is not valid.
    """
    _require_same(home, invitation)
    identity = home.identity()
    for place in {home.begun.parent, identity.key.parent}:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    request = _request(home, identity, invitation)
    if not identity.signing_key.exists():
        SigningKey.generate().save(identity.signing_key)
    key = SigningKey.load(identity.signing_key)
    asked = JoinRequest(
        invitation=invitation.invitation,
        site=invitation.site,
        request=request.decode(),
        signing_key=key.public,
        at=now,
    )
    replace_file(home.begun, _without_secrets(invitation).model_dump_json(indent=1).encode())
    return sign(asked, key)


def call(invitation: Invitation, signed: Signed) -> Admission:
    """Return what the coordinator answers to the request.

    Raises:
        TransportError: it was not reached. Refusal: it did not admit the site.
    """
    tls = Tls(
        invitation.authority.encode(), invitation.certificate.encode(), invitation.key.encode()
    )
    exchange = Exchange(invitation.address, tls, lambda _sent, _received: None)
    try:
        return admission_of(exchange.join(signed.to_bytes()), invitation.site)
    finally:
        exchange.close()


def mailed(invitation: Invitation, signed: Signed) -> MailedRequest:
    """Return the request as it travels by mail."""
    return MailedRequest(request=signed, proof=prove(signed, invitation.key.encode()))


def resume(home: Home) -> Invitation:
    """Return what is remembered of a join that waits for its answer.

    Raises:
        UsageError: ``no-join-begun``.
    """
    if not home.begun.exists():
        raise UsageError(
            "no-join-begun",
            f"no join was begun in {home.folder}, or it is finished",
            "Name the folder where it was begun: --dir DIR",
        )
    return read_record(home.begun.read_bytes(), Invitation, str(home.begun))


def finish(
    home: Home, invitation: Invitation, admission: Admission, data: Sequence[Path], service: Service
) -> str:
    """Put the certificate in place, write what is missing, return the site's own fingerprint.

    Raises:
        Refusal: ``admission-not-ours``; nothing was changed.
    """
    identity, waiting = home.identity(), _waiting(home)
    if not waiting.exists() or not next_of(identity.key).exists():
        raise FileError(
            "missing-file", f"{waiting.parent} has no keys that wait for this", "Join anew."
        )
    check_admission(admission, invitation.site, waiting.read_bytes())
    if not home.settings.exists():
        consortium = invitation.consortium, fingerprint(invitation.consortium)
        where = home.settings.absolute()
        text = site_toml(where, invitation.site, invitation.address, consortium, data)
        write_site_toml(home.settings, text)
    elif home.member() is None:
        consortium = invitation.consortium, fingerprint(invitation.consortium)
        add_membership(home.settings, home.membership, invitation.address, consortium)
    install(admission, identity, home.authority())
    if not home.unit.exists():
        replace_file(home.unit, unit(service).encode(), mode=0o644)
    waiting.unlink()
    home.begun.unlink(missing_ok=True)
    return fingerprint(SigningKey.load(identity.signing_key).public)


def _request(home: Home, identity: Identity, invitation: Invitation) -> bytes:
    """Return the certificate request that waits for an answer, or a new one."""
    waiting, key = _waiting(home), next_of(identity.key)
    if waiting.exists() and key.exists():
        return waiting.read_bytes()
    request, private = make_request(invitation.site)
    replace_file(key, private)
    replace_file(waiting, request)
    return request


def _waiting(home: Home) -> Path:
    return home.begun.with_name("join.csr")


def _require_same(home: Home, invitation: Invitation) -> None:
    if not home.settings.exists():
        if home.membership:
            raise UsageError(
                "no-first-membership",
                f"{home.folder} has no site.toml to add a membership to",
                "Join without --membership, or name the node's folder: --dir DIR",
            )
        return
    settings, member = load_settings(home.settings), home.member()
    taken = [one for one in settings.members if one.consortium.key == invitation.consortium]
    expected = [member] if member is not None else []
    if settings.site.name != invitation.site or taken != expected:
        here = member or (taken[0] if taken else None)
        of = f"membership {here.name} under {fingerprint(here.consortium.key)}" if here else ""
        raise Refusal(
            "other-membership",
            f"{home.settings} is of {settings.site.name} {of}".rstrip(),
            "Another consortium of this site: --membership NAME. Another site: --dir DIR.",
        )


def _without_secrets(invitation: Invitation) -> Invitation:
    return invitation.model_copy(update={"certificate": "", "key": ""})


def _bare(text: str) -> str:
    return "".join(text.upper().split()).replace("-", "")
