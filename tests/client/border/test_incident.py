"""An incident starts three clocks, stops every purge and makes a bundle that anybody can check."""

from __future__ import annotations

import datetime as dt
import json
import zipfile
from pathlib import Path

import pytest

from larrey_client.egress_log import EgressLog, Sent
from larrey_client.incident import (
    Opening,
    close_incident,
    incidents_view,
    make_bundle,
    open_incident,
    open_incidents,
    verify_bundle,
)
from larrey_client.logs import Logs, purge
from larrey_client.settings import Policy
from larrey_client.store import SiteStore
from larrey_protocol.access_log import Access, AccessLog
from larrey_protocol.errors import IntegrityError, UsageError
from larrey_protocol.keys import SigningKey
from tests.client.border.trails import KEY, open_store

OPENED = dt.datetime(2026, 1, 31, 10, tzinfo=dt.UTC).timestamp()
OPENING = Opening("confidentiality", "", "it-person")
DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> SiteStore:
    return open_store(tmp_path)


def test_the_clocks_are_a_day_three_days_and_a_calendar_month(store: SiteStore) -> None:
    incident = open_incident(store, KEY, OPENING, site="alpha", now=OPENED)
    assert incident.early_warning_due - OPENED == 24 * 3600
    assert incident.notification_due - OPENED == 72 * 3600
    due = dt.datetime.fromtimestamp(incident.final_report_due, dt.UTC)
    assert due == dt.datetime(2026, 2, 28, 10, tzinfo=dt.UTC)
    (view,) = incidents_view(store.records, OPENED + 80 * 3600)
    assert view["hours_left"]["notification"] == -8.0


def test_opening_freezes_the_trail_by_a_signed_anchor(store: SiteStore) -> None:
    incident = open_incident(store, KEY, OPENING, site="alpha", now=OPENED)
    (anchor,) = store.records.documents("anchor", "incident-1")
    assert json.loads(anchor.document)["audit_head"] == incident.audit_head == store.audit_head
    assert [record.action for record in store.records.audit()] == ["incident-opened"]


def test_an_incident_is_closed_once_and_by_its_number(store: SiteStore) -> None:
    for _ in range(2):
        open_incident(store, KEY, OPENING, site="alpha", now=OPENED)
    close_incident(store, KEY, 1, site="alpha", actor="it-person", now=OPENED + 1)
    assert [one.number for one in open_incidents(store.records)] == [2]
    with pytest.raises(UsageError, match="no incident 1 is open"):
        close_incident(store, KEY, 1, site="alpha", actor="it-person", now=OPENED + 2)


def test_a_kind_that_is_none_is_refused(store: SiteStore) -> None:
    with pytest.raises(UsageError, match="no incident is 'Dupont'"):
        open_incident(store, KEY, Opening("Dupont", "", "x"), site="alpha", now=OPENED)


def test_nothing_is_purged_while_an_incident_is_open(store: SiteStore, tmp_path: Path) -> None:
    logs = Logs(EgressLog(tmp_path), AccessLog(tmp_path))
    logs.egress.add(Sent(0.0, "Exchange/Give", "", 0, "", "", 3, "sha256:x"), b"abc")
    logs.access.add(Access(0.0, "ann", "status", "ok"))
    open_incident(store, KEY, OPENING, site="alpha", now=OPENED)
    assert purge(logs, store, Policy(), OPENED + 900 * DAY) == 0
    close_incident(store, KEY, 1, site="alpha", actor="ann", now=OPENED)
    assert purge(logs, store, Policy(), OPENED + 900 * DAY) == 2


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "incident.zip"
    files = {"trail": {"records": []}, "access": []}
    path.write_bytes(make_bundle(files, KEY, site="alpha", incident=1, now=OPENED))
    return path


def repack(path: Path, changes: dict[str, bytes | None]) -> None:
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in (files | changes).items():
            if data is not None:
                new.writestr(name, data)


def test_a_bundle_verifies_and_says_what_it_holds(bundle: Path) -> None:
    found = verify_bundle(bundle, KEY.public)
    assert found["files"] == ["access.json", "trail.json"]
    assert found["incident"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"trail.json": b'{"records":[1]}'},
        {"trail.json": None},
        {"more.json": b"{}"},
        {"manifest.json": None},
    ],
)
def test_a_bundle_that_was_changed_does_not_verify(
    bundle: Path, changes: dict[str, bytes | None]
) -> None:
    repack(bundle, changes)
    with pytest.raises(IntegrityError, match="bundle") as found:
        verify_bundle(bundle)
    assert found.value.code == "bundle-damaged"


def test_a_bundle_of_another_key_or_no_bundle_does_not_verify(bundle: Path) -> None:
    with pytest.raises(IntegrityError, match="unexpected key"):
        verify_bundle(bundle, SigningKey.generate().public)
    bundle.write_bytes(b"PK")
    with pytest.raises(IntegrityError, match="not a bundle"):
        verify_bundle(bundle)
