"""`larrey-site study personalise`: a person has a model of the site's own trained, which stays.

Only after the study ended, under the same approval, permit and policy as a round, and while nobody
stopped the study. The trainer does it in its confinement. Model and scores lie in
``personal/<study>`` of the state folder, mode 0600, until the study is closed; no message names
them, neither does the receipt of the deletion. The audit trail has who did it, and when.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from larrey_client.gate import decide_personal
from larrey_client.gate_facts import Refuse, StudyCase, TaskCase
from larrey_client.loading import load_rows
from larrey_client.node import Node
from larrey_client.task import TRAIN, Task
from larrey_client.trainer_link import PersonalTask
from larrey_protocol.disk import disk_errors
from larrey_protocol.envelope import check_update
from larrey_protocol.errors import LarreyError, Refusal, UsageError
from larrey_protocol.models import model_layout

__all__ = ["FOLDER", "forget_personal", "personalise"]

Json = dict[str, Any]  # Any: JSON values are recursive
FOLDER = "personal"


def personalise(node: Node, study: str, request: Mapping[str, Any], actor: str) -> Json:
    """Train and keep the site's own model; return its scores and where it lies.

    Args:
        node: of the study's membership.
        study: digest.
        request: ``model``, path of the final model's file; ``lambda``, ``steps`` and
            ``learning_rate`` as text.
        actor: who asks, for the audit trail.

    Raises:
        Refusal: ``study-not-ended``, ``tensors-local``, or the code of the gate's rule.
        UsageError: ``personal-malformed`` or ``model-malformed``.
        LarreyError: as `larrey_client.loading.load_rows` and `TrainerLink.personalise`.
    """
    case = _allowed(node, study)
    if case.study.file.training.local or case.study.file.training.app:
        raise Refusal(
            "tensors-local",
            "the shared model is not whole: some tensors, or an app's own, are elsewhere",
            "The site's own model is the one that the study's rounds trained here.",
        )
    wish = _wish(case, node, request)
    dataset = node.settings.dataset(case.dataset)
    if dataset is None:
        raise Refusal("dataset-unknown", f"no dataset '{case.dataset}' in site.toml")
    final = _opened(Path(str(request["model"])), case)
    try:
        with node.trainer_turn.awaited(lambda: _allowed(node, study)):
            load_rows(node, case.study, dataset)
            own, scores = node.trainer.personalise(
                wish, final, timeout_s=node.settings.trainer.timeout_s
            )
    finally:
        os.close(final)
    try:
        check_update(own, model_layout(case.study), norm_bound=float("inf"))
        path = _keep(node.store.folder, study, own, scores | asdict(wish))
    finally:
        os.close(own)
    with node.store.transaction():
        node.store.audit("model-personalised", actor, study=study)
    return {"study": study, "path": str(path), **scores}


def forget_personal(folder: Path, study: str) -> None:
    """Remove what lies here of a study."""
    shutil.rmtree(_of(folder, study), ignore_errors=True)


def _allowed(node: Node, study: str) -> StudyCase:
    """Return the study's case if the gate lets its data be used once more."""
    ground, case = node.cases.of(study)
    standing = node.cases.standing(study)
    task = Task(study, 1, TRAIN, 0, "", 0, 0.0)
    decision = decide_personal(TaskCase(task, 1.0, ground, case, standing, None, False))
    if isinstance(decision, Refuse):
        raise Refusal(decision.code, decision.reason, decision.next_step)
    with node.store.reading() as records:
        has_ended = records.has_ended(study)
    if case is None or not has_ended:
        raise Refusal(
            "study-not-ended",
            "a model of this site's own is trained after the last shared round alone",
            "Wait until the study has ended.",
        )
    if node.opens_at:
        raise Refusal("site-not-ready", "training may not begin at this hour", "See [trainer].")
    return case


def _wish(case: StudyCase, node: Node, request: Mapping[str, Any]) -> PersonalTask:
    training = case.study.file.training
    try:
        lambda_, steps = float(request.get("lambda") or 0), int(request.get("steps") or 100)
        rate = float(request.get("learning_rate") or training.learning_rate)
    except ValueError as error:
        raise UsageError("personal-malformed", "expected three numbers", "See --help.") from error
    if not (0 <= lambda_ < 1e6 and 1 <= steps <= 1_000_000 and 0 < rate <= 1e4):
        raise UsageError(
            "personal-malformed",
            "lambda must be at least 0, steps 1 to 1000000, the learning rate above 0",
            "Correct it.",
        )
    return PersonalTask(case.study.digest, node.site, lambda_, steps, rate)


def _opened(path: Path, case: StudyCase) -> int:
    """Return a descriptor of a model's file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError("model-malformed", f"{path}: {error.strerror}", "Name it.") from error
    try:
        check_update(file, model_layout(case.study), norm_bound=float("inf"))
    except (LarreyError, OSError) as error:
        os.close(file)
        raise UsageError(
            "model-malformed",
            f"{path} is not a model of this study",
            "Ask the consortium: larrey study model STUDY --out FILE.",
        ) from error
    return file


def _keep(folder: Path, study: str, own: int, scores: Json) -> Path:
    """Write model and scores, whole or not at all; return the folder."""
    place = _of(folder, study)
    with disk_errors():
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        size = os.fstat(own).st_size
        for name, data in (
            ("model.safetensors", os.pread(own, size, 0)),
            ("scores.json", json.dumps(scores, indent=2).encode() + b"\n"),
        ):
            part = place / f"{name}.part"
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.replace(place / name)
    return place


def _of(folder: Path, study: str) -> Path:
    return folder / FOLDER / study.removeprefix("sha256:")
