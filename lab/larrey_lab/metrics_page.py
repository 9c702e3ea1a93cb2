"""The reference page of what both sides export to Prometheus, made from the code."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from larrey_client.metrics import SiteMetrics
from larrey_protocol.meters import Family
from larrey_server.metric_families import Families

__all__ = ["PAGE", "families_of", "metrics_page"]

PAGE = "metrics.md"
_HEAD = """# Metrics

Generated from the code by `python -m larrey_lab.reference`.

The coordinator and each hospital's node serve `/metrics` in Prometheus' text format where \
`[listen] metrics` of `coordinator.toml` and `site.metrics` of `site.toml` say, on loopback \
unless asked.
A hospital's endpoint is for that hospital: nobody outside scrapes it, and the coordinator knows \
only what its node sends in the course of its work. Names of studies, sites and datasets, codes \
and methods are labels;
a row, a number of patients or a value made from data never is one.

Every series is there from the start, with 0, so that the first event is an increase. At most \
100 studies have series at the coordinator; those of a study go when it is closed (`larrey study \
close`, or its retention is over). Limits that
alerts compare with are metrics themselves. Alerts and what to do about them: \
[runbooks](runbooks/README.md). Grafana boards: import `deploy/grafana/boards/*.json`; \
`make dashboards` remakes them from the code beside them.
"""
_FOOT = """
Beside these, both export `process_*` of `prometheus_client` (memory, processor time, open files).

## Not exported, and why

| what | why |
|---|---|
| values of evaluation metrics | a series of exact values beside the released ones would be a \
second release; `larrey study show` has what was released |
| share of clipped gradients, losses, cohort sizes | made from rows and not noised: they stay in \
the trainer |
| seconds a training step, GPU memory | the agent does not load torch; the hospital's DCGM \
exporter tells, as the host-and-GPU board shows |
| age of the last backup | nothing makes backups yet |
| clock offset of a site, at the coordinator | the site does not send it; the hospital sees its \
own |

## Logs

With `LARREY_LOG_FORMAT=json` in the environment, `larrey serve` and `larrey-site run` write a \
JSON object a line: `at`, `level`, `logger`, `event`, and the facts as keys, `study`, `round`, \
`site` and `code` among them. `LARREY_LOG_LEVEL` is the node's least level.
"""


def metrics_page() -> str:
    """Return the page: name, type, labels and meaning of every metric of both sides."""
    coordinator, site = families_of()
    parts = ("## Coordinator", *_table(coordinator), "", "## Hospital node", *_table(site))
    return _HEAD + "\n" + "\n".join(parts) + "\n" + _FOOT


def families_of() -> tuple[list[Family], list[Family]]:
    """Return what the coordinator and what a node export, in the order of the code."""
    return Families().families, SiteMetrics(Path(os.curdir)).meters.families


def _table(families: Iterable[Family]) -> list[str]:
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(one.labels) or '-'} | {one.meaning} |"
        for one in families
    ]
    return ["", "| name | type | labels | meaning |", "|---|---|---|---|", *rows]
