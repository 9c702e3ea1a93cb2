"""Which models of a study include a site's contribution. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from larrey_server.round_values import Cell

__all__ = ["descendants", "models_with"]


def models_with(
    site: str, cells: Iterable[Cell], models: Sequence[tuple[int, str]]
) -> list[dict[str, Any]]:  # Any: JSON
    """Return the models that hold something of a site: round, digest, whether it is the last one.

    A round's model starts from the one before, so every model from the first round on to which the
    site contributed includes it.

    Args:
        site: its name.
        cells: of all attempts; one with a code was not applied.
        models: (rounds applied, digest) as they were made, oldest first; round 0 is public.
    """
    counted = [
        cell.round
        for cell in cells
        if cell.site == site and cell.outcome == "contributed" and not cell.code
    ]
    if not counted:
        return []
    made = {number: digest for number, digest in models if number >= min(counted)}
    last = max(made, default=0)
    return [
        {"round": number, "model": digest, "is_last": number == last}
        for number, digest in sorted(made.items())
    ]


def descendants(study: str, parents: Mapping[str, str]) -> list[str]:
    """Return a study and all versions that amend it, directly or not, parents first.

    Args:
        study: its digest.
        parents: digest of every study -> digest of the one it amends, empty for none.
    """
    family, todo = [study], [study]
    while todo:
        parent = todo.pop(0)
        children = [child for child, of in parents.items() if of == parent and child not in family]
        family += children
        todo += children
    return family
