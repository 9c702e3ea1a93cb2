"""The engine on Ray: Flower's own simulation, for many cores or a cluster (extra ``simulation``).

The same ClientApp, the same rounds. A site's rows lie in a folder that every worker reads (on a
cluster: a shared one) as plain numpy files, never pickles of ours. Each of Flower's nodes plays one
site for the whole run, so that its context holds what that site keeps between rounds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from larrey_lab.simulation.local import Letters
from larrey_lab.simulation.rounds import Ask, Request
from larrey_lab.simulation.study_sites import site_app
from larrey_privacy.cohort import Cohort
from larrey_protocol.errors import LarreyError, UsageError
from larrey_strategies.contract import Vector

__all__ = ["folder_app", "on_ray", "require_ray", "write_cohorts"]

_FIELDS = ("features", "label", "patient")
_ANSWER_S = 3600.0


def require_ray() -> None:
    """Return if Ray is installed.

    Raises:
        UsageError: ``ray-missing``.
    """
    if find_spec("ray") is None:
        raise UsageError(
            "ray-missing",
            "Flower's simulation engine needs Ray, which is not installed",
            "Run `make simulation` or install Larrey with the extra 'simulation'.",
        )


def write_cohorts(folder: Path, cohorts: Mapping[str, Cohort]) -> None:
    """Write each site's rows as numpy arrays."""
    for site, cohort in cohorts.items():
        for name in _FIELDS:
            np.save(folder / f"{site}.{name}.npy", np.asarray(getattr(cohort, name)))


def folder_app(folder: Path) -> ClientApp:
    """Return the hospital's own app over the rows that `write_cohorts` left."""
    return site_app(lambda site: _cohort(folder, site))


def on_ray(
    app: ClientApp,
    letters: Letters,
    play: Callable[[Ask], None],
    *,
    done: Callable[[], None] = lambda: None,
    cores: int | None = None,
) -> None:
    """Run ``play`` with an `Ask` that Flower's simulation engine answers.

    Args:
        app: as of `folder_app`.
        letters: of the federation.
        play: makes the rounds.
        done: called for each answer.
        cores: of this machine that Ray may use; all by default.

    Raises:
        UsageError: ``ray-missing``.
        LarreyError: ``app-failed``; what ``play`` raises.
    """
    require_ray()
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    server, failures = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            play(_RaySites(grid, letters, done))
        except LarreyError as error:  # Flower would only log it
            failures.append(error)

    init = {"init_args": {"num_cpus": cores}} if cores else {}
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=len(letters.names),
        backend_config=init | resources,  # type: ignore[arg-type]  # nested configuration values
    )
    if failures:
        raise failures[0]


class _RaySites:
    """Asks the nodes of a simulation; each site's turn is one message."""

    def __init__(self, grid: Grid, letters: Letters, done: Callable[[], None]) -> None:
        self._grid, self._letters, self._done = grid, letters, done
        self._nodes = _registered(grid, len(letters.names))

    def __call__(self, request: Request) -> list[Vector]:
        arrays = self._letters.record(request)
        messages = [
            Message(self._letters.content(site, request.number, arrays), self._nodes[site], "train")
            for site in request.sites
        ]
        updates: dict[int, Vector] = {}
        for reply in self._grid.send_and_receive(messages, timeout=_ANSWER_S):
            updates[reply.metadata.src_node_id] = self._letters.update(reply)
            self._done()
        for site in request.sites:
            if self._nodes[site] not in updates:
                text = f"site '{self._letters.names[site]}' did not answer"
                raise LarreyError("app-failed", text, "Try --engine local, which says why.")
        return [updates[self._nodes[site]] for site in request.sites]


def _registered(grid: Grid, count: int) -> list[int]:
    """Return the nodes once all of them are there."""
    pause = threading.Event()
    while len(nodes := sorted(grid.get_node_ids())) < count:
        pause.wait(0.02)
    return nodes


@lru_cache(maxsize=64)
def _cohort(folder: Path, site: str) -> Cohort:
    parts = (np.load(folder / f"{site}.{name}.npy", allow_pickle=False) for name in _FIELDS)
    return Cohort(*parts)
