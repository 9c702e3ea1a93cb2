"""A site's folder with keys, state and rows in one place, and trainers of the probing apps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from larrey_client.frames import memory_file, seal
from larrey_client.run import start_trainer
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.trainer_link import TrainerLink, TrainTask
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.client.isolation.site_folder import write_site

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


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of apps of this module's own, on the trainers' import path."""
    folder = tmp_path_factory.mktemp("apps")
    shutil.copy(Path(__file__).parent / "apps" / "probing_apps.py", folder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder))
        yield folder


@contextmanager
def placed(folder: Path, **trainer: object) -> Iterator[Place]:
    """Give a place in a new folder; ``trainer`` replaces entries of its settings."""
    config = write_site(folder, {"name": "cohort", "path": "cohort.csv"})
    rows = "".join(f"{i},{i},{i % 2}\n" for i in range(12))
    (config.parent / "cohort.csv").write_text("pid,x,y\n" + rows)
    settings = load_settings(config)
    settings = settings.model_copy(update={"trainer": settings.trainer.model_copy(update=trainer)})
    link = start_trainer(settings, warm=False)
    try:
        yield Place(config, settings, link)
    finally:
        link.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, apps: Path) -> Iterator[Place]:
    """Return a place that tests leave as it was."""
    with placed(tmp_path_factory.mktemp("place") / "site") as made:
        yield made


@pytest.fixture
def make_place(tmp_path: Path, apps: Path) -> Iterator[Callable[..., Place]]:
    """Return a maker of a place of a test's own."""
    with ExitStack() as stack:
        yield lambda **trainer: stack.enter_context(placed(tmp_path / "site", **trainer))
