"""Who changed the opposition list is on the trail, and nothing that tells a patient."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from larrey_client.data.identity import patient_hash
from larrey_client.data.secret import site_secret
from larrey_client.local import Door, account, ask
from larrey_client.opposition_trail import note_objections
from larrey_client.store import SiteStore
from larrey_protocol.audit import AuditRecord
from larrey_protocol.errors import UsageError
from tests.client.data.test_data_commands import Run, folder, site

__all__ = ["folder", "site"]


def acts(folder: Path) -> list[AuditRecord]:
    store = SiteStore.open(folder / "state", time.time)
    try:
        return list(store.records.audit())
    finally:
        store.close()


def test_each_act_names_its_person_and_a_band_and_no_patient(site: Run, folder: Path) -> None:
    many = [f"patient-{number}" for number in range(12)]
    assert site("opposition", "add", *many)[0] == 0
    assert site("opposition", "withdraw", "patient-3", "patient-3")[0] == 0
    found = [(one.action, one.actor, one.subject) for one in acts(folder)]
    assert found == [
        ("opposition-added", account(), "patients 11-50"),
        ("opposition-withdrawn", account(), "patients 1-10"),
    ]
    secret = site_secret(folder / "state")
    text = json.dumps([one.subject + one.code + one.study for one in acts(folder)])
    assert not any(patient_hash(name, secret).hex() in text or name in text for name in many)


def test_what_is_refused_leaves_no_act(site: Run, folder: Path) -> None:
    assert site("opposition", "add", " ")[0] == 2
    assert acts(folder) == []


def test_a_running_node_notes_it_for_the_account_that_the_kernel_names(
    site: Run, folder: Path
) -> None:
    store = SiteStore.open(folder / "state", time.time)

    def noted(request: dict[str, object], actor: str) -> object:
        return note_objections(store, str(request["kind"]), int(str(request["count"])), actor)

    door = Door(folder / "state", {"opposition noted": noted})
    try:
        assert site("opposition", "add", "p1")[0] == 0
        with pytest.raises(Exception, match="request-malformed"):
            ask(folder / "state", "opposition noted", kind="study-approved", count=1)
        with pytest.raises(UsageError, match="request-malformed"):
            note_objections(store, "study-approved", 1, "somebody")
    finally:
        door.close()
        store.close()
    assert [(one.action, one.actor) for one in acts(folder)] == [("opposition-added", account())]
