"""Which fault strikes which site when: a schedule follows from its seed alone. Pure.

Times are in units, one of which is the deadline of a round: with a deadline of ten minutes, 0.5 is
five minutes. Faults of one site follow each other; faults of several sites overlap as they come.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.proxy import KINDS, UP_DOWN, Fault, Kind, Way

_LAST_BEGIN = 0.9  # units; an undisturbed study takes about one
_SHORTEST, _LONGEST = 0.1, 2.0
_OUTAGE_SHARE = 0.2  # of schedules take so many sites away that no quorum is left
_OUTAGE = (2.2, 3.0)  # longer than two attempts of a round
_PAUSE = 0.05


@dataclass(frozen=True)
class Strike:
    """One fault at one site; ``at`` and ``seconds`` in units or seconds, as the schedule is."""

    at: float
    site: str
    fault: Fault
    seconds: float

    @property
    def until(self) -> float:
        return self.at + self.seconds


def schedule(seed: int, sites: Sequence[str], quorum: int, update_bytes: int) -> tuple[Strike, ...]:
    """Return the strikes of a seed, the first one first, in units.

    Every kind comes about as often; a cut comes within the bytes of a few updates.
    """
    chance = random.Random(seed)
    free = dict.fromkeys(sites, 0.0)
    strikes = []
    if chance.random() < _OUTAGE_SHARE:
        at = chance.uniform(0, 0.3)
        kind: Kind = chance.choice(("partition", "stall", "reset"))
        for site in chance.sample(list(sites), len(sites) - quorum + 1):
            seconds = chance.uniform(*_OUTAGE)
            strikes.append(Strike(at, site, Fault(kind), seconds))
            free[site] = at + seconds + _PAUSE
    for _ in range(chance.randint(2, 6)):
        site = chance.choice(list(sites))
        at = max(free[site], chance.uniform(0, _LAST_BEGIN))
        strike = Strike(at, site, _fault(chance, update_bytes), _length(chance))
        free[site] = strike.until + _PAUSE
        strikes.append(strike)
    return tuple(sorted(strikes, key=lambda strike: (strike.at, strike.site)))


def scaled(strikes: Sequence[Strike], unit_s: float) -> tuple[Strike, ...]:
    """Return the same in seconds. A fault's own figures are of the scaled time already."""
    return tuple(
        Strike(one.at * unit_s, one.site, one.fault, one.seconds * unit_s) for one in strikes
    )


def _length(chance: random.Random) -> float:
    """Return a length: as often between a tenth and a half of a unit as between that and two."""
    low, high = chance.choice(((_SHORTEST, 0.5), (0.5, _LONGEST)))
    return chance.uniform(low, high)


def _fault(chance: random.Random, update_bytes: int) -> Fault:
    kind = chance.choice(KINDS)
    ways: tuple[Way, ...] = chance.choice((UP_DOWN, ("up",), ("down",)))
    match kind:
        case "latency":
            return Fault(kind, ways, delay_s=chance.uniform(0.01, 0.3))
        case "bandwidth":
            return Fault(kind, ways, rate=update_bytes * chance.uniform(0.2, 5.0))
        case "half-open":
            return Fault(kind, (chance.choice(UP_DOWN),))
        case "cut":
            return Fault(kind, ways, after=chance.randrange(3 * update_bytes))
        case _:
            return Fault(kind)
