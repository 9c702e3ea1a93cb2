"""Every alert fires where it must and not where it must not, and tells a person what to do."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.operations.promql import ROOT, RULES, exported, rules, undeclared

ALERTS = rules("alert")
ALERTMANAGER = RULES / "alertmanager.yaml"


def tool(name):
    path = Path(os.environ.get(name.upper(), ROOT / ".tools" / name))
    if not path.exists():
        pytest.skip(f"needs {name}: run `make tools`")

    def run(*arguments):
        ran = subprocess.run(
            [path, *map(str, arguments)], cwd=RULES, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return run


@pytest.mark.parametrize("side", ["coordinator", "site"])
def test_every_alert_fires_and_stays_quiet_as_its_examples_say(side):
    promtool = tool("promtool")
    promtool("check", "rules", f"{side}.rules.yaml")
    promtool("test", "rules", f"{side}.tests.yaml")


@pytest.mark.parametrize("side", ["coordinator", "site"])
def test_every_alert_has_an_example_of_both(side):
    tests = yaml.safe_load((RULES / f"{side}.tests.yaml").read_text())["tests"]
    groups = yaml.safe_load((RULES / f"{side}.rules.yaml").read_text())["groups"]
    names = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    expected = [f"{name} {verb}" for name in names for verb in ("fires", "stays quiet")]
    assert [one["name"] for one in tests] == expected
    for one in tests:
        (query,) = one["promql_expr_test"]
        assert f'alertname="{one["name"].split()[0]}"' in query["expr"]
        assert bool(query["exp_samples"]) == one["name"].endswith("fires")


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_has_a_severity_and_a_runbook_with_commands(name):
    alert = ALERTS[name]
    assert alert["labels"] in [{"severity": one} for one in ("critical", "warning", "info")]
    assert alert["annotations"]["summary"].endswith(".")
    page = ROOT / alert["annotations"]["runbook_url"]
    assert page.stem == name
    text = page.read_text()
    assert alert["expr"] in text
    if alert["labels"]["severity"] == "critical":
        assert re.search(r"`larrey(-site)? (study|status|doctor)", text)
    assert f"[{name}]({name}.md) | {alert['labels']['severity']} |" in (
        page.with_name("README.md").read_text()
    )


def test_no_runbook_is_left_over():
    pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == {*ALERTS, "README"}


@pytest.mark.parametrize("kind", ["alert", "record"])
def test_rules_ask_for_what_is_exported(kind):
    series = exported()
    for name, rule in rules(kind).items():
        assert undeclared(rule["expr"], series) == [], name
        if kind == "alert":
            used = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
            known = {label for labels in series.values() for label in labels}
            assert set(used) <= known, name


def test_a_query_that_names_nothing_real_is_found():
    series = exported()
    assert undeclared("sum by (study) (larrey_run_actve)", series) == ["larrey_run_actve"]
    assert undeclared('larrey_run_active{site="a"}', series) == ["larrey_run_active{site}"]
    assert undeclared("sum by (hospital) (rate(larrey_runs_total[5m]))", series)
    assert undeclared("larrey_runs", series) == ["larrey_runs"]


@pytest.mark.parametrize(
    ("severity", "receiver"),
    [("critical", "pager"), ("warning", "tickets"), ("info", "boards-only")],
)
def test_who_hears_of_an_alert_follows_from_its_severity(severity, receiver):
    amtool = tool("amtool")
    amtool("check-config", ALERTMANAGER)
    config = f"--config.file={ALERTMANAGER}"
    assert amtool("config", "routes", "test", config, f"severity={severity}").strip() == receiver


def test_inhibitions_name_alerts_that_exist_and_labels_that_they_have():
    for rule in yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]:
        for side in ("source_matchers", "target_matchers"):
            (matcher,) = rule[side]
            pattern = re.fullmatch(r'alertname=~?"(.+)"', matcher)[1]
            for part in pattern.split("|"):
                assert any(re.fullmatch(part, name) for name in ALERTS), part
    rules_ = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    down = next(r for r in rules_ if "LarreyCoordinatorDown" in r["source_matchers"][0])
    assert "LarreyCoordinatorSite.+" in down["target_matchers"][0]
    lost = next(r for r in rules_ if "LarreyQuorumLost" in r["source_matchers"][0])
    assert "LarreyRoundStalled" in lost["target_matchers"][0]
