"""Both charts lint, render and hold the schemas of Kubernetes, for every file of values."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

CHARTS = Path(__file__).resolve().parents[2] / "deploy" / "helm"


def test_helm_lint_finds_nothing_to_say(helm, values):
    helm("lint", "--strict", str(values.parents[1]), "-f", str(values))


@pytest.mark.parametrize("kube_version", ["1.28", "1.32", "1.37"])
def test_every_object_holds_the_schema_of_kubernetes(render, values, kube_version):
    rendered = render(values, f"{kube_version}.0")
    assert rendered.objects
    for item in rendered.objects:
        kubernetes_validate.validate(item, kube_version, strict=True)


def test_the_schema_check_would_notice_a_misspelt_field(case):
    wrong = {**case.the("StatefulSet"), "specc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.32", strict=True)


@pytest.mark.parametrize("chart", ["larrey-coordinator", "larrey-site"])
def test_an_older_kubernetes_is_refused(helm, chart):
    values = str(CHARTS / chart / "ci" / "minimal-values.yaml")
    older = ["--kube-version", "1.27.0"]
    run = helm("template", "r", str(CHARTS / chart), "-f", values, *older, check=False)
    assert "kubeVersion" in run.stderr


def test_every_value_of_the_schema_is_explained_by_values_yaml(values):
    chart = values.parents[1]
    schema = yaml.safe_load((chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    assert set(schema["properties"]) == set(defaults)


def test_the_two_copies_of_shared_templates_are_equal():
    for name in ["_pod.tpl", "state.yaml", "serviceaccount.yaml"]:
        copies = {path.read_text() for path in CHARTS.glob(f"*/templates/{name}")}
        assert len(copies) == 1, name


def test_the_commands_are_those_of_the_programs(case):
    program = ["larrey-site", "run"] if case.is_site else ["larrey", "serve"]
    settings = "site.toml" if case.is_site else "coordinator.toml"
    assert case.container["command"] == [*program, "--config", f"/etc/larrey/{settings}"]
    assert settings in case.the("ConfigMap")["data"]


def test_other_settings_restart_the_pod(helm, site):
    case = site("minimal")
    chart = str(CHARTS / "larrey-site")
    other = ["--set", "policy.min_units=40"]
    text = helm("template", "r", chart, "-f", str(case.values), *other).stdout
    changed = next(
        item for item in yaml.safe_load_all(text) if item and item["kind"] == "StatefulSet"
    )
    assert _checksum(changed) != _checksum(case.the("StatefulSet"))


@pytest.mark.parametrize("chart", ["larrey-coordinator", "larrey-site"])
def test_the_values_of_a_readme_install(helm, tmp_path, chart):
    folder = CHARTS / chart
    block = (folder / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "values.yaml").write_text(block)
    helm("lint", "--strict", str(folder), "-f", str(tmp_path / "values.yaml"))


def _checksum(item) -> str:
    return item["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
