"""Flower's private names: each must exist as we use it, in exactly the version we pin."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import reduce
from pathlib import Path
from typing import Any

import flwr
import pytest

import larrey_server
from larrey_server.flower.names import FLWR_VERSION, PRIVATE_NAMES


def found(name: str) -> Any:  # Any: whatever flwr has there
    module, _, path = name.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))


def test_flower_is_the_pinned_version() -> None:
    assert flwr.__version__ == FLWR_VERSION


@pytest.mark.parametrize("name", sorted(PRIVATE_NAMES))
def test_private_name_is_there_with_the_parameters_we_pass(name: str) -> None:
    wanted = PRIVATE_NAMES[name]
    value = found(name)
    if wanted is not None:
        have = [p for p in inspect.signature(value).parameters if p != "self"]
        assert set(wanted) <= set(have)


def test_every_name_that_is_imported_is_listed() -> None:
    source = Path(larrey_server.__file__).parent / "flower" / "names.py"
    imported = set()
    for module, names in re.findall(
        r"^from (flwr\S+) import (\([^)]*\)|.*)$", source.read_text(), re.M
    ):
        imported |= {(module, name) for name in re.findall(r"\w+", names)}
    listed = {tuple(re.split(r"[:.](?=[^.:]+$)", name, maxsplit=1)) for name in PRIVATE_NAMES}
    heads = {part for name in PRIVATE_NAMES for part in re.split(r"[:.]", name)}
    missing = {(m, n) for m, n in imported if n not in heads and (m, n) not in listed}
    assert not missing


def test_flwr_is_imported_only_by_the_flower_package() -> None:
    package = Path(larrey_server.__file__).parent
    users = [
        path.relative_to(package)
        for path in package.rglob("*.py")
        if re.search(r"^\s*(from|import) flwr", path.read_text(), re.M)
    ]
    assert {path.parts[0] for path in users} == {"flower"}


def test_private_modules_are_imported_only_by_the_list() -> None:
    package = Path(larrey_server.__file__).parent / "flower"
    public = re.compile(r"^\s*from (flwr\S*) import", re.M)
    for path in package.glob("*.py"):
        if path.name != "names.py":
            assert set(public.findall(path.read_text())) <= {"flwr.app", "flwr.serverapp"}
