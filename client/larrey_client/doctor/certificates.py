"""Certificates and keys of each membership, and the clock that they are read by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from larrey_client.local import ask
from larrey_client.settings import Member, SiteSettings
from larrey_protocol.certificates import is_issued_by
from larrey_protocol.checkup import Check, Outcome, Skip, Text, joined
from larrey_protocol.checkup_probes import is_clock_kept
from larrey_protocol.checkup_rules import is_whole_key
from larrey_protocol.errors import LarreyError

__all__ = ["CHECKS", "Facts", "Pair", "look"]

_DAY_S = 86400.0
_WARN_DAYS = 14.0
_WORST_CLOCK_S = 300.0  # certificates are dated back by as much


@dataclass(frozen=True, slots=True)
class Pair:
    """One membership's certificate and what belongs to it.

    Attributes:
        name: of the membership.
        unreadable: settings whose files cannot be read or are damaged.
        is_pair: the key belongs to the certificate.
        is_issued: the authority in ``site.toml`` signed it.
        days_left: until it ends; negative once it has.
        days_old: since it began; negative where it is not yet valid.
        authority_days_left: until the authority ends.
    """

    name: str
    unreadable: tuple[str, ...]
    is_pair: bool = True
    is_issued: bool = True
    days_left: float = 365.0
    days_old: float = 1.0
    authority_days_left: float = 365.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured.

    Attributes:
        pairs: one a membership.
        open_keys: settings of private keys that others may read.
        is_signing_key_whole: it can be read and is an Ed25519 key.
        clock_offset_s: the coordinator's clock less ours; None where no node runs.
        is_clock_kept: whether the kernel says that something keeps its clock; None if unknown.
    """

    pairs: tuple[Pair, ...]
    open_keys: tuple[str, ...]
    is_signing_key_whole: bool
    clock_offset_s: float | None
    is_clock_kept: bool | None


def look(settings: SiteSettings, now: float) -> Facts:
    """Measure; ``now`` in seconds since 1970."""
    keys = {f"{one.name}: identity.key": one.identity.key for one in settings.members}
    keys["identity.signing_key"] = settings.identity.signing_key
    return Facts(
        pairs=tuple(_pair(member, now) for member in settings.members),
        open_keys=tuple(name for name, path in keys.items() if _is_open(path)),
        is_signing_key_whole=is_whole_key(settings.identity.signing_key),
        clock_offset_s=_offset(settings.site.state),
        is_clock_kept=is_clock_kept(),
    )


def _pair(member: Member, now: float) -> Pair:
    files = {
        "identity.certificate": member.identity.certificate,
        "identity.key": member.identity.key,
        "coordinator.authority": member.coordinator.authority,
    }
    data: dict[str, bytes] = {}
    for setting, path in files.items():
        with suppress(OSError):
            data[setting] = path.read_bytes()
    unreadable = [setting for setting in files if setting not in data]
    try:
        ours = x509.load_pem_x509_certificate(data.get("identity.certificate", b""))
    except ValueError:
        ours = None
        unreadable.append("identity.certificate")
    try:
        authority = x509.load_pem_x509_certificate(data.get("coordinator.authority", b""))
    except ValueError:
        authority = None
        unreadable.append("coordinator.authority")
    if ours is None or authority is None:
        return Pair(member.name, tuple(dict.fromkeys(unreadable)))
    try:
        key = load_pem_private_key(data.get("identity.key", b""), None)
        is_pair = key.public_key() == ours.public_key()
    except (ValueError, TypeError):
        is_pair = False
    return Pair(
        name=member.name,
        unreadable=tuple(unreadable),
        is_pair=is_pair or "identity.key" in unreadable,
        is_issued=is_issued_by(data["identity.certificate"], data["coordinator.authority"]),
        days_left=(ours.not_valid_after_utc.timestamp() - now) / _DAY_S,
        days_old=(now - ours.not_valid_before_utc.timestamp()) / _DAY_S,
        authority_days_left=(authority.not_valid_after_utc.timestamp() - now) / _DAY_S,
    )


def _is_open(path: Path) -> bool:
    with suppress(OSError):
        return bool(path.stat().st_mode & 0o037)  # a group may read mounted secrets
    return False


def _offset(state: Path) -> float | None:
    """Return what the running node measured; None where none runs."""
    with suppress(LarreyError, OSError, ValueError, TypeError):
        found = ask(state, "status").get("clock_offset_s")
        return None if found is None else float(found)
    return None


def _each(says: Callable[[Pair], Text | None]) -> Callable[[Facts], Outcome]:
    def rule(facts: Facts) -> Outcome:
        return joined(text for pair in facts.pairs if (text := says(pair)) is not None)

    return rule


def _unreadable(pair: Pair) -> Text | None:
    names = ", ".join(pair.unreadable)
    return Text(f"{pair.name}: {names}", f"{pair.name} : {names}") if names else None


def _ended(pair: Pair) -> Text | None:
    if pair.days_left >= 0:
        return None
    days = -pair.days_left
    return Text(
        f"{pair.name}: ended {days:.1f} days ago", f"{pair.name} : expiré depuis {days:.1f} jours"
    )


def _ends_soon(pair: Pair) -> Text | None:
    if not 0 <= pair.days_left < _WARN_DAYS:
        return None
    days = pair.days_left
    return Text(
        f"{pair.name}: ends in {days:.1f} days", f"{pair.name} : expire dans {days:.1f} jours"
    )


def _not_yet(pair: Pair) -> Text | None:
    if pair.days_old >= 0:
        return None
    days = -pair.days_old
    return Text(
        f"{pair.name}: valid only in {days:.1f} days, by this machine's clock",
        f"{pair.name} : valable seulement dans {days:.1f} jours, selon l'horloge locale",
    )


def _foreign(pair: Pair) -> Text | None:
    return None if pair.is_issued else Text(pair.name, pair.name)


def _mismatch(pair: Pair) -> Text | None:
    return None if pair.is_pair else Text(pair.name, pair.name)


def _authority_ended(pair: Pair) -> Text | None:
    if pair.authority_days_left >= 0:
        return None
    days = -pair.authority_days_left
    return Text(
        f"{pair.name}: ended {days:.1f} days ago", f"{pair.name} : expirée depuis {days:.1f} jours"
    )


def _open_keys(facts: Facts) -> Outcome:
    names = ", ".join(facts.open_keys)
    return Text(names, names) if names else None


def _signing(facts: Facts) -> Outcome:
    name = "identity.signing_key"
    return None if facts.is_signing_key_whole else Text(name, name)


def _clock_off(facts: Facts) -> Outcome:
    offset = facts.clock_offset_s
    if offset is None:
        why = Text("no running node has measured it", "aucun nœud en marche ne l'a mesuré")
        return Skip(why)
    if abs(offset) <= _WORST_CLOCK_S:
        return None
    return Text(f"they differ by {abs(offset):.0f} s", f"écart de {abs(offset):.0f} s")


def _clock_not_kept(facts: Facts) -> Outcome:
    if facts.is_clock_kept is None:
        return Skip(Text("the kernel does not say", "le noyau ne le dit pas"))
    if facts.is_clock_kept or facts.clock_offset_s is not None:
        return None
    return Text("so says the kernel", "selon le noyau")


CHECKS: tuple[Check, ...] = (
    Check(
        "identity-unreadable", "certificates", "failed",
        Text("certificate, key and authority can be read",
             "certificat, clé et autorité sont lisibles"),
        Text("Restore the file, or let the node's account read it.",
             "Restaurez le fichier, ou donnez au compte du nœud le droit de le lire."),
        "a certificate file of other bytes",
        _each(_unreadable),
    ),
    Check(
        "certificate-ended", "certificates", "failed",
        Text("this site's certificate has not ended", "le certificat du site n'a pas expiré"),
        Text("Ask the consortium for an invitation and join.",
             "Demandez une invitation au consortium et adhérez de nouveau."),
        "a certificate issued 400 days ago for 90",
        _each(_ended),
    ),
    Check(
        "certificate-ends-soon", "certificates", "warning",
        Text(f"this site's certificate lasts {_WARN_DAYS:.0f} days more",
             f"le certificat du site vaut encore {_WARN_DAYS:.0f} jours"),
        Text("Keep the node running and connected: it renews it by itself.",
             "Laissez le nœud en marche et connecté : il le renouvelle lui-même."),
        "a certificate with 5 days left",
        _each(_ends_soon),
    ),
    Check(
        "certificate-not-yet-valid", "certificates", "failed",
        Text("this site's certificate has begun", "le certificat du site est déjà valable"),
        Text("Correct this machine's clock.", "Corrigez l'horloge de cette machine."),
        "a certificate that begins in 10 days",
        _each(_not_yet),
    ),
    Check(
        "certificate-foreign", "certificates", "failed",
        Text("coordinator.authority issued this site's certificate",
             "coordinator.authority a émis le certificat du site"),
        Text("The two belong to different times; ask the consortium for an invitation and join.",
             "Les deux datent d'époques différentes ; demandez une invitation et adhérez."),
        "a certificate of another authority",
        _each(_foreign),
    ),
    Check(
        "key-mismatch", "certificates", "failed",
        Text("key and certificate belong together", "la clé et le certificat vont ensemble"),
        Text("Restore the key that was made with this certificate, or join again.",
             "Restaurez la clé créée avec ce certificat, ou adhérez de nouveau."),
        "the key of another certificate",
        _each(_mismatch),
    ),
    Check(
        "authority-ended", "certificates", "failed",
        Text("the consortium's authority has not ended", "l'autorité du consortium n'a pas expiré"),
        Text("Ask the consortium for its new authority, compare it by phone, and join again.",
             "Demandez au consortium sa nouvelle autorité, comparez-la par téléphone, adhérez."),
        "an authority made 11 years ago for 10",
        _each(_authority_ended),
    ),
    Check(
        "key-open", "certificates", "failed",
        Text("private keys are closed to others", "les clés privées sont fermées aux autres"),
        Text("chmod 600 the file; if others could read it, join again with a new key.",
             "chmod 600 sur le fichier ; si d'autres ont pu le lire, adhérez avec une clé neuve."),
        "a key file of mode 0644",
        _open_keys,
    ),
    Check(
        "signing-key-damaged", "certificates", "failed",
        Text("the signing key is whole", "la clé de signature est intacte"),
        Text("Restore it from the backup; without it this site must join again.",
             "Restaurez-la depuis la sauvegarde ; sans elle, le site doit adhérer de nouveau."),
        "a signing key file of other bytes",
        _signing,
    ),
    Check(
        "clock-off", "certificates", "failed",
        Text("this clock agrees with the coordinator's",
             "l'horloge concorde avec celle du coordinateur"),
        Text("Keep both by NTP; permits and certificates have dates.",
             "Synchronisez-les par NTP ; permis et certificats sont datés."),
        "a running node's door that says one hour",
        _clock_off,
    ),
    Check(
        "clock-not-kept", "certificates", "warning",
        Text("something keeps this machine's clock", "l'horloge de cette machine est synchronisée"),
        Text("Run chrony or systemd-timesyncd on the host.",
             "Lancez chrony ou systemd-timesyncd sur l'hôte."),
        "the kernel's answer, given to the rule: setting a clock needs the host",
        _clock_not_kept,
    ),
)  # fmt: skip
