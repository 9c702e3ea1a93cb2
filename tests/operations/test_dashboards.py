"""Boards are what the code makes, ask only for what is exported, and leave nothing unseen."""

import json
import re
import subprocess
import sys

import pytest

from larrey_lab.metrics_page import families_of
from tests.operations.promql import ROOT, TARGET, asked, exported, rules, undeclared

GRAFANA = ROOT / "deploy" / "grafana"
BOARDS = {file.stem: json.loads(file.read_text()) for file in GRAFANA.glob("boards/*.json")}
UNSEEN = {}  # exported metrics that no panel and no rule asks for, each with the reason


def panels_of(board):
    return [one for one in board["panels"] if one["type"] != "row"]


def queries_of(board):
    return [target["expr"] for panel in panels_of(board) for target in panel["targets"]]


def test_the_files_are_what_the_code_makes():
    make = [sys.executable, str(GRAFANA / "make.py"), "--check"]
    ran = subprocess.run(make, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(BOARDS) == 6


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_asks_only_for_what_is_exported(name):
    series = exported()
    for query in queries_of(BOARDS[name]):
        assert undeclared(query, series) == [], query


@pytest.mark.parametrize("name", BOARDS)
def test_a_legend_shows_labels_that_the_query_keeps(name):
    series = exported()
    for panel in panels_of(BOARDS[name]):
        for target in panel["targets"]:
            known = {label for one in asked(target["expr"]) for label in series[one]} | TARGET
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= known, panel["title"]
            grouped = re.search(
                r"^(?:\w+ by|histogram_quantile\(0\.\d+, sum by) \(([^)]*)\)", target["expr"]
            )
            if grouped:
                assert shown <= set(re.split(r",\s*", grouped[1])), panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_variables_are_declared_and_take_their_values_from_what_is_exported(name):
    series, board = exported(), BOARDS[name]
    variables = {one["name"]: one for one in board["templating"]["list"]}
    used = set(re.findall(r'"\$(\w+)"', "".join(queries_of(board))))
    assert used == set(variables) - {"source"}
    for one in used:
        metric, label = re.fullmatch(
            r"label_values\((\w+), (\w+)\)", variables[one]["query"]
        ).groups()
        assert label in series[metric] | TARGET


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_keeps_its_address_and_names_no_source_of_data(name):
    board = BOARDS[name]
    assert board["uid"] == name
    assert board["title"].startswith("Larrey: ")
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(board["panels"]))
    assert set(sources) == {"${source}"}
    titles = [panel["title"] for panel in panels_of(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels_of(board):
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"]


def test_nothing_is_exported_that_nobody_looks_at():
    queries = [query for board in BOARDS.values() for query in queries_of(board)]
    queries += [rule["expr"] for kind in ("alert", "record") for rule in rules(kind).values()]
    seen = {re.sub("_(bucket|sum|count)$", "", name) for query in queries for name in asked(query)}
    names = {family.name for side in families_of() for family in side}
    assert names - seen == set(UNSEEN)


def test_every_recording_rule_is_used():
    queries = [query for board in BOARDS.values() for query in queries_of(board)]
    queries += [rule["expr"] for rule in rules("alert").values()]
    assert set(rules("record")) <= {name for query in queries for name in asked(query)}
