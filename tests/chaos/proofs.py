"""What must hold after a study, whatever died in it: read from the disks, believed from nobody."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from larrey_client.settings import load_settings
from larrey_client.store import open_readonly
from larrey_client.views import verify_view
from larrey_lab.federation.workspace import Workspace
from larrey_privacy.ledger_store import Ledger
from larrey_protocol.keys import SigningKey
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from larrey_server.aggregation import average
from larrey_server.checkpoints import Checkpoints
from larrey_server.contributions import averaging
from larrey_server.journal import Journal
from tests.chaos.apps.seeded_app import moved

_LOOK_EVERY_S = 0.002
_APPLYING = {"round-applied", "study-ended"}


@dataclass(frozen=True)
class Spent:
    """What a site's ledger and answers hold of one study.

    Attributes:
        reserved: how often each round was debited.
        answered: debits of each round that an answer belongs to.
        released: how often each round's update was signed for.
    """

    reserved: Counter[int]
    answered: Counter[int]
    released: Counter[int]

    @property
    def without_debit(self) -> int:
        """Return how many rounds left the site and were not debited."""
        return len(self.released - self.answered)


@contextmanager
def looking(workspace: Workspace) -> Iterator[Journal]:
    """Yield the coordinator's journal, to be read while it runs."""
    with closing(Journal.look(_database(workspace))) as found:
        yield found


def applied(workspace: Workspace, study: str) -> int:
    """Return how many rounds of a study are applied."""
    with looking(workspace) as journal:
        kept = journal.snapshot(study)
    return int(kept["applied"]) if kept else 0


def final_model(workspace: Workspace, study: str) -> str:
    """Return the digest of the newest model on record."""
    with looking(workspace) as journal:
        return journal.models(study)[-1][1]


def times_applied(workspace: Workspace, study: str) -> list[int]:
    """Return the number of each round in the order in which the journal applied them.

    The trail, verified here, must tell of as many; its last one is the study's end.
    """
    with looking(workspace) as journal:
        journal.verify()
        steps = [r for r in journal.audit() if r.study == study and r.action in _APPLYING]
    with closing(sqlite3.connect(f"{_database(workspace).as_uri()}?mode=ro", uri=True)) as facts:
        sql = "SELECT snapshot ->> '$.applied' FROM transitions WHERE study = ? ORDER BY seq"
        numbers = [int(number) for (number,) in facts.execute(sql, (study,))]
    found = [after for before, after in pairwise(numbers) if after != before]
    assert len(steps) == len(found), steps
    return found


def spent(workspace: Workspace, site: str, study: str) -> Spent:
    """Return what a site's disk says of a study, after verifying every chain and receipt there."""
    settings = load_settings(workspace.site(site))
    with closing(open_readonly(settings.site.state)) as connection:
        key = SigningKey.load(settings.identity.signing_key).public
        assert verify_view(connection, key)["is_intact"]
        ledger = Ledger.open(connection)
        holds = [ledger.held(family, study) for family in ledger.datasets()]
        reservations = [one for hold in holds if hold for one in hold.reservations]
        sql = "SELECT round FROM answers WHERE study = ? AND phase = 'train'"
        answers = connection.execute(sql, (study,)).fetchall()
    return Spent(
        Counter(one.round for one in reservations),
        Counter(one.round for one in reservations if one.output_digest),
        Counter(number for (number,) in answers),
    )


def replayed(workspace: Workspace, study: Study, updates: Path, folder: Path) -> dict[int, str]:
    """Return by round the digest of the model that the contributions on record make.

    Args:
        workspace: whose journal is read.
        study: what ran.
        updates: a folder with every update under the digits of its digest.
        folder: an empty one, where the models are made.
    """
    with looking(workspace) as journal:
        cells = [row.cell for row in journal.contributions(study.digest)]
    models = Checkpoints(folder, study)
    made = {0: models.begin()}
    for number in range(1, study.file.training.rounds + 1):
        counted = {
            c.site: c.update for c in cells if (c.round, c.outcome) == (number, "contributed")
        }
        order = averaging(
            study,
            number,
            tuple((site, counted[site]) for site in study.file.site_names if site in counted),
            checkpoints=models,
            path=lambda digest: updates / digest.removeprefix("sha256:"),
        )
        made[number] = average(order)
    return made


def undisturbed(study: Study, folder: Path) -> str:
    """Return the digest of the model that the seeded app makes where nothing ever goes wrong.

    Made here, in one process, without a coordinator and without sites.
    """
    everybody = study.file.site_names
    return made_by(
        study, dict.fromkeys(range(1, study.file.training.rounds + 1), everybody), folder
    )


def made_by(study: Study, contributors: Mapping[int, Collection[str]], folder: Path) -> str:
    """Return the digest of the model that the seeded app makes with these sites in each round."""
    models = Checkpoints(folder, study)
    digest, layout = models.begin(), models.layout
    for number in sorted(contributors):
        header = len(layout.header)
        start = layout.views(np.fromfile(models.model(number - 1), "<f4", offset=header))
        present = [site for site in study.file.site_names if site in contributors[number]]
        for name in present:
            site = study.file.site_names.index(name)
            steps = [new - old for new, old in zip(moved(start, site, number), start, strict=True)]
            (folder / name).write_bytes(pack(layout, np.concatenate([s.ravel() for s in steps])))
        order = averaging(
            study,
            number,
            tuple((name, name) for name in present),
            checkpoints=models,
            path=lambda name: folder / name,
        )
        digest = average(order)
    return digest


def recorded(workspace: Workspace, study: str) -> dict[int, str]:
    """Return by round the digest of the model that the journal names."""
    with looking(workspace) as journal:
        return dict(journal.models(study))


@contextmanager
def set_aside(spool: Path, folder: Path) -> Iterator[Path]:
    """Keep every whole blob of a spool in ``folder``, whatever its owner drops; yield it."""
    folder.mkdir()
    ended = threading.Event()

    def link_all() -> None:
        for path in spool.iterdir():
            if not path.suffix and not (folder / path.name).exists():
                with suppress(FileNotFoundError, FileExistsError):
                    os.link(path, folder / path.name)

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            link_all()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield folder
    finally:
        ended.set()
        watcher.join()


def _database(workspace: Workspace) -> Path:
    return workspace.coordinator.parent / "state" / "coordinator.db"
