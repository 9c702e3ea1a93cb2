"""What must hold after a study in bad weather, whatever the network did. Pure but for the disks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from larrey_lab.federation.workspace import Workspace
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Certificate, Signed
from larrey_server.certificate_check import open_certificate, require_of
from tests.chaos import proofs
from tests.chaos.schedules import Strike
from tests.chaos.weather import Ran
from tests.system.hospitals import Facts

_AFTER_S = 4.0  # that a fault is felt after it ended: pauses before a new connection
_CERTAIN = frozenset({"partition", "stall", "reset"})  # nothing passes while they last
_STARVED = 0.5  # of an attempt; a quiet machine stays below a tenth
_CLOSED = frozenset({"round-applied", "round-not-applied"})


def complaints(ran: Ran) -> Iterator[str]:
    """Yield what is wrong with how a study went, by its events and the schedule alone."""
    if not ran.ended:
        yield "it hung"
        return
    yield from (text for text, is_excused in _problems(ran) if not is_excused)
    yield from _left_out_for_long(ran)
    for at, code in ran.pauses:
        if not _had_no_quorum(ran, at):
            yield f"it paused for {code} although quorum was there"


def certificate_complaints(ran: Ran, certificate: Certificate) -> Iterator[str]:
    """Yield where a certificate does not say what was seen of the rounds."""
    if certificate.outcome == "FAILED":
        yield f"it failed: {certificate.reason}"
    seen = {}
    for event in ran.events:
        if event.get("event") in _CLOSED:
            for site, cell in event["sites"].items():
                seen[site, event["round"]] = cell["outcome"]
    said = {(cell.site, cell.round): cell.outcome for cell in certificate.matrix}
    for place in sorted(said.keys() | seen.keys()):
        if said.get(place) != seen.get(place):
            yield f"the certificate says {said.get(place)} of {place}, not {seen.get(place)}"


def disk_complaints(workspace: Workspace, ran: Ran, signed: Signed, folder: Path) -> Iterator[str]:
    """Yield what is wrong with certificate, model, journal and ledgers; all are verified."""
    key = SigningKey.load(workspace.coordinator.parent / "signing.ed25519").public
    certificate = open_certificate(signed, key)
    require_of(certificate, ran.study)
    yield from certificate_complaints(ran, certificate)
    rounds = list(range(1, certificate.rounds_applied + 1))
    if (found := proofs.times_applied(workspace, ran.study.digest)) != rounds:
        yield f"applied were the rounds {found}"
    who = {number: contributors(certificate, number) for number in rounds}
    if certificate.model != proofs.made_by(ran.study, who, folder):
        yield "the model is not what the contributors of the certificate make"
    for site, (again, unpaid) in debts(workspace, certificate).items():
        if again:
            yield f"{site} was debited {again} times for what it had paid"
        if unpaid:
            yield f"{site} released {unpaid} updates without a debit"


def debts(workspace: Workspace, certificate: Certificate) -> dict[str, tuple[int, int]]:
    """Return how often each site paid twice for a round, and how often it did not pay for one."""
    found = {}
    for site in certificate.sites:
        spent = proofs.spent(workspace, site, certificate.study)
        gave = {n for n in range(1, 1 + certificate.rounds_applied) if _gave(certificate, n, site)}
        unpaid = len([number for number in gave if not spent.reserved[number]])
        again = spent.reserved.total() - len(spent.reserved)
        found[site] = again, max(unpaid, spent.without_debit)
    return found


def contributors(certificate: Certificate, number: int) -> frozenset[str]:
    cells = (cell for cell in certificate.matrix if cell.round == number)
    return frozenset(cell.site for cell in cells if cell.outcome == "contributed")


def _gave(certificate: Certificate, number: int, site: str) -> bool:
    return site in contributors(certificate, number)


def excused(ran: Ran) -> int:
    """Return how often a site that nothing struck was missing because it got no processor."""
    return sum(is_excused for *_, is_excused in _problems(ran))


def _problems(ran: Ran) -> Iterator[tuple[str, bool]]:
    """Yield what the schedule says against the outcomes, and whether a busy machine excuses it."""
    opened: dict[tuple[int, int], Facts] = {}
    for event in ran.events:
        place = event.get("round", 0), event.get("attempt", 0)
        if event.get("event") == "round-opened":
            opened[place] = event
        elif event.get("event") in _CLOSED:
            where = f"round {event['round']} attempt {event['attempt']}"
            if not (opening := opened.get(place)):
                yield f"{where} closed and had not opened", False
                continue
            for site, cell in event["sites"].items():
                outcome = cell["outcome"]
                problem = _unfounded(ran, site, outcome, opening["at"], event["at"])
                if problem and cell.get("code") != "too-slow":  # what it was late for was judged
                    is_missing = outcome != "contributed"
                    yield f"{where}: {problem}", is_missing and _was_starved(site, opening, event)


def _left_out_for_long(ran: Ran) -> Iterator[str]:
    """Yield who was left out of two whole rounds in a row: of so few it may only be one."""
    last: dict[str, int] = {}
    for event in ran.events:
        if event.get("event") != "round-applied":
            continue
        for site, cell in event["sites"].items():
            if cell.get("code") == "too-slow":
                if last.get(site) == event["round"] - 1:
                    yield f"round {event['round']}: {site} is left out again"
                if event["attempt"] == 1:
                    last[site] = event["round"]


def _was_starved(site: str, opening: Facts, event: Facts) -> bool:
    """Return whether a thread on its way waited for a processor for half of an attempt."""
    before, after = (one.get("waited", {}).get(site, {}) for one in (opening, event))
    longest = max((s - before.get(thread, 0.0) for thread, s in after.items()), default=0.0)
    return bool(longest > _STARVED * (event["at"] - opening["at"]))


def _unfounded(ran: Ran, site: str, outcome: str, since: float, at: float) -> str:
    """Return what the schedule says against an outcome in an attempt."""
    strikes = [one for one in ran.strikes if one.site == site]
    if outcome == "contributed":
        cut_off = [one for one in strikes if _is_off(one) and one.at < since and one.until > at]
        return f"{site} contributed through a {cut_off[0].fault.kind}" if cut_off else ""
    felt = [one for one in strikes if one.at < at and one.until + _AFTER_S > since]
    return "" if felt else f"{site} is {outcome} although nothing struck it"


def _is_off(strike: Strike) -> bool:
    return strike.fault.kind in _CERTAIN


def _had_no_quorum(ran: Ran, at: float) -> bool:
    sites, quorum = len(ran.study.file.sites), ran.study.file.rounds.quorum
    struck = {one.site for one in ran.strikes if one.at < at < one.until + _AFTER_S}
    return sites - len(struck) < quorum
