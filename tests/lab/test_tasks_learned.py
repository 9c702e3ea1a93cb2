"""Every task from table to score: a simulated study learns it, with differential privacy too."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from larrey_client.data.cohort import load_cohort
from larrey_lab.rehearsal import federate, outputs, study_alone, without_privacy
from larrey_lab.scores import measures, probabilities
from larrey_lab.simulation.data import simulated
from larrey_lab.simulation.partition import Partition
from larrey_lab.simulation.run import simulate
from larrey_lab.tables import write_csv
from larrey_protocol.contract import Contract
from larrey_protocol.errors import DataError, Refusal
from larrey_protocol.study import Study, load_study
from larrey_server.cli import main

STUDY = """
[study]
name = "task"
title = "A task on synthetic rows"
question = "Is it learned?"
purpose = "scientific-research"
permit = "test/1"
[model]
name = "MODEL"
[training]
rounds = 15
spare_rounds = 0
local_steps = 2
learning_rate = 0.7
[privacy]
mechanism = "dp-sgd"
epsilon = 20.0
delta = 1e-4
noise_multiplier = 2.0
clip = 1.0
sampling_rate = 1.0
[rounds]
quorum = 1
[[sites]]
name = "alpha"
patients = 400
[[sites]]
name = "beta"
patients = 400
"""
CONTRACT = """
[contract]
name = "task"
version = "1.0.0"
[unit]
column = "pid"
[label]
LABEL
[[columns]]
name = "a"
kind = "number"
range = [-9, 9]
missing_max = 0
[[columns]]
name = "b"
kind = "number"
range = [-9, 9]
missing_max = 0
"""
LABELS = {
    "binary": 'column = "ill"\npositive = ["yes"]\nnegative = ["no"]\nmin_count = 20',
    "class": 'kind = "class"\ncolumn = "stage"\nmin_count = 20\nclasses = [\n'
    '  {name = "low", texts = ["I"]},\n  {name = "mid", texts = ["II"]},\n'
    '  {name = "high", texts = ["III", "IV"]},\n]',
    "number": 'kind = "number"\ncolumn = "stay"\nunit = "d"\nrange = [0, 90]\ncenter = 20\n'
    "scale = 10",
    "huber": 'kind = "number"\ncolumn = "stay"\nunit = "d"\nrange = [0, 90]\ncenter = 20\n'
    'scale = 10\nloss = "huber"',
    "survival": 'kind = "survival"\ntime = "days"\nevent = "died"\nevents = ["1"]\n'
    'censored = ["0"]\nunit = "d"\nedges = [30, 90, 180, 365]\nmin_count = 20',
}


def rows_of(patients: int = 800) -> list[dict[str, str]]:
    """Synthetic patients whose every outcome follows ``a - b``."""
    random = np.random.default_rng(6)
    rows = []
    for number in range(patients):
        a, b = random.normal(size=2).clip(-4, 4)
        risk = a - b
        days, lost = random.exponential(200 * math.exp(-risk)), random.uniform(0, 600)
        noisy = risk + random.normal() / 2
        rows.append(
            {
                "pid": f"p{number}",
                "a": f"{a:.4f}",
                "b": f"{b:.4f}",
                "ill": "yes" if noisy > 0.5 else "no",
                "stage": ("I", "II", "III")[int(np.searchsorted([-0.7, 0.7], noisy))],
                "stay": f"{min(90, max(0, 25 + 8 * noisy)):.1f}",
                "days": f"{min(days, lost):.0f}",
                "died": str(int(days < lost)),
            }
        )
    return rows


def study_of(folder, label: str, model: str = "logistic") -> Study:
    named = f'{model}"\nhidden = [8]\nseed = 3 # "' if model == "mlp" else model
    (folder / "study.toml").write_text(STUDY.replace("MODEL", named), encoding="utf-8")
    (folder / "contract.toml").write_text(CONTRACT.replace("LABEL", label), encoding="utf-8")
    return load_study(folder / "study.toml")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "table.csv"
    rows = rows_of()
    write_csv(path, list(rows[0]), rows)
    return path


# What a model that knows nothing would score, and what is asked for.
ASKED = {
    "binary": (0.5, 0.94),
    "class": (0.5, 0.91),
    "number": (11.0, 3.8),
    "huber": (11.0, 3.8),
    "survival": (0.5, 0.78),
}


@pytest.mark.parametrize("is_private", [True, False])
@pytest.mark.parametrize("kind", LABELS)
def test_a_study_learns_its_task(tmp_path, table, kind, is_private):
    study = study_of(tmp_path, LABELS[kind])
    if not is_private:
        study = without_privacy(study)
    cohorts = {"all": load_cohort(table, study.contract)}
    outcome = simulate(simulated(study, cohorts, Partition("dirichlet", 5.0), sites=2))
    nothing, asked = ASKED[kind]
    assert (outcome.final.value > asked) == (asked > nothing)
    assert outcome.final.low < outcome.final.value < outcome.final.high


def test_hidden_layers_learn_times_too(tmp_path, table):
    study = without_privacy(study_of(tmp_path, LABELS["survival"], "mlp"))
    cohorts = {"all": load_cohort(table, study.contract)}
    outcome = simulate(simulated(study, cohorts, Partition("iid"), sites=2))
    assert outcome.final.value > 0.7


@pytest.mark.parametrize("kind", ["class", "number", "survival"])
def test_the_report_tells_the_scores_of_its_task(tmp_path, table, kind, capsys):
    study = study_of(tmp_path, LABELS[kind])
    words = ["--data", str(table), "--sites", "2", "--out", str(tmp_path / "out"), "--json"]
    assert main(["study", "simulate", str(tmp_path / "study.toml"), *words]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    first, *others = measures(study.contract.label)
    assert (facts["task"], facts["measure"], facts["measure_unit"]) == (
        kind,
        first.name,
        first.unit,
    )
    assert list(facts["other_scores"]) == [measure.name for measure in others]
    assert f"{first.name}{' in d' if first.unit else ''} {facts['score']['value']:.3f}" in err
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(measure.name in page for measure in (first, *others))
    assert "AUC" not in page.replace("macro AUC", "")


def test_a_site_gets_its_own_score_where_there_are_enough_patients(tmp_path, table):
    study = without_privacy(study_of(tmp_path, LABELS["class"]))
    whole = rows_of()
    for site, rows in (("alpha", whole[:770]), ("beta", whole[770:])):
        write_csv(tmp_path / f"{site}.csv", list(rows[0]), rows)
    lenient = study.contract.label.model_copy(update={"min_count": 0})
    contract = study.contract.model_copy(update={"label": lenient})
    study = study.model_copy(update={"contract": contract})
    cohorts = {s: load_cohort(tmp_path / f"{s}.csv", contract) for s in ("alpha", "beta")}
    outcome = simulate(simulated(study, cohorts, Partition("natural")))
    assert outcome.by_site["alpha"] > 0.8
    assert outcome.by_site["beta"] is None


def test_outcomes_that_are_all_alike_cannot_be_judged(tmp_path, table):
    contract = study_of(tmp_path, LABELS["survival"]).contract
    rows = [row | {"died": "0"} for row in rows_of(60)]
    write_csv(tmp_path / "all.csv", list(rows[0]), rows)
    label = contract.label.model_copy(update={"min_count": 0})
    study = study_of(tmp_path, LABELS["survival"]).model_copy(
        update={"contract": contract.model_copy(update={"label": label})}
    )
    cohorts = {"all": load_cohort(tmp_path / "all.csv", study.contract)}
    with pytest.raises(DataError, match="concordance") as refused:
        simulated(study, cohorts, Partition("iid"), sites=2)
    assert refused.value.code == "one-class"


def test_a_study_of_cox_is_refused_before_anybody_signs(tmp_path, table, capsys):
    study_of(tmp_path, LABELS["survival"] + '\nloss = "cox"')
    assert main(["study", "check", str(tmp_path / "study.toml")]) != 0
    err = capsys.readouterr().err
    assert "loss-couples-patients" in err
    assert "all others of the batch" in err
    assert "discrete-time" in err
    study = load_study(tmp_path / "study.toml")
    what = simulated(study, {"all": load_cohort(table, study.contract)}, Partition("iid"), sites=2)
    with pytest.raises(Refusal, match="batch"):
        simulate(what)


def test_the_contract_of_a_task_survives_its_journey_to_the_site(tmp_path):
    for label in LABELS.values():
        contract = study_of(tmp_path, label).contract
        assert Contract.model_validate_json(contract.model_dump_json(by_alias=True)) == contract


def fitted(study, cohort):
    """Return the outputs on its own rows after many steps without privacy, at one site alone."""
    plain = without_privacy(study_alone(study, "alpha"), rounds=10)
    longer = plain.file.training.model_copy(update={"local_steps": 120, "learning_rate": 1.0})
    file = plain.file.model_copy(update={"training": longer})
    last = federate(Study(file=file, contract=study.contract), {"alpha": cohort})[-1]
    return outputs(study, last, cohort.features)


def test_without_privacy_each_task_reaches_the_optimum_of_scikit_learn(tmp_path, table):
    """Hazards of a linear model are one logistic regression an interval, of those still there."""
    found, cohorts = {}, {}
    for kind in ("class", "number", "survival"):
        study = study_of(tmp_path, LABELS[kind])
        sites = tuple(site.model_copy(update={"patients": 800}) for site in study.file.sites)
        study = study.model_copy(update={"file": study.file.model_copy(update={"sites": sites})})
        cohorts[kind] = load_cohort(table, study.contract)
        found[kind] = fitted(study, cohorts[kind])
    x = cohorts["class"].features
    free = {"C": np.inf, "max_iter": 1000}
    classes = LogisticRegression(**free).fit(x, cohorts["class"].label)
    np.testing.assert_allclose(probabilities(found["class"]), classes.predict_proba(x), atol=0.01)
    line = LinearRegression().fit(x, cohorts["number"].label)
    np.testing.assert_allclose(found["number"][:, 0], line.predict(x), atol=1e-3)
    lived, event = np.divmod(cohorts["survival"].label, 2)
    for interval in range(4):
        here = (lived > interval) | ((lived == interval) & (event > 0))
        died = (lived == interval)[here]
        hazard = LogisticRegression(**free).fit(x[here], died)
        ours = probabilities(found["survival"][:, [interval]])[here, 1]
        np.testing.assert_allclose(ours, hazard.predict_proba(x[here])[:, 1], atol=0.02)
