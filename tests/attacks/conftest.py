"""Stands for attacks: one node and one coordinator for all that leave them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest

from tests.attacks.catalogue import Act
from tests.attacks.office import office
from tests.attacks.stand import site
from tests.client.node.conftest import Pki, pki

__all__ = ["pki"]

Stands = Callable[[Act], AbstractContextManager[Any]]  # Any: Site or Office


@pytest.fixture(scope="session")
def stands(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stands]:
    """Return what gives the stand for an attack, kept for the next one unless it is for one."""
    shared: dict[str, tuple[Any, ExitStack]] = {}
    make = {"site": lambda folder: site(pki, folder), "office": office}

    def fresh(target: str) -> tuple[Any, ExitStack]:
        stack = ExitStack()
        folder = tmp_path_factory.mktemp(target)
        return stack.enter_context(make[target](folder)), stack

    @contextmanager
    def stand(act: Act) -> Iterator[Any]:
        kept = None if act.alone else shared.pop(act.target, None)
        made, stack = kept or fresh(act.target)
        with stack:
            made.watch()
            yield made
            if not act.alone and not made.is_worn:  # a failed attack's stand is not used again
                shared[act.target] = made, stack.pop_all()

    yield stand
    for _, stack in shared.values():
        stack.close()
