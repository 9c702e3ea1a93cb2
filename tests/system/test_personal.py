"""A hospital trains a model of its own after a study: only then, and nothing of it leaves."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from larrey_client.egress_log import open_log
from larrey_client.settings import load_settings
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import LarreyError, UsageError
from larrey_protocol.models import initial_parameters, model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.system.hospitals import PRIVATE, PRIVATE_TRAINING, Hospitals, make_study, until

pytestmark = pytest.mark.system


def refused(hospitals: Hospitals, study: Study, **wish: str) -> str:
    with pytest.raises(LarreyError) as error:
        hospitals.ask("alpha", "study personalise", study=study.digest, **wish)
    return error.value.code


def test_a_model_of_the_sites_own_is_trained_after_the_study_and_stays(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    study = make_study("own-model", training=PRIVATE_TRAINING, privacy=PRIVATE)
    path = tmp_path / "final.safetensors"
    path.write_bytes(pack(model_layout(study), initial_parameters(study)))
    hospitals.propose(study)
    assert refused(hospitals, study, model=str(path)) == "not-launched"
    with hospitals.operator() as operator:
        operator.launch(study.digest)
    hospitals.finish(study.digest)
    state = load_settings(hospitals.config("alpha")).site.state
    until(lambda: listed(hospitals, study) == "ended")
    final = hospitals.model(study, study.file.training.rounds, tmp_path)
    path.write_bytes(pack(model_layout(study), final))
    assert refused(hospitals, study, model=str(tmp_path / "none")) == "model-malformed"
    assert refused(hospitals, study, model=str(path), steps="0") == "personal-malformed"

    told = hospitals.ask(
        "alpha", "study personalise", study=study.digest, model=str(path),
        **{"lambda": "0.01", "steps": "60", "learning_rate": "1.0"},
    )  # fmt: skip
    folder = state / "personal" / study.digest[7:]
    assert Path(told["path"]) == folder
    written = (folder / "model.safetensors").read_bytes()
    own = np.frombuffer(written, "<f4", offset=len(model_layout(study).header))
    assert np.abs(own - final).max() > 0.05
    scores = json.loads((folder / "scores.json").read_text())
    assert (scores["lambda_"], scores["steps"]) == (0.01, 60)
    assert "own" not in told  # the contract keeps no rows to score it on
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}

    secrets = [written[-8:], digest_bytes(written).encode()[7:], b"personal"]
    assert not [sent for sent in left(state) if any(secret in sent for secret in secrets)]
    receipt = hospitals.ask("alpha", "study close", study=study.digest)
    assert not folder.exists()
    told_of_it = [json.dumps(receipt).encode(), *left(state)]
    assert not [sent for sent in told_of_it if any(secret in sent for secret in secrets)]


def left(state: Path) -> list[bytes]:
    """Return every message that left and what is kept of its payload."""
    log = open_log(state)
    found = []
    for message in log.messages():
        found.append(json.dumps(message).encode())
        with contextlib.suppress(UsageError):  # the payloads of a closed study are gone
            found.append(log.payload(message["digest"]))
    assert len(found) > 4
    return found


def listed(hospitals: Hospitals, study: Study) -> str:
    lines = hospitals.ask("alpha", "study list")
    return str(next(line["state"] for line in lines if line["digest"] == study.digest))


def test_a_study_that_still_runs_gives_no_model_of_a_sites_own(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    study, path = make_study("still-running"), tmp_path / "model"
    path.write_bytes(pack(model_layout(study), initial_parameters(study)))
    hospitals.hold("alpha")
    hospitals.launch(study)
    # The order to launch reaches the site a moment after the coordinator.
    until(lambda: refused(hospitals, study, model=str(path)) == "study-not-ended")
    hospitals.release("alpha")
    hospitals.finish(study.digest)
