"""What a study costs, and which installed file an app is."""

from __future__ import annotations

from pathlib import Path

import pytest

from larrey_client.cost import app_digest, round_mechanism, study_facts, total_mechanism
from larrey_privacy.mechanism import UNBOUNDED, Mechanism
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.models import model_layout
from tests.protocol.samples import study as make_study


def test_all_rounds_cost_what_rounds_and_spare_rounds_do() -> None:
    study = make_study(training__rounds=5, training__spare_rounds=2, training__local_steps=3)
    one, total = round_mechanism(study), total_mechanism(study)
    assert isinstance(one, Mechanism)
    assert isinstance(total, Mechanism)
    assert (one.steps, total.steps, one.noise_multiplier) == (3, 21, 4.0)


def test_a_round_costs_every_noised_step_of_the_study() -> None:
    study = make_study(training__local_steps=5, privacy__sampling_rate=0.25)
    assert round_mechanism(study) == Mechanism(4.0, 0.25, 5, model_layout(study).size)


def test_a_study_without_privacy_has_no_epsilon() -> None:
    study = make_study(privacy={"mechanism": "none"})
    assert total_mechanism(study) == UNBOUNDED
    assert study_facts(study, None).epsilon == -1.0


def test_an_unknown_strategy_is_a_fact_with_its_code() -> None:
    assert study_facts(make_study(training__strategy="fedbest"), None).strategy_code


def test_a_mechanism_the_accountant_refuses_is_a_fact_with_its_code() -> None:
    facts = study_facts(make_study(privacy__noise_multiplier=0.15), None)
    assert facts.mechanism_code == "mechanism-unaccounted"


def test_an_app_is_found_by_its_file_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "heartapp"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "train.py").write_text("app = 1\n")
    (tmp_path / "single.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert app_digest("heartapp.train:app") == digest_bytes(b"app = 1\n")
    assert app_digest("single:app") == digest_bytes(b"raise RuntimeError('imported')\n")
    assert app_digest("heartapp.missing:app") == ""
    assert app_digest("no_such_package:app") == ""
