"""Security incidents: the clocks that run, the trail that is frozen, the bundle that is handed on.

Opening one is a signed record with three deadlines counted from then: early warning 24 hours,
notification 72 hours (GDPR art. 33; Directive (EU) 2022/2555, art. 23), final report one month.
While one is open, nothing is purged. The bundle is a zip of trail, receipts, documents, egress and
access log and the digest of the configuration, with a signed manifest of digests; it holds neither
rows of patients nor keys nor the payloads of what left.
"""

from __future__ import annotations

import calendar
import datetime as dt
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from larrey_client.anchors import make_anchor
from larrey_client.records import SiteRecords
from larrey_client.store import SiteStore
from larrey_protocol.canonical import canonical_json, digest_bytes, digest_of
from larrey_protocol.errors import IntegrityError, Refusal, UsageError
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.signed import Signed, open_signed, sign
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record

__all__ = [
    "KINDS",
    "Incident",
    "IncidentClosure",
    "Opening",
    "close_incident",
    "incidents_view",
    "make_bundle",
    "open_incident",
    "open_incidents",
    "require_no_incident",
    "verify_bundle",
]

Kind = Literal["confidentiality", "integrity", "availability", "key-compromise", "suspected"]
KINDS: tuple[str, ...] = get_args(Kind)
_HOUR_S = 3600.0
_MANIFEST = "manifest.json"
_MAX_FILE = 1 << 30
_MAX_FILES = 32

Json = dict[str, Any]  # Any: JSON values are recursive


@dataclass(frozen=True, slots=True)
class Opening:
    """What a person says of an incident: kind, digest of the study or nothing, who says it."""

    kind: str
    study: str
    actor: str


class Incident(Record):
    """An incident was opened; signed by the site. Times in seconds since 1970."""

    site: SiteName
    number: int = Field(ge=1)
    kind: Kind
    study: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")  # empty: the node as such
    opened_at: float
    early_warning_due: float
    notification_due: float
    final_report_due: float
    audit_head: str  # what the trail held when it was frozen
    ledger_head: str


class IncidentClosure(Record):
    """An incident was closed; signed by the site."""

    site: SiteName
    number: int = Field(ge=1)
    closed_at: float


class Manifest(Record):
    """What a bundle holds; signed by the site."""

    site: SiteName
    incident: int = Field(ge=1)
    made_at: float
    files: dict[str, str]  # name -> digest


def open_incidents(records: SiteRecords) -> list[Incident]:
    """Return the incidents that are not closed."""
    closed = {_load(IncidentClosure, one).number for one in records.documents("incidentclosure")}
    found = [_load(Incident, one) for one in records.documents("incident")]
    return [incident for incident in found if incident.number not in closed]


def require_no_incident(records: SiteRecords) -> None:
    """Return if no incident is open, so that something may be deleted.

    Raises:
        Refusal: ``incident-open``.
    """
    found = open_incidents(records)
    if found:
        number = found[0].number
        raise Refusal(
            "incident-open",
            f"incident {number} is open, and nothing is deleted while one is",
            f"Stop the work: larrey-site halt. Delete after: larrey-site incident close {number}",
        )


def open_incident(
    store: SiteStore, key: SigningKey, opening: Opening, *, site: str, now: float
) -> Incident:
    """Start the clocks, durably: the record and a signed anchor of trail and ledger.

    Raises:
        UsageError: ``incident-kind`` for a kind that is not one of `KINDS`.
    """
    kind = opening.kind
    if kind not in KINDS:
        raise UsageError("incident-kind", f"no incident is '{kind}'", f"One of: {', '.join(KINDS)}")
    with store.transaction():
        with store.reading() as records:
            number = len(records.documents("incident")) + 1
        store.audit("incident-opened", opening.actor, study=opening.study, code=kind)
        incident = Incident.model_validate(
            {
                "site": site,
                "number": number,
                "kind": kind,
                "study": opening.study,
                "opened_at": now,
                "early_warning_due": now + 24 * _HOUR_S,
                "notification_due": now + 72 * _HOUR_S,
                "final_report_due": _month_after(now),
                "audit_head": store.audit_head,
                "ledger_head": store.ledger_head,
            }
        )
        anchor = make_anchor(store, site, key, now)
        store.add_document(anchor, subject=f"incident-{number}", number=number)
        store.add_document(sign(incident, key), number=number)
    return incident


def close_incident(
    store: SiteStore, key: SigningKey, number: int, *, site: str, actor: str, now: float
) -> IncidentClosure:
    """Stop the clocks of an incident.

    Raises:
        UsageError: ``incident-unknown`` unless it is open.
    """
    with store.transaction():
        with store.reading() as records:
            is_open = number in {incident.number for incident in open_incidents(records)}
        if not is_open:
            raise UsageError(
                "incident-unknown",
                f"no incident {number} is open",
                "See: larrey-site incident list",
            )
        closure = IncidentClosure(site=site, number=number, closed_at=now)
        store.audit("incident-closed", actor)
        store.add_document(sign(closure, key), number=number)
    return closure


def incidents_view(records: SiteRecords, now: float) -> list[Json]:
    """Return every incident with the hours that are left, negative where a deadline passed."""
    closed = {
        one.number: one.closed_at
        for one in (_load(IncidentClosure, kept) for kept in records.documents("incidentclosure"))
    }
    return [
        _load(Incident, kept).model_dump()
        | {"closed_at": closed.get(_load(Incident, kept).number)}
        | {"hours_left": _hours_left(_load(Incident, kept), now)}
        for kept in records.documents("incident")
    ]


def make_bundle(
    files: Mapping[str, Any], key: SigningKey, *, site: str, incident: int, now: float
) -> bytes:
    """Return a zip with one JSON file an entry and the signed manifest of their digests."""
    texts = {f"{name}.json": canonical_json(value) for name, value in files.items()}
    digests = {name: digest_bytes(text) for name, text in texts.items()}
    manifest = Manifest(site=site, incident=incident, made_at=now, files=digests)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in sorted((texts | {_MANIFEST: sign(manifest, key).to_bytes()}).items()):
            bundle.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


def verify_bundle(path: Path, key: str = "") -> Json:
    """Return what a bundle holds, if every file is what its manifest says.

    Args:
        path: of the zip.
        key: of the site; empty takes the manifest's own, whose fingerprint is then to be compared.

    Raises:
        IntegrityError: ``bundle-damaged``, naming the file; or as `open_signed`.
    """
    try:
        with zipfile.ZipFile(path) as bundle:
            sizes = {info.filename: info.file_size for info in bundle.infolist()}
            if len(sizes) > _MAX_FILES or sum(sizes.values()) > _MAX_FILE:
                raise _damaged("it is larger than any bundle")
            signed = Signed.from_bytes(bundle.read(_MANIFEST))
            manifest = open_signed(signed, Manifest, key or signed.signer)
            _require_same(set(sizes) - {_MANIFEST}, set(manifest.files))
            for name, digest in manifest.files.items():
                if digest_bytes(bundle.read(name)) != digest:
                    raise _damaged(f"{name} is not what was signed")
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _damaged("it is not a bundle") from error
    return {
        "site": manifest.site,
        "incident": manifest.incident,
        "made_at": manifest.made_at,
        "files": sorted(manifest.files),
        "signed_by": fingerprint(signed.signer),
        "manifest": digest_of(manifest.model_dump()),
    }


def _hours_left(incident: Incident, now: float) -> dict[str, float]:
    return {
        name: round((getattr(incident, f"{name}_due") - now) / _HOUR_S, 1)
        for name in ("early_warning", "notification", "final_report")
    }


def _month_after(at: float) -> float:
    """Return the same time one calendar month later, or the month's last day."""
    begin = dt.datetime.fromtimestamp(at, dt.UTC)
    year, month = (begin.year, begin.month + 1) if begin.month < 12 else (begin.year + 1, 1)
    day = min(begin.day, calendar.monthrange(year, month)[1])
    return begin.replace(year=year, month=month, day=day).timestamp()


def _load(model: type[Any], signed: Signed) -> Any:  # Any: one of the records above
    """Return a kept document; its signature was made here."""
    return model.model_validate(json.loads(signed.document))


def _require_same(found: set[str], expected: set[str]) -> None:
    if found != expected:
        raise _damaged(f"{min(found ^ expected)} is missing or was added")


def _damaged(what: str) -> IntegrityError:
    return IntegrityError(
        "bundle-damaged", f"the bundle does not verify: {what}", "Ask for a copy."
    )
