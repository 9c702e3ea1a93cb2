"""What a study asks of each site, told before anybody signs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from larrey_protocol.models import initial_parameters, model_layout, phase_layout
from larrey_protocol.tensors import pack
from larrey_server.cli import main
from larrey_server.study_plan import plan_words, traffic_of
from tests.protocol.samples import study

HEART = Path(__file__).resolve().parents[2] / "examples" / "heart" / "study.toml"


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_the_bytes_are_those_of_the_files_that_travel(encoding: str) -> None:
    made = study(training__encoding=encoding)
    traffic, flat = traffic_of(made), initial_parameters(made)
    assert traffic.down == len(pack(model_layout(made), flat))
    assert traffic.up == len(pack(phase_layout(made, "train"), flat))
    assert traffic.attempts == made.file.training.rounds + made.file.training.spare_rounds


def test_metrics_of_a_standard_app_count_as_well() -> None:
    calls = {"training__calls": ["train", "evaluate"], "training__metrics": ["loss"]}
    none = {"privacy": {"mechanism": "none"}, "training__app": "std"}
    called, plain = study(**none, **calls), study(**none)
    more = phase_layout(called, "evaluate").nbytes
    assert traffic_of(called).up == traffic_of(plain).up + more


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("float32", "nothing is rounded"),
        ("float16", "float16, off by at most 0.00049 of the largest of each 4096 values"),
        ("int8", "int8, off by at most 0.0039 of the largest of each 4096 values"),
    ],
)
def test_the_encoding_s_error_is_told(encoding: str, words: str) -> None:
    assert words in plan_words(study(training__encoding=encoding))["encoding"]


def test_required_sites_and_the_deadline_s_meaning_are_told() -> None:
    words = plan_words(study(rounds__required=["beta"], rounds__deadline_s=100.0))
    assert words["a round is applied"].endswith("with beta")
    assert "3 times what it usually takes and 5 s; 100 s while" in words["a site's deadline"]


def test_plan_and_check_print_it_offline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "plan", str(HEART)]) == 0
    assert "spare rounds" in capsys.readouterr().out
    assert main(["study", "plan", str(HEART), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == "6"
    assert main(["study", "check", str(HEART), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["bytes_down"], facts["bytes_up"]) == (260, 260)
