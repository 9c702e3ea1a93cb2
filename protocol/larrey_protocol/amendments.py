"""What a new version of a study changes, and whether anybody must sign for it. Pure.

A version names its parent by digest. Fields that only say how patiently rounds are run (deadline,
patience, a quorum that rises) are operational: they let nothing more leave a site, so that an
approval carries over. Everything else needs a new signature, under the difference alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from larrey_protocol.errors import Refusal
from larrey_protocol.study import Study

__all__ = ["Change", "differences", "needs_signature", "require_child"]

_OWN = frozenset({"file.study.version", "file.study.parent"})  # every version has its own
Json = Any  # Any: JSON values are recursive


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs; None where there is none on that side."""

    place: str  # dotted, e.g. "file.training.rounds", "file.sites.alpha.patients"
    before: Json
    after: Json

    @property
    def is_operational(self) -> bool:
        """Return whether the change lets nothing more leave a site."""
        if self.place in {"file.rounds.deadline_s", "file.rounds.patience"}:
            return True
        if self.place != "file.rounds.quorum":
            return False
        return int(self.after) >= int(self.before)


def differences(parent: Study, child: Study) -> tuple[Change, ...]:
    """Return every value that differs between two versions, but version and parent themselves."""
    old, new = dict(_leaves(parent)), dict(_leaves(child))
    places = [*old, *(place for place in new if place not in old)]
    changed = [p for p in places if old.get(p) != new.get(p) and p not in _OWN]
    return tuple(Change(place, old.get(place), new.get(place)) for place in changed)


def needs_signature(changes: Sequence[Change]) -> bool:
    """Return whether sites must approve anew."""
    return not all(change.is_operational for change in changes)


def require_child(parent: Study, child: Study) -> None:
    """Return if ``child`` is the next version of ``parent``.

    Raises:
        Refusal: ``not-an-amendment``.
    """
    old, new = parent.file.study, child.file.study
    expected = (parent.digest, old.name, old.version + 1, old.permit)
    if (new.parent, new.name, new.version, new.permit) != expected:
        raise Refusal(
            "not-an-amendment",
            f"expected version {old.version + 1} of '{old.name}' under permit {old.permit} with its"
            f" parent's digest, found version {new.version} of '{new.name}'",
            "Use: larrey study amend study.toml",
        )


def _leaves(study: Study) -> Iterator[tuple[str, Json]]:
    yield from _walk("", study.model_dump(mode="json", by_alias=True))


def _walk(place: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(f"{place}.{key}" if place else str(key), inner)
    elif isinstance(value, list) and value and all(_named(item) for item in value):
        yield f"{place}.order", [item["name"] for item in value]  # of aggregation, of features
        for item in value:
            yield from _walk(f"{place}.{item['name']}", item)
    else:
        yield place, value


def _named(item: Json) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("name"), str)
