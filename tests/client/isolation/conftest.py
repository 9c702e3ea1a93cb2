"""A site's folder with keys, state and rows in one place, and trainers of the probing apps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from larrey_client.frames import memory_file, seal
from larrey_client.run import start_trainer
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.trainer_link import TrainerLink, TrainTask
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack

LIMIT_S = 60.0
CONTRACT = {
    "contract": {"name": "toy", "version": "1.0.0"},
    "unit": {"column": "pid", "min_count": 4},
    "label": {"column": "y", "positive": ["1"], "negative": ["0"]},
    "columns": [{"name": "x", "kind": "number", "range": [0, 100], "missing_max": 0.0}],
}


@dataclass(frozen=True)
class Place:
    """A site on disk and its running trainer."""

    config: Path
    settings: SiteSettings
    link: TrainerLink

    @property
    def rows(self) -> Path:
        return self.config.parent / "cohort.csv"

    def load(self, app: str) -> Study:
        """Return the study of one of the probing apps, loaded."""
        study = toy_study(app)
        self.link.load(study, site="alpha", data=self.rows, app=f"probing_apps:{app}")
        return study

    def train(self, study: Study, number: int = 1) -> float:
        """Return what the app adds to the model's first parameter in round ``number``."""
        layout = model_layout(study)
        model = seal(memory_file("model", [pack(layout, np.zeros(layout.size, np.float32))]))
        task = TrainTask(study.digest, number, "train", "alpha")
        with open(model, "rb") as file:
            update = self.link.train(task, file.fileno(), timeout_s=LIMIT_S)
        with open(update, "rb") as file:
            data = os.pread(file.fileno(), layout.nbytes, 0)
        return float(np.frombuffer(data, "<f4", offset=len(layout.header))[0])


def toy_study(app: str) -> Study:
    file = {
        "study": {
            "name": "toy",
            "permit": "test/1",
            "title": "Toy",
            "question": "Why?",
            "purpose": "statistics",
        },
        "model": {"name": "logistic"},
        "training": {"rounds": 2, "learning_rate": 0.7, "app": app},
        "privacy": {"mechanism": "none"},
        "rounds": {"quorum": 1},
        "sites": [{"name": "alpha", "patients": 12}],
    }
    return Study.model_validate({"file": file, "contract": CONTRACT})


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of apps of this test's own, on the trainer's import path."""
    folder = tmp_path / "apps"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "apps" / "probing_apps.py", folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def make_place(tmp_path: Path, apps: Path) -> Iterator[Callable[..., Place]]:
    """Return a maker of the place; ``trainer`` replaces entries of its settings."""
    links: list[TrainerLink] = []

    def make(**trainer: object) -> Place:
        data = tmp_path / "rows.csv"
        data.write_text("pid,x,y\n" + "".join(f"{i},{i},{i % 2}\n" for i in range(12)))
        space = create_workspace(tmp_path / "space", [SitePlan("alpha", data, "cohort")])
        config = space.site("alpha")
        settings = load_settings(config)
        settings.site.state.mkdir(exist_ok=True)
        (settings.site.state / "larrey.db").write_text("secret")
        settings = settings.model_copy(
            update={"trainer": settings.trainer.model_copy(update=trainer)}
        )
        links.append(start_trainer(settings, warm=False))
        return Place(config, settings, links[-1])

    yield make
    for link in links:
        link.stop()


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()
