"""Write the dashboards as JSON from what the files here say: `make dashboards`.

    python deploy/grafana/make.py           # writes deploy/grafana/boards/*.json
    python deploy/grafana/make.py --check   # ends with 1 where a file is not what the code makes

No data source is named: each board asks for one. The identifiers of boards never change, so that
links to them hold.
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, ReduceDataOptions
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    VariableRefresh,
)
from hospital import HOSPITAL, HOST
from overview import OVERVIEW
from panels import Board, Panel, Row
from studies import FLEET, PRIVACY, PROGRESS

__all__ = ["BOARDS", "FOLDER", "rendered"]

BOARDS = (OVERVIEW, PROGRESS, FLEET, PRIVACY, HOSPITAL, HOST)
FOLDER = Path(__file__).resolve().parent / "boards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
BUILDERS = {"stat": stat.Panel, "lines": timeseries.Panel, "table": table.Panel}
HEIGHT = 7
WIDTHS = {"stat": 4, "lines": 8, "table": 12}  # of 24


def rendered() -> dict[str, str]:
    """Return the JSON of every board by its file's name."""
    return {f"{board.uid}.json": _json(board) for board in BOARDS}


def _json(board: Board) -> str:
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["larrey"])
        .refresh("30s")
        .time("now-24h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus")
        )
    )
    for name, query in board.variables:
        built.with_variable(
            dashboard.QueryVariable(name)
            .label(name)
            .datasource(SOURCE)
            .query(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for row in board.rows:
        _add(built, row)
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _add(built: dashboard.Dashboard, row: Row) -> None:
    built.with_row(dashboard.Row(row.title))
    for panel in row.panels:
        built.with_panel(_panel(panel))


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel | table.Panel:
    built = (
        BUILDERS[panel.kind]()
        .title(panel.title)
        .description(panel.meaning)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(WIDTHS[panel.kind])
        .height(HEIGHT if panel.kind != "stat" else 4)
    )
    for number, (query, legend) in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query).legend_format(legend)
        target.ref_id(chr(ord("A") + number))
        built.with_target(target.instant() if panel.kind != "lines" else target.range())
    if panel.kind == "stat":
        built.reduce_options(_last()).color_mode(BigValueColorMode.BACKGROUND)
    if panel.bad_above is not None:
        steps = [Threshold(None, "green"), Threshold(panel.bad_above, "red")]
        built.thresholds(dashboard.ThresholdsConfig().steps(steps))
    return built


def _last() -> "_Built":
    return _Built(ReduceDataOptions(calcs=["lastNotNull"]))


class _Built:
    """A value where a builder is asked for."""

    def __init__(self, value: ReduceDataOptions) -> None:
        self._value = value

    def build(self) -> ReduceDataOptions:
        return self._value


def main(arguments: list[str]) -> int:
    """Write or compare the files; return the exit code."""
    status = 0
    for name, text in rendered().items():
        file = FOLDER / name
        if "--check" not in arguments:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{file} is not what the code makes; run: make dashboards\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
