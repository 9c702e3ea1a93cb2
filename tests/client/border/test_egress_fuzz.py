"""Whatever the patients are: public fields stay, no small count, no text and no path leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from larrey_client.agent import Agent
from larrey_client.cost import app_digest
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.trainer_link import Loaded
from larrey_protocol.errors import DataError, LarreyError
from larrey_protocol.models import phase_layout
from larrey_protocol.signed import Receipt, Signed, open_signed
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.client.border.watched import WatchingPeer
from tests.client.node.conftest import Pki
from tests.client.node.peer import Given
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

MODULE = "tests.client.training.apps.standard_apps:judges"
POLICY = f"""
allow_without_dp = ["heart"]
[[policy.apps]]
name = "judge"
module = "{MODULE}"
digest = "{app_digest(MODULE)}"
unaccounted = true
metrics = true
"""
STUDY = make_study(
    privacy={"mechanism": "none", "max_update_norm": 1e4},
    training__app="judge",
    training__calls=["train", "evaluate"],
    training__metrics=["share", "deaths"],
    training__rounds=200,
    training__spare_rounds=0,
)
ROUNDS = count(1)
_PUBLIC = {"round", "model_in", "update", "ledger_head", "audit_head", "snapshot", "at"}


@dataclass(frozen=True)
class Patients:
    """Rows of a made-up hospital, and where its trainer stumbles over them."""

    names: list[str]
    deaths: int
    trouble: str  # at "load", "train", "crash", or nowhere


patients = st.builds(
    Patients,
    names=st.lists(
        st.one_of(
            st.from_regex(r"(1|2)[0-9]{14}", fullmatch=True),
            st.from_regex(r"[A-Z][a-zé]{6,12} [A-Z]{7,12}", fullmatch=True),
            st.sampled_from(
                ["'; DROP TABLE answers;--", "../../etc/passwd", "sha256:patient-dupont",
                 "site-patient-seventeen", "{\"code\": \"dupont\"}", "Traceback (most recent"]
            ),
        ),
        min_size=1,
        max_size=40,
    ),
    deaths=st.integers(0, 60),
    trouble=st.sampled_from(["", "", "", "load", "train", "code", "crash", "few"]),
)  # fmt: skip


class Ward(SmallTrainer):
    """A trainer whose answers, failures and words come from the rows, as carelessly as can be."""

    def __init__(self, table: Path) -> None:
        super().__init__()
        self.table = table
        self.rows = Patients([], 0, "")

    def load(self, study: Study, **named: Any) -> Loaded:
        loaded = super().load(study, **named)
        if self.rows.trouble == "load":
            raise DataError("rows-not-as-agreed", self._words())
        if self.rows.trouble == "few":
            return replace(loaded, units=len(self.rows.names) % 10)
        return replace(loaded, units=100 + len(self.rows.names), content=str(self.rows))

    def train(self, task: Any, model: int, *, timeout_s: float) -> int:
        if task.phase == "evaluate":
            self._stumble()
        self.make = lambda study: self._answer(study, task.phase)
        return super().train(task, model, timeout_s=timeout_s)

    def _stumble(self) -> None:
        if self.rows.trouble == "train":
            raise LarreyError("trainer-failed", self._words())
        if self.rows.trouble == "code":
            raise LarreyError("patient-dupont-died", self._words())
        if self.rows.trouble == "crash":
            raise KeyError(self._words())

    def _answer(self, study: Study, phase: str) -> bytes:
        layout = phase_layout(study, phase)
        values = np.full(layout.size, 0.25, np.float32)
        if phase == "evaluate":
            values[:] = [self.rows.deaths / 61, self.rows.deaths]
        return pack(layout, values)

    def _words(self) -> str:
        return f"{self.table}: {', '.join(self.rows.names)}, {self.rows.deaths} died"


@pytest.fixture
def settings(site_file: Path, pki: Pki) -> SiteSettings:
    site_file.write_text(site_file.read_text() + POLICY)
    return pki.people.sign_charter(load_settings(site_file))


@pytest.fixture
def trainer(tmp_path: Path) -> Ward:
    return Ward(tmp_path / "heart.csv")


def judge(peer: WatchingPeer, number: int) -> tuple[Given, Given]:
    task = peer.first_task(STUDY, number)
    return peer.request(task), peer.request(replace(task, phase="evaluate"))


def fixed(given: Given, pki: Pki) -> dict[str, Any]:
    """Return what a receipt says that no patient may change."""
    receipt = open_signed(Signed.from_bytes(given.receipt), Receipt, pki.signing.public)
    return {k: v for k, v in receipt.model_dump().items() if k not in _PUBLIC}


def texts(rows: Patients, table: Path) -> list[str]:
    """Return every text that must not leave: cells, the path, the words of an exception."""
    return [*rows.names, str(table), str(table.parent), "died", "Traceback", "KeyError", "dupont"]


def test_no_patient_changes_what_is_public_and_none_is_told(
    agent: Agent,
    peer: WatchingPeer,
    approve: Callable[[Agent, Study], Study],
    trainer: Ward,
    pki: Pki,
) -> None:
    approve(agent, STUDY)
    usual = [fixed(given, pki) for given in judge(peer, next(ROUNDS))]

    @budget(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(patients)
    def holds(rows: Patients) -> None:
        trainer.rows = rows
        peer.received.clear()
        told = judge(peer, next(ROUNDS))
        for given_now, expected in zip(told, usual, strict=True):
            if given_now.receipt:
                assert fixed(given_now, pki) == expected
        codes = {given_now.fields["code"] for given_now in told}
        assert codes <= expected_codes(rows)
        for update in (given_now.fields["update"] for given_now in told[1:]):
            if update:
                values = np.frombuffer(peer.uploads[update][-8:], "<f4")
                assert not ((np.abs(values) >= 1) & (np.abs(values) <= 10)).any()
        left = b"".join(data for _, data in peer.received)
        plain = left.decode("latin-1") + json.dumps(left.decode("latin-1"))
        for text in texts(rows, trainer.table):
            assert text not in plain
            assert text.encode().decode("latin-1") not in plain

    holds()


def expected_codes(rows: Patients) -> set[str]:
    """Return the codes that may be seen; which one depends on no row but on what failed."""
    if rows.trouble in ("load", "few"):
        return {"site-not-ready", "phase-too-early"}
    if rows.trouble in ("code", "crash"):
        return {"", "node-failed"}
    if rows.trouble == "train":
        return {"", "trainer-failed"}
    return {"", "site-not-ready"} if 0 < rows.deaths < 11 else {""}
