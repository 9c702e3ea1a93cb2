"""One data set as the data sets of many sites: patients dealt out, none of them to two sites.

``dirichlet:A`` deals each class to the sites in shares drawn from a symmetric Dirichlet law with
concentration A: small A, unlike sites. Label skew as in Li, Diao, Chen, He 2022, "Federated
learning on non-IID data silos: an experimental study", section 4.1,
https://arxiv.org/abs/2102.02079. ``iid`` deals all patients evenly at random. Seeded.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.errors import UsageError

__all__ = ["Partition", "deal", "parse_partition"]

Kind = Literal["natural", "iid", "dirichlet"]


@dataclass(frozen=True, slots=True)
class Partition:
    """How patients come to sites; ``concentration`` belongs to dirichlet alone."""

    kind: Kind
    concentration: float = math.inf

    def __str__(self) -> str:
        """Return the words that `parse_partition` reads."""
        return f"dirichlet:{self.concentration:g}" if self.kind == "dirichlet" else self.kind


def parse_partition(text: str) -> Partition:
    """Return the partition that ``natural``, ``iid`` or ``dirichlet:A`` means.

    Raises:
        UsageError: ``unknown-partition`` with the nearest valid name, or ``invalid-partition``.
    """
    name, colon, number = text.partition(":")
    for kind in get_args(Kind):
        if kind != name:
            continue
        if (kind == "dirichlet") != bool(colon):
            raise _invalid(text)
        return Partition(kind, _concentration(text, number)) if colon else Partition(kind)
    near = difflib.get_close_matches(name, get_args(Kind), n=1, cutoff=0.0)[0]
    example = "dirichlet:0.3" if near == "dirichlet" else near
    raise UsageError(
        "unknown-partition", f"no partition is called '{name}'", f"Did you mean '{example}'?"
    )


def deal(
    group: NDArray[np.generic], sites: int, partition: Partition, *, seed: int
) -> NDArray[np.int64]:
    """Return each patient's site, "(patients,)" in 0..sites-1; every site has a patient at least.

    Args:
        group: whether any row of the patient has the outcome, or which outcome, "(patients,)".
        sites: how many.
        partition: iid or dirichlet.
        seed: public, and unrelated to noise and sampling.

    Raises:
        UsageError: ``too-many-sites`` for the patients that there are.
    """
    if not 1 <= sites <= len(group):
        raise UsageError(
            "too-many-sites",
            f"{len(group)} training patients cannot be dealt to {sites} sites",
            "Ask for fewer sites.",
        )
    random = np.random.Generator(np.random.PCG64(seed))
    places = np.empty(len(group), np.int64)
    if partition.kind != "dirichlet":
        places[random.permutation(len(group))] = np.arange(len(group)) % sites
        return places
    for kind in np.unique(group):
        members = random.permutation(np.flatnonzero(group == kind))
        shares = random.dirichlet(np.full(sites, partition.concentration))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for site, part in enumerate(np.split(members, cuts)):
            places[part] = site
    return _nobody_empty(places, sites)


def _nobody_empty(places: NDArray[np.int64], sites: int) -> NDArray[np.int64]:
    """Move patients from the largest sites to those that got none, one each."""
    counts = np.bincount(places, minlength=sites)
    for empty in np.flatnonzero(counts == 0):
        largest = int(counts.argmax())
        places[np.flatnonzero(places == largest)[-1]] = empty
        counts[largest] -= 1
        counts[empty] = 1
    return places


def _concentration(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        raise _invalid(text) from None
    if not 1e-3 <= value <= 1e6:  # beyond, the draw underflows or is iid
        raise _invalid(text)
    return value


def _invalid(text: str) -> UsageError:
    return UsageError(
        "invalid-partition",
        f"'{text}' is not natural, iid or dirichlet:A with A from 0.001 to 1000000",
        "For example: dirichlet:0.3",
    )
