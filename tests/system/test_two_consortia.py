"""One hospital, two consortia, each with a coordinator of its own: one dataset, one budget."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from larrey_client.ledger_pages import ledger_view
from larrey_client.local import ask
from larrey_client.store import open_readonly
from larrey_lab.federation import paperwork
from larrey_lab.federation.paperwork import SiteDesk
from larrey_lab.federation.processes import Federation
from larrey_lab.federation.workspace import SitePlan, Workspace, create_workspace
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.study import Study
from larrey_server.operator import Operator
from larrey_server.settings import load_operator
from larrey_server.trail import read_trail, reconcile
from tests.system.hospitals import DATASET, PRIVATE, Facts, make_study, table, until

pytestmark = pytest.mark.system
SITE = "alpha"
ROUNDS = 3
BUDGET = 1.05  # enough for two such studies and not for three


@dataclass(frozen=True)
class Consortium:
    """One coordinator and its operator; the node and its people are those of the hospital."""

    federation: Federation
    desk: SiteDesk
    number: int

    @property
    def membership(self) -> str:
        return ("first", "north")[self.number - 1]

    def study(self, name: str) -> Study:
        head = {"name": name, "title": "A test", "question": "Does it hold?"}
        changes: dict[str, Any] = {
            "study": head | {"purpose": "statistics", "permit": f"test/{self.number}"},
            "training": {"rounds": ROUNDS, "spare_rounds": 0, "learning_rate": 1.0},
            "privacy": PRIVATE,
            "rounds": {"quorum": 1, "deadline_s": 60.0},
            "sites": [{"name": SITE, "patients": 25}],
        }
        return make_study(name, **changes)

    def operator(self) -> Operator:
        return Operator(load_operator(self.federation.workspace.operator))

    def propose(self, study: Study) -> None:
        """Let the consortium sign; the hospital hears of it and signs nothing yet."""
        with self.operator() as operator:
            paperwork.propose(self.federation.workspace, operator, study)

    def order(self, study: Study, verb: str) -> None:
        with self.operator() as operator:
            operator.command(study.digest, verb)

    def audit(self) -> list[Facts]:
        """Return what the coordinator says of itself."""
        with self.operator() as operator:
            return list(operator.audit())

    def records(self) -> list[Facts]:
        return [said["record"] for said in self.audit() if "record" in said]


@dataclass(frozen=True)
class Hospital:
    """The node that is a member of both."""

    ours: Consortium
    theirs: Consortium

    def budget(self) -> Facts:
        """Return the dataset's budget as the ledger on disk has it."""
        settings = self.ours.desk.settings
        connection = open_readonly(settings.site.state)
        try:
            (view,) = ledger_view(connection, settings)
            return view
        finally:
            connection.close()

    def trail(self, membership: str) -> Facts:
        """Return what the hospital exports for one coordinator."""
        state = self.ours.desk.settings.site.state
        exported: Facts = ask(state, "audit export", membership=membership)
        return exported

    def until(self, fact: str, value: str) -> None:
        """Wait until every study of both is so."""
        with self.ours.operator() as ours, self.theirs.operator() as theirs:
            until(lambda: {one[fact] for one in (*ours.list(), *theirs.list())} == {value})


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("two")
    data = folder / "cohort.csv"
    data.write_text(table(0))
    plan = SitePlan(SITE, data, DATASET, BUDGET, unit="pid", policy={"min_units": 20})
    first, second = (create_workspace(folder / name, [plan]) for name in ("south", "north"))
    _join(first, second)
    desk = SiteDesk.of(first, SITE)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(Federation(one)) for one in (first, second))
        for one in (ours, theirs):
            one.start_coordinator()
        ours.start_sites()
        yield Hospital(Consortium(ours, desk, 1), Consortium(theirs, desk, 2))


def _join(first: Workspace, second: Workspace) -> None:
    """Make the first one's node a member of the second federation, as `larrey-site join` does."""
    home, other = first.site(SITE).parent, second.site(SITE).parent
    for name in ("tls.crt", "tls.key", "ca.crt"):
        shutil.copy(other / name, home / f"north-{name}")
    shutil.copy(home / "signing.ed25519", other / "signing.ed25519")
    settings = _table(home / "site.toml")
    settings["memberships"] = [
        {
            "name": "north",
            "coordinator": {"address": second.address, "authority": "north-ca.crt"},
            "identity": {"certificate": "north-tls.crt", "key": "north-tls.key"},
            "consortium": {"key": SigningKey.load(second.root_key).public},
        }
    ]
    (home / "site.toml").write_text(tomli_w.dumps(settings))
    coordinator = _table(second.coordinator)
    coordinator["sites"][0]["key"] = SigningKey.load(home / "signing.ed25519").public
    second.coordinator.write_text(tomli_w.dumps(coordinator))


def _table(path: Path) -> Facts:
    return tomllib.loads(path.read_text())


def test_studies_of_two_coordinators_run_at_once_on_one_budget_and_a_third_is_refused(
    hospital: Hospital,
) -> None:
    ours, theirs = hospital.ours, hospital.theirs
    first, second, third = ours.study("ours"), theirs.study("theirs"), theirs.study("third")
    for side, study in ((ours, first), (theirs, second)):
        side.propose(study)
        side.desk.approve(study)
        side.order(study, "launch")
        side.order(study, "pause")  # after its first round
    hospital.until("state", "paused")
    used = {one["study"]: one["rounds_used"] for one in hospital.budget()["studies"]}
    assert used == {first.digest: 1, second.digest: 1}  # both are under way
    for side, study in ((ours, first), (theirs, second)):
        side.order(study, "resume")
    hospital.until("outcome", "COMPLETE")
    budget = hospital.budget()
    shares = [one["used_share"] for one in budget["studies"]]
    assert [one["rounds_used"] for one in budget["studies"]] == [ROUNDS, ROUNDS]
    assert budget["used_share"] == pytest.approx(sum(shares))
    assert budget["epsilon_spent"] <= BUDGET
    theirs.propose(third)
    with pytest.raises(LarreyError) as caught:
        theirs.desk.approve(third)
    assert caught.value.code == "budget-exhausted"
    for side, study, other in ((ours, first, second), (theirs, second, first)):
        assert {record["study"] for record in side.records()} >= {study.digest}
        assert other.digest not in str(side.records())
        assert reconcile(read_trail(side.audit()), hospital.trail(side.membership)) == []
