"""What queries ask for, and what is exported: the two sides that the tests here compare."""

from pathlib import Path

import promql_parser as promql
import yaml

from larrey_lab.metrics_page import families_of

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus"
TARGET = {"job", "instance"}  # labels that Prometheus gives every series
FOREIGN = {  # of other exporters, which the board of the host reads
    "node_cpu_seconds_total": {"mode", "cpu"},
    "node_memory_MemAvailable_bytes": set(),
    "node_memory_MemTotal_bytes": set(),
    "node_filesystem_avail_bytes": {"mountpoint", "fstype", "device"},
    "node_filesystem_size_bytes": {"mountpoint", "fstype", "device"},
    "node_disk_io_time_seconds_total": {"device"},
    "node_network_transmit_bytes_total": {"device"},
    "node_network_receive_bytes_total": {"device"},
    "DCGM_FI_DEV_GPU_UTIL": {"gpu"},
    "DCGM_FI_DEV_FB_USED": {"gpu"},
    "DCGM_FI_DEV_FB_FREE": {"gpu"},
    "DCGM_FI_DEV_GPU_TEMP": {"gpu"},
    "DCGM_FI_DEV_XID_ERRORS": {"gpu"},
}


def rules(kind):
    """Return all rules of a kind, "alert" or "record", by name."""
    files = sorted(RULES.glob("*.rules.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def exported():
    """Return the labels of every series that a query may name."""
    series = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
    for family in (one for side in families_of() for one in side):
        names = [family.name]
        if family.kind == "histogram":
            names = [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
        for name in names:
            series[name] = {*family.labels, *({"le"} if name.endswith("_bucket") else ())}
    for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds", "start_time_seconds"):
        series[f"process_{name}"] = set()
    for name, rule in rules("record").items():
        series[name] = {label for one in asked(rule["expr"]) for label in series[one]} - {"le"}
    return series | FOREIGN


def asked(query):
    """Return the labels that a query uses of each series that it names."""
    found = {}
    _walk(promql.parse(query), frozenset(), found)
    return found


def undeclared(query, series):
    """Return what a query names that nobody exports: series, and labels of none of its series."""
    missing = []
    for name, labels in asked(query).items():
        if name not in series:
            missing.append(name)
            continue
        missing += [f"{name}{{{one}}}" for one in labels - series[name] - TARGET]
    return missing


def _walk(node, labels, found):  # noqa: C901 - one case a kind of node
    match node:
        case promql.VectorSelector():
            own = {one.name for one in node.matchers.matchers} - {"__name__"}
            found.setdefault(node.name, set()).update(own | labels)
        case promql.MatrixSelector():
            _walk(node.vector_selector, labels, found)
        case promql.AggregateExpr():
            grouped = set(node.modifier.labels) if node.modifier else set()
            _walk(node.expr, labels | grouped, found)
        case promql.Call():
            for argument in node.args:
                _walk(argument, labels, found)
        case promql.BinaryExpr():
            matching = node.modifier.matching if node.modifier else None
            joined = labels | (set(matching.labels) if matching else set())
            _walk(node.lhs, joined, found)
            _walk(node.rhs, joined, found)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            _walk(node.expr, labels, found)
        case promql.NumberLiteral() | promql.StringLiteral():
            pass
        case _:
            raise AssertionError(f"a kind of query that nobody thought of: {type(node)}")
