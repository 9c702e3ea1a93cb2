"""What the charts' values say is what the programs' files can say, with the same bounds.

A setting that is new in a program, or has other bounds there, fails here until the chart has it.
"""

import json
from pathlib import Path

import pytest

from larrey_client.settings import SiteSettings
from larrey_server.settings import CoordinatorSettings

HELM = Path(__file__).resolve().parents[2] / "deploy" / "helm"
PROGRAMS = {
    "larrey-site": SiteSettings.model_json_schema(),
    "larrey-coordinator": CoordinatorSettings.model_json_schema(),
}
SCHEMAS = {name: json.loads((HELM / name / "values.schema.json").read_text()) for name in PROGRAMS}
# What charts write from other values: tables, and settings of tables.
WRITTEN = {"larrey-site": {"site", "identity"}, "larrey-coordinator": {"listen", "identity"}}
# Chart, values by name, record of the program, written by the chart, needed by the chart alone.
TABLES = [
    ("larrey-site", "policy", "Policy", set(), set()),
    ("larrey-site", "app", "AppRule", set(), set()),
    ("larrey-site", "person", "Person", set(), set()),
    ("larrey-site", "consortium", "Consortium", set(), set()),
    ("larrey-site", "coordinator", "Coordinator", {"authority"}, {"endpoints"}),
    ("larrey-site", "membership", "Membership", set(), {"join"}),
    ("larrey-site", "trainer", "Trainer", {"device", "memory_mb"}, set()),
    ("larrey-site", "witness", "Witness", set(), {"existingClaim", "endpoints"}),
    ("larrey-site", "dataset", "Dataset", set(), set()),
    ("larrey-site", "fileSource", "FileSource", set(), set()),
    ("larrey-site", "imageSource", "ImageSource", set(), set()),
    (
        "larrey-site",
        "sqlSource",
        "SqlSource",
        {"dsn_file", "query_file"},
        {"dsn", "query", "endpoints"},
    ),
    ("larrey-coordinator", "coordinator", "CoordinatorSection", {"state"}, set()),
    ("larrey-coordinator", "consortium", "Consortium", set(), set()),
    ("larrey-coordinator", "operator", "OperatorEntry", set(), set()),
    ("larrey-coordinator", "site", "SiteEntry", set(), set()),
]
# Narrower in the chart: the program checks it by code, or it is a path or file of the pod.
NARROWER = {"approvals", "role", "kind", "source", "readable", "address"}
NARROWER |= {"path", "manifest", "root", "file", "certificate"}
NARROWER |= {"coordinator", "consortium", "identity"}  # of a membership; the first two are above
TEXTS = {"title", "description", "default"}

each_table = pytest.mark.parametrize(
    ("chart", "name", "record", "written", "needed"),
    TABLES,
    ids=[f"{row[0]}-{row[1]}" for row in TABLES],
)


@pytest.mark.parametrize("chart", PROGRAMS)
def test_every_table_of_the_settings_is_a_value_or_the_charts_own(chart):
    tables = PROGRAMS[chart]["properties"].keys()
    assert tables - WRITTEN[chart] <= SCHEMAS[chart]["properties"].keys()


@each_table
def test_the_values_have_every_setting_of_a_table(chart, name, record, written, needed):
    values = _values(chart, name)
    settings = PROGRAMS[chart]["$defs"][record]["properties"].keys()
    assert values["properties"].keys() == (settings - written) | needed
    assert values["additionalProperties"] is False


@each_table
def test_a_value_has_the_bounds_of_its_setting(chart, name, record, written, needed):
    settings = PROGRAMS[chart]["$defs"][record]["properties"]
    values = _values(chart, name)["properties"]
    shared = [key for key in values.keys() - NARROWER if key in settings]
    assert {key: _bounds(chart, values[key]) for key in shared} == {
        key: _bounds(chart, settings[key]) for key in shared
    }


def _values(chart, name):
    schema = SCHEMAS[chart]
    return schema["definitions"].get(name) or schema["properties"][name]


def _bounds(chart, node):
    """Return a schema without texts, references followed, "or null" left out."""
    if isinstance(node, list):
        return [_bounds(chart, item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        found = node["$ref"].rpartition("/")[2]
        target = PROGRAMS[chart]["$defs"].get(found) or SCHEMAS[chart]["definitions"][found]
        return _bounds(chart, target)
    either = [item for item in node.get("anyOf", []) if item != {"type": "null"}]
    if len(either) == 1:
        return _bounds(chart, either[0])
    return {key: _bounds(chart, value) for key, value in node.items() if key not in TEXTS}
