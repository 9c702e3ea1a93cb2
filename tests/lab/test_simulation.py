"""`larrey study simulate`: the study file and the hospital's app, without servers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from larrey_lab.evaluation import auc
from larrey_lab.rehearsal import federate, outputs, own_models, without_privacy
from larrey_lab.simulation.cli import Bar
from larrey_lab.simulation.data import simulated
from larrey_lab.simulation.partition import Partition
from larrey_lab.simulation.run import simulate
from larrey_lab.tables import write_csv
from larrey_protocol.errors import Refusal
from larrey_server.cli import main

STUDY = Path(__file__).parents[2] / "examples" / "heart" / "study.toml"
NATURAL = Partition("natural")


def with_training(study, **update):
    training = study.file.training.model_copy(update=update)
    return study.model_copy(update={"file": study.file.model_copy(update={"training": training})})


def test_the_app_in_the_simulator_makes_the_models_of_the_rehearsal(study, cohorts):
    what = simulated(without_privacy(study), cohorts, NATURAL)
    models = federate(what.study, what.split.training)
    assert np.array_equal(simulate(what).model, models[-1])


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn", "mr-mtl"])
def test_what_a_site_keeps_is_the_same_in_messages_and_in_the_rehearsal(study, cohorts, strategy):
    parameters = {"feddyn": {"alpha": 0.1}, "mr-mtl": {"lambda": 0.1}}.get(strategy, {})
    plain = with_training(
        without_privacy(study), strategy=strategy, parameters=parameters, local_steps=3, rounds=3
    )
    what = simulated(plain, cohorts, NATURAL)
    models = federate(what.study, what.split.training)
    assert np.array_equal(simulate(what).model, models[-1])
    averaged = with_training(plain, strategy="fedavg", parameters={})
    assert not np.array_equal(federate(averaged, what.split.training)[-1], models[-1])


def test_updates_are_rounded_as_the_study_encodes_them(study, cohorts):
    exact = simulated(without_privacy(study), cohorts, NATURAL)
    rounded = simulated(with_training(exact.study, encoding="int8"), cohorts, NATURAL)
    gap = np.abs(simulate(exact).model - simulate(rounded).model).max()
    assert 0 < gap < 0.05


def test_dealt_sites_hold_every_training_patient_once(study, cohorts):
    natural = simulated(study, cohorts, NATURAL, seed=2)
    dealt = simulated(study, cohorts, Partition("dirichlet", 0.3), sites=12, seed=2)
    rows = [
        sorted(map(bytes, np.concatenate([c.features for c in part.split.training.values()])))
        for part in (natural, dealt)
    ]
    assert rows[0] == rows[1]
    assert np.array_equal(natural.split.held_out.features, dealt.split.held_out.features)
    assert len(dealt.study.file.sites) == 12
    sizes = [cohort.patients for cohort in dealt.split.training.values()]
    assert [site.patients for site in dealt.study.file.sites] == sizes


def run(tmp_path, *words: str, data: str = "heart") -> int:
    return main(
        ["study", "simulate", str(STUDY), "--data", data, "--out", str(tmp_path / "out"), *words]
    )


def test_a_simulation_leaves_a_page_and_the_same_facts_as_json(tmp_path, capsys):
    assert run(tmp_path, "--sites", "9", "--partition", "dirichlet:0.5", "--json") == 0
    out, err = capsys.readouterr()
    facts = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert json.loads(out) == facts
    assert facts["partition"] == "dirichlet:0.5"
    assert len(facts["sites"]) == len(facts["patients"]) == 9
    assert len(facts["score_by_round"]) == facts["rounds"] == 6
    assert facts["score"]["value"] > 0.75
    assert 0 < facts["epsilon"] < 1  # the claim also covers two spare rounds
    assert "public or synthetic data only" in err
    assert "█" not in err  # not a terminal
    page = (tmp_path / "out" / "report.html").read_text()
    assert "SIMULATED" in page
    assert "<script" not in page
    assert f"{facts['score']['value']:.3f}" in page


def test_a_folder_with_a_table_a_site_is_the_natural_partition(tmp_path, heart):
    tables = tmp_path / "tables"
    tables.mkdir()
    for site, rows in heart.sites.items():
        write_csv(tables / f"{site}.csv", heart.columns, rows)
    assert run(tmp_path, data=str(tables)) == 0
    facts = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert facts["partition"] == "natural"
    assert list(facts["score_by_site"]) == facts["sites"] == list(heart.sites)
    (tables / "va.csv").rename(tables / "vaa.csv")
    assert run(tmp_path, data=str(tables)) == 2


@pytest.mark.parametrize(
    ("words", "data", "code", "hint"),
    [
        ((), "haert", "missing-data", "'heart'"),
        (("--partition", "dirichelt:1"), "heart", "unknown-partition", "dirichlet:0.3"),
        (("--sites", "7", "--partition", "natural"), "heart", "partition-mismatch", "--partition"),
        (("--sites", "900"), "heart", "too-many-sites", "fewer"),
        (("--held-out", "1"), "heart", "invalid-share", "0.3"),
        (("--present", "0"), "heart", "invalid-share", "Correct"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_a_code(tmp_path, capsys, words, data, code, hint):
    assert run(tmp_path, *words, data=data) == 2
    err = capsys.readouterr().err
    assert code in err
    assert hint in err
    assert not (tmp_path / "out").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_that_ends_full():
    terminal = Terminal()
    bar = Bar(terminal)
    for done in range(1, 5001):
        bar(done, 5000)
    shown = terminal.getvalue()
    assert shown.count("\r") <= 101
    assert shown.endswith("100 %, 5000 of 5000 answers\n")
    assert "░" not in shown.rsplit("\r", 1)[1]


def test_a_combination_that_no_site_would_run_is_refused_here_too(study, cohorts):
    """Krum picks noise where each site adds its own."""
    words = {"strategy": "krum", "parameters": {"f": 0.0}}
    with pytest.raises(Refusal, match="noise") as refused:
        simulate(simulated(with_training(study, **words), cohorts, NATURAL))
    assert refused.value.code == "krum-under-noise"


@pytest.mark.parametrize(
    "words",
    [
        {"strategy": "mr-mtl", "parameters": {"lambda": 0.05}},
        {"local": ("0.bias",)},
    ],
)
def test_sites_with_models_of_their_own_have_scores_of_them(study, cohorts, words):
    plain = with_training(without_privacy(study), rounds=3, local_steps=3, **words)
    what = simulated(plain, cohorts, NATURAL)
    outcome = simulate(what)
    assert outcome.own_by_site.keys() == outcome.by_site.keys()
    owns = own_models(plain, what.split.training)
    held = what.split.held_out
    here = held.site == 0
    name = plain.file.site_names[0]
    score = outputs(plain, owns[name], held.features[here])[:, 0]
    assert outcome.own_by_site[name] == pytest.approx(auc(held.label[here], score))


def test_sites_that_remember_a_correction_alone_have_no_model_of_their_own(study, cohorts):
    plain = with_training(without_privacy(study), rounds=2, strategy="scaffold")
    assert simulate(simulated(plain, cohorts, NATURAL)).own_by_site == {}
