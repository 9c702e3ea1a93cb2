"""Ten failures that hospital federations had in the field, played again with their right outcome.

    python tests/chaos field --out FOLDER [--id F1 …]

`field.toml` says what happened and what must hold; the function of each id below plays it. The
figures go into ``field.json``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from larrey_client.local import ask
from larrey_protocol.certificates import (
    Credential,
    issue_client,
    issue_server,
    make_authority,
    replace_file,
)
from larrey_protocol.errors import LarreyError
from larrey_server.presence import SILENCE_S
from tests.chaos import proofs
from tests.chaos.field_disks import DISKS, MOUNTED
from tests.chaos.field_machine import LAST_MACHINES, MACHINES
from tests.chaos.field_stand import SITES, Field, open_field
from tests.chaos.proxy import Fault
from tests.system.hospitals import DATASET, until

Scenario = Callable[[Field], None]
_LISTED = Path(__file__).with_name("field.toml")
_CUT = Fault("partition")
_APART = ("unshare", "-rm")


@dataclass(frozen=True)
class Entry:
    """One line of ``field.toml``."""

    id: str
    happened: str
    holds: str
    play: str  # a function here, or a test by its address
    is_quick: bool = True  # part of the suite, too
    is_last: bool = False  # leaves a stand that nobody mends


def listed() -> list[Entry]:
    """Return all scenarios in their order."""
    entries = tomllib.loads(_LISTED.read_text())["scenario"]
    return [Entry(**entry) for entry in entries]


def slow_site(field: Field) -> None:
    """F1: training takes twenty times as long; it goes on polling and nobody is given up."""
    field.order("gamma", "slow")
    digest = field.hospitals.launch(field.study())
    until(lambda: field.state(digest, "gamma") == "working")
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome == "COMPLETE"
    marks = [m.label for m in field.gamma.trace()]
    start = len(marks) - 1 - marks[::-1].index("trainer.training-begun")
    end = start + marks[start:].index("trainer.update-made")
    assert "agent.polling" in marks[start - 10 : end], "it asked for nothing while it trained"
    assert field.gamma.deaths == []


def slow_site_with_a_history(field: Field) -> None:
    """F1: a site that becomes slow is waited for by its own history, and the study goes on."""
    digest = field.hospitals.launch(field.study(rounds=4, deadline_s=20.0))
    until(lambda: field.hospitals.status(digest)["applied"] >= 2)
    field.order("gamma", "slow")
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome in {"COMPLETE", "PARTIAL"}
    assert certificate.rounds_applied == 4
    assert set(field.outcomes(certificate, "gamma")) <= {"contributed", "late"}
    for site in SITES[:2]:
        assert field.outcomes(certificate, site) == ["contributed"] * 4
    field.order("gamma")  # else it would train on under the orders of the next scenario
    state = field.hospitals.config("gamma").parent / "state"
    until(lambda: not ask(state, "status")["at_work"])


def lost_device(field: Field) -> None:
    """F2: the device goes away in the middle of a round and comes back for the next."""
    field.order("gamma", "hold", "lost")
    field.order("alpha", "hold")
    digest = field.hospitals.launch(field.study())
    _trains(field, "gamma", digest)
    field.order("gamma", "lost")
    until(lambda: field.state(digest, "gamma") == "refused", 20)  # one heartbeat
    field.order("gamma")
    field.order("alpha")
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome == "PARTIAL"
    assert field.outcomes(certificate, "gamma") == ["device-lost", "contributed"]
    assert field.hospitals.rounds_used("gamma", digest) == 2  # what was reserved stays


def killed_node(field: Field) -> None:
    """F3: after SIGKILL the node is admitted by itself, and not called alive before that."""
    assert field.probe("/livez") == field.probe("/readyz") == 200
    field.line.strike(_CUT)
    field.kill(field.gamma)
    until(lambda: field.probe("/livez") == 503, 30)
    assert field.probe("/readyz") == 503
    field.line.heal()
    until(lambda: field.probe("/livez") == field.probe("/readyz") == 200, 60)
    digest = field.hospitals.launch(field.study())
    assert field.hospitals.finish(digest).outcome == "COMPLETE"


def late_update(field: Field) -> None:
    """F5: an update that comes after its round is late, applied never, and harms nobody."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study(deadline_s=4.0))
    _trains(field, "gamma", digest)
    with field.hospitals.operator() as operator:
        operator.command(digest, "pause")  # once the round is over: nothing newer is asked then
    before = field.gamma.count("agent.answer-committed")
    field.line.strike(Fault("stall"))
    field.order("gamma")
    until(lambda: field.gamma.count("agent.answer-committed") > before)
    until(lambda: field.hospitals.status(digest)["state"] == "paused", 20)
    assert _late(field, digest) == []
    field.line.heal()
    until(lambda: _late(field, digest) == [(1, "gamma")])
    with field.hospitals.operator() as operator:
        operator.command(digest, "resume")
    certificate = field.hospitals.finish(digest)
    assert field.outcomes(certificate, "gamma") == ["late", "contributed"]
    assert certificate.outcome == "PARTIAL"
    assert _late(field, digest) == [(1, "gamma")]
    assert proofs.times_applied(field.stand.workspace, digest) == [1, 2]
    assert proofs.spent(field.stand.workspace, "gamma", digest).reserved == {1: 1, 2: 1}


def cut_link(field: Field, units: float = 1.0, rounds: int = 4) -> None:
    """F6: a link is cut for a while; its site answers what it has and goes on by itself."""
    unit_s = 3.0  # a round's deadline, which stands for ten minutes
    deaths = len(field.gamma.deaths)  # of scenarios before
    field.order("gamma", "hold")
    study = field.study(rounds=rounds, deadline_s=unit_s, patience=100.0)  # alpha becomes slow
    digest = field.hospitals.launch(study)
    _trains(field, "gamma", digest)
    field.order("alpha", "slow")  # so that there is a study left when the line is back
    committed = field.gamma.count("agent.answer-committed")
    field.line.strike(_CUT)
    cut_at = time.monotonic()
    field.order("gamma")
    until(lambda: field.gamma.count("agent.answer-committed") > committed)  # it is kept there
    until(lambda: field.hospitals.status(digest)["applied"] >= 1, 30)
    time.sleep(max(0.0, cut_at + units * unit_s - time.monotonic()))  # what an outage is
    field.line.heal()
    applied = field.hospitals.status(digest)["applied"]
    assert applied < rounds - 1, "the study was over before the outage"
    until(lambda: field.state(digest, "gamma") in {"working", "answered"}, 60)  # it joins
    field.order("alpha")
    certificate = field.hospitals.finish(digest)
    assert certificate.rounds_applied == rounds
    outcomes = field.outcomes(certificate, "gamma")
    missed = len([one for one in outcomes if one != "contributed"])
    assert outcomes[0] in {"late", "absent"}, outcomes
    assert outcomes[missed:] == ["contributed"] * (rounds - missed), outcomes  # and stays
    assert max(1, applied) <= missed <= applied + 2, (applied, outcomes)
    for site in SITES[:2]:
        assert field.outcomes(certificate, site) == ["contributed"] * rounds
    assert certificate.outcome == "PARTIAL"
    assert len(field.gamma.deaths) == deaths
    assert proofs.spent(field.stand.workspace, "gamma", digest).without_debit == 0


def cut_link_for_hours(field: Field) -> None:
    """F6: the same for three hours, of which a round's deadline stands for ten minutes."""
    cut_link(field, units=18.0, rounds=32)


def full_shared_memory(field: Field) -> None:
    """F7: shared memory of a container is measured; where it is full, the code says so."""
    status, found = field.doctor("mount -t tmpfs -o size=64m larrey /dev/shm")
    assert status == 0  # a warning: not every app uses it
    assert "64 MiB" in found["shared-memory-small"]
    assert "--shm-size" in found["shared-memory-small"]
    field.order("gamma", "bus")
    digest = field.hospitals.launch(field.study())
    until(lambda: field.hospitals.status(digest)["applied"] >= 1)
    field.order("gamma")
    certificate = field.hospitals.finish(digest)
    assert field.outcomes(certificate, "gamma")[0] == "shared-memory-full"
    assert certificate.outcome == "PARTIAL"


def missing_site(field: Field) -> None:
    """F8: a study that lacks a site from the first round on says so and never COMPLETE."""
    study = field.study()
    digest = field.hospitals.propose(study)
    _take_away(field)
    with field.hospitals.operator() as operator:
        operator.launch(digest)
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome == "PARTIAL"
    assert field.outcomes(certificate, "gamma") == ["absent", "absent"]


def required_site(field: Field) -> None:
    """F8: a study does not begin without a site that it requires, and costs nothing meanwhile."""
    digest = field.hospitals.propose(field.study(required=["gamma"]))
    _take_away(field)
    with field.hospitals.operator() as operator:
        operator.launch(digest)
    until(lambda: field.hospitals.status(digest)["state"] == "gathering")
    assert field.hospitals.rounds_used("alpha", digest) == 0
    field.line.heal()
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome == "COMPLETE"
    assert proofs.spent(field.stand.workspace, "alpha", digest).reserved == {1: 1, 2: 1}


def readonly_data(field: Field) -> None:
    """F4: rows are on a read-only volume; whoever wants to write there is told before."""
    place = field.rows / "gamma"
    mount = f"mount --bind {place} {place}\nmount -o remount,bind,ro {place}"
    status, found = field.doctor(mount)
    assert (status, "state-read-only" in found) == (0, False)
    state = field.hospitals.config("gamma").parent / "state"
    mount = f"mount --bind {state} {state}\nmount -o remount,bind,ro {state}"
    status, found = field.doctor(mount)
    assert status == 1
    assert f"site.state: {state}" in found["state-read-only"]
    assert "writable volume" in found["state-read-only"]
    for site in SITES:  # after whatever trained here
        assert [file.name for file in (field.rows / site).iterdir()] == [f"{DATASET}.csv"]


def rotated_authority(field: Field) -> None:
    """F9: the coordinator's authority is another one; gamma starts with a kit of the old one."""
    workspace, now = field.stand.workspace, dt.datetime.now(dt.UTC)
    study = field.study()
    digest = field.hospitals.propose(study)
    new = make_authority("larrey-rotated", now=now)
    _certify(workspace.coordinator.parent, new, issue_server(new, ["localhost"], now=now))
    _certify(workspace.operator.parent, new, issue_client(new, "operator", now=now))
    for site in SITES[:2]:
        _certify(workspace.site(site).parent, new, issue_client(new, site, now=now))
    for program in (field.stand.coordinator, *field.stand.sites.values()):
        field.kill(program)
    until(lambda: field.probe("/livez") == field.probe("/readyz") == 503, SILENCE_S)
    until(lambda: "coordinator-untrusted" in field.gamma.tail(), SILENCE_S)
    status, found = field.doctor()
    assert status == 1
    assert "CN=larrey-rotated" in found["coordinator-untrusted"]
    assert "coordinator.authority" in found["coordinator-untrusted"]
    until(lambda: _launched(field, digest), SILENCE_S)
    until(lambda: field.state(digest, "gamma") == "away", SILENCE_S)
    certificate = field.hospitals.finish(digest)
    assert (certificate.outcome, certificate.rounds_applied) == ("PARTIAL", 2)
    assert field.outcomes(certificate, "gamma") == ["absent", "absent"]


SCENARIOS: dict[str, Scenario] = {
    act.__name__: act
    for act in (
        slow_site,
        slow_site_with_a_history,
        lost_device,
        killed_node,
        readonly_data,
        late_update,
        cut_link,
        cut_link_for_hours,
        full_shared_memory,
        missing_site,
        required_site,
        *MACHINES,
        *DISKS,
        *LAST_MACHINES,
        rotated_authority,
    )
}


MOUNTING = (*MOUNTED, readonly_data, full_shared_memory)  # need mounts of their own


def _late(field: Field, study: str) -> list[tuple[int, str]]:
    with proofs.looking(field.stand.workspace) as journal:
        found = [r for r in journal.audit() if (r.study, r.action) == (study, "answer-late")]
    return [(record.round, record.subject) for record in found]


def _certify(home: Path, authority: Credential, own: Credential) -> None:
    replace_file(home / "ca.crt", authority.certificate, mode=0o644)
    replace_file(home / "tls.crt", own.certificate, mode=0o644)
    replace_file(home / "tls.key", own.key)


def _launched(field: Field, study: str) -> bool:
    with suppress(LarreyError), field.hospitals.operator() as operator:
        operator.launch(study)
        return True
    return False


def _take_away(field: Field) -> None:
    """Cut gamma's line and wait until the coordinator knows."""
    log, mark = field.stand.coordinator.log, "site down site=gamma"
    before = log.read_text().count(mark)
    field.line.strike(Fault("reset"))
    until(lambda: log.read_text().count(mark) > before, 60)


def _trains(field: Field, site: str, study: str) -> None:
    """Wait until a site has reserved its first round and trains."""
    until(lambda: field.state(study, site) == "working")
    until(lambda: field.hospitals.rounds_used(site, study) == 1)


def _facts(field: Field) -> str:
    """Return what coordinator and gamma said last, for whoever asks why."""
    with suppress(LarreyError), field.hospitals.operator() as operator:
        newest = operator.list()[-1:]
        return f"{newest}\n{field.stand.coordinator.tail()}\n{field.gamma.tail()}"
    return field.stand.coordinator.tail()


def may_mount() -> bool:
    """Return whether this account may make a namespace with mounts of its own."""
    try:
        mount = ["mount", "-t", "tmpfs", "larrey", "/mnt"]
        return not subprocess.run([*_APART, *mount], check=False, capture_output=True).returncode
    except FileNotFoundError:
        return False


def play(entry: Entry, field: Field) -> float:
    """Play one scenario, mend what it broke and return the seconds it took."""
    began = time.monotonic()
    try:
        SCENARIOS[entry.play](field)
    except (AssertionError, LarreyError, OSError) as error:
        error.add_note(_facts(field))  # before it is mended
        raise
    finally:
        if not entry.is_last:
            field.mend()
    return time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Play all that are functions here, print a line each, and write ``field.json``."""
    parser = argparse.ArgumentParser(prog="python tests/chaos field")
    parser.add_argument("--out", type=Path, required=True, help="folder for field.json")
    parser.add_argument("--id", action="append", help="only this one; may be repeated")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    given = sys.argv[2:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    if not options.apart and may_mount():  # from the start again, where mounts are nobody else's
        os.execvp("unshare", [*_APART, sys.executable, *sys.argv[:1], "field", *given, "--apart"])
    chosen = [e for e in listed() if e.play in SCENARIOS and (not options.id or e.id in options.id)]
    seconds: dict[str, float] = {}
    skipped = [] if options.apart else [e for e in chosen if SCENARIOS[e.play] in MOUNTING]
    for entry in skipped:
        chosen.remove(entry)
        sys.stdout.write(f"{entry.id:4} {entry.play:26} not played: no mounts are allowed here\n")
    scratch = tempfile.TemporaryDirectory(prefix="larrey-field-")
    with scratch as folder, open_field(Path(folder), has_disks=options.apart) as field:
        for entry in chosen:
            try:
                seconds[entry.play] = play(entry, field)
                said = f"{seconds[entry.play]:6.1f} s  survived"
            except (AssertionError, LarreyError, OSError):
                said = f"    failed\n{traceback.format_exc()}"
            sys.stdout.write(f"{entry.id:4} {entry.play:26} {said}\n")
            sys.stdout.flush()
    figures = {
        "scenarios_played": len(chosen),
        "scenarios_survived": len(seconds),
        "scenarios_not_played": [entry.play for entry in skipped],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "field.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if len(seconds) == len(chosen) else 1


__all__ = ["SCENARIOS", "Entry", "listed", "main", "play"]
