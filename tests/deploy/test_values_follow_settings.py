"""What the site chart's values say is what site.toml can say, with the same bounds.

A setting that is new in the program, or has other bounds there, fails here until the chart has it.
"""

import json
from pathlib import Path

import pytest

from larrey_client.settings import SiteSettings

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "larrey-site"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
PROGRAM = SiteSettings.model_json_schema()

# Values by name -> record of the program, what the chart writes itself, what only the chart needs.
TABLES = {
    "policy": ("Policy", set(), set()),
    "app": ("AppRule", set(), set()),
    "person": ("Person", set(), set()),
    "consortium": ("Consortium", set(), set()),
    "trainer": ("Trainer", {"device", "memory_mb"}, set()),
    "witness": ("Witness", set(), {"existingClaim", "endpoints"}),
    "dataset": ("Dataset", set(), set()),
    "fileSource": ("FileSource", set(), set()),
    "imageSource": ("ImageSource", set(), set()),
    "sqlSource": ("SqlSource", {"dsn_file", "query_file"}, {"dsn", "query", "endpoints"}),
}
# Narrower in the chart than in the record, where the program checks by code or paths are the pod's.
NARROWER = {"approvals", "role", "kind", "path", "source", "manifest", "root", "file", "readable"}
TEXTS = {"title", "description", "default"}


def test_every_table_of_the_settings_is_a_value_or_the_charts_own():
    written_by_the_chart = {"site", "coordinator", "identity"}
    assert PROGRAM["properties"].keys() <= SCHEMA["properties"].keys() | written_by_the_chart


@pytest.mark.parametrize("name", TABLES)
def test_the_values_have_every_setting_of_a_table(name):
    record, written, needed = TABLES[name]
    settings = PROGRAM["$defs"][record]["properties"].keys()
    assert _values(name)["properties"].keys() == (settings - written) | needed
    assert _values(name)["additionalProperties"] is False


@pytest.mark.parametrize("name", TABLES)
def test_a_value_has_the_bounds_of_its_setting(name):
    settings = PROGRAM["$defs"][TABLES[name][0]]["properties"]
    values = _values(name)["properties"]
    shared = [key for key in values if key in settings and key not in NARROWER]
    assert {key: _bounds(values[key]) for key in shared} == {
        key: _bounds(settings[key]) for key in shared
    }


def _values(name):
    return SCHEMA["properties"].get(name) or SCHEMA["definitions"][name]


def _bounds(node):
    """Return a schema without texts, references followed, "or null" left out."""
    if isinstance(node, list):
        return [_bounds(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        found = node["$ref"].rpartition("/")[2]
        return _bounds(PROGRAM["$defs"].get(found) or SCHEMA["definitions"][found])
    either = [item for item in node.get("anyOf", []) if item != {"type": "null"}]
    if len(either) == 1:
        return _bounds(either[0])
    return {key: _bounds(value) for key, value in node.items() if key not in TEXTS}
