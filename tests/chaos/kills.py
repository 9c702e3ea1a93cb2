"""SIGKILL at every named point of a round, one after the other, in one running study.

    python tests/chaos kills --out FOLDER [--seed N] [--study seeded|private] [--label LABEL …]

A coordinator and three sites run as a hospital runs them; each point is armed in turn, the process
that comes there ends itself, the supervisor starts it again, and the study goes on. Then `check`
holds what is left on every disk against an undisturbed run. ``kills.json`` has the figures.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from larrey_client.cost import round_mechanism
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import LarreyError
from larrey_protocol.study import DpSgd, Study
from tests.chaos import proofs
from tests.chaos.points import Point, points
from tests.chaos.recovery import Kill, kills_at_coordinator, kills_at_site
from tests.chaos.stand import APPS, Program, Stand
from tests.system.hospitals import DATASET, Hospitals, make_study, table, until

SITES = ("alpha", "beta", "gamma")
Kind = Literal["seeded", "private"]
Say = Callable[[str], None]
_SPARES = 30
_ROUNDS_A_POINT = 2  # that pass while one is armed, hit and recovered from, on average
_LIMIT_S = 60.0
# What makes a process start again, so that a point of its start is reached; costs nothing.
_BEFORE = {"coordinator": "coordinator.task-sent", "site": "agent.task-taken"}


@dataclass(frozen=True)
class Storm:
    """A study during which processes died."""

    study: Study
    kills: tuple[Kill, ...]
    seconds: float


def study_of(name: str, kind: Kind, rounds: int) -> Study:
    """Return a study that every site has to contribute to, in every round."""
    training: dict[str, Any] = {"rounds": rounds, "spare_rounds": _SPARES, "learning_rate": 1.0}
    privacy: dict[str, Any]
    if kind == "seeded":  # what a strategy keeps between rounds is part of the bits, too
        training |= {"app": "seeded", "strategy": "fedadam", "parameters": {"eta": 0.01}}
        privacy = {"mechanism": "none", "max_update_norm": 1e3}
        hidden = [768, 800]  # more than one part of a transfer, several blocks of a sum
    else:
        # c and the sites' own state cross every kill: the model shows what was lost or made twice.
        training |= {"local_steps": 2, "learning_rate": 0.1, "strategy": "scaffold"}
        privacy = {"mechanism": "dp-sgd", "epsilon": 2.0, "delta": 1e-5, "clip": 1.0}
        privacy |= {"noise_multiplier": 60.0, "sampling_rate": 1.0}
        hidden = [768, 800]
    return make_study(
        name,
        model={"name": "mlp", "hidden": hidden},
        training=training,
        privacy=privacy,
        rounds={"quorum": len(SITES), "deadline_s": 300.0},
        sites=[{"name": site, "patients": 25} for site in SITES],
    )


def make_stand(folder: Path) -> Stand:
    """Return three sites and a coordinator whose folders are written; nothing runs yet."""
    folder.mkdir(parents=True, exist_ok=True)
    app = {
        "name": "seeded",
        "module": "seeded_app:app",
        "digest": digest_bytes((APPS / "seeded_app.py").read_bytes()),
        "unaccounted": True,
    }
    policy = {"allow_without_dp": [DATASET], "apps": [app], "min_units": 20}
    plans = []
    for number, name in enumerate(SITES):
        data = folder / f"{name}.csv"
        data.write_text(table(number))
        plans.append(SitePlan(name, data, DATASET, unit="pid", policy=policy))
    return Stand(create_workspace(folder / "federation", plans))


def calm(stand: Stand, disturbed: Study) -> None:
    """Run the same study once more and disturb nothing: it must end with the same bits."""
    rounds = disturbed.file.training.rounds
    study, hospitals = study_of("calm-seeded", "seeded", rounds), Hospitals(stand)
    assert hospitals.finish(hospitals.launch(study)).outcome == "COMPLETE"
    digests = [proofs.final_model(stand.workspace, one.digest) for one in (study, disturbed)]
    assert digests[0] == digests[1]


def rounds_for(chosen: Sequence[Point]) -> int:
    """Return how many rounds suffice to hit so many points."""
    return _ROUNDS_A_POINT * sum(point.at in {"round", "start"} for point in chosen) + 6


def storm(
    stand: Stand, study: Study, chosen: Sequence[Point], chance: random.Random, say: Say
) -> Storm:
    """Run a study to its end and kill a process at each of the chosen points meanwhile."""
    began, before = time.monotonic(), {p.name: len(p.trace()) for p in stand.programs}
    hospitals = Hospitals(stand)
    hospitals.propose(study)
    _launch(stand, hospitals, study, [p.label for p in chosen if p.at == "launch"])
    until(lambda: proofs.applied(stand.workspace, study.digest) > 0, _LIMIT_S)
    for point in chosen:
        if point.at in {"round", "start"}:
            _strike(stand, study, point, chance)
            say(point.label)
    _end(stand, [p for p in chosen if p.at == "end"], chance)
    assert hospitals.finish(study.digest).outcome == "COMPLETE"
    for point in chosen:
        if point.at in {"launch", "end"}:
            say(point.label)
    marks = {p.name: p.trace()[before[p.name] :] for p in stand.programs}
    kills = kills_at_coordinator(marks.pop("coordinator"))
    kills += [kill for site, seen in marks.items() for kill in kills_at_site(site, seen)]
    return Storm(study, tuple(kills), time.monotonic() - began)


def check(stand: Stand, ran: Storm, chosen: Sequence[Point]) -> None:
    """Hold what a study left against what must be, whatever died.

    Raises:
        AssertionError: a point was not hit, a round lost or applied twice, a debit missing or made
            for nothing, or a program ended in another way than by the kills.
    """
    study, workspace = ran.study, stand.workspace
    assert {p.label for p in chosen} <= {kill.label for kill in ran.kills}
    assert stand.unwanted_deaths() == []
    rounds = list(range(1, study.file.training.rounds + 1))
    assert proofs.times_applied(workspace, study.digest) == rounds
    by_label = {point.label: point for point in chosen}
    for kill in ran.kills:
        point = by_label.get(kill.label)
        assert point is None or point.spends in {kill.spends, "perhaps"}, kill
    for site in SITES:
        lost = sum(kill.spends for kill in ran.kills if kill.program == site)
        found = proofs.spent(workspace, site, study.digest)
        assert found.reserved.total() == len(rounds) + lost, (site, found.reserved, lost)
        assert found.released == found.answered == dict.fromkeys(rounds, 1), site


def epsilon_lost(study: Study, kills: Sequence[Kill]) -> float:
    """Return the epsilon that kills cost, summed over the sites.

    Each site's figure is per patient there, add/remove, by PLD at the study's delta.
    """
    one, privacy = round_mechanism(study), study.file.privacy
    if not isinstance(one, Mechanism) or not isinstance(privacy, DpSgd):
        return 0.0
    rounds = study.file.training.rounds
    whole = epsilon_pld(one.over(rounds), privacy.delta)
    lost = [sum(k.spends for k in kills if k.program == site) for site in SITES]
    return sum(epsilon_pld(one.over(rounds + n), privacy.delta) - whole for n in lost if n)


def figures(stand: Stand, ran: Sequence[Storm]) -> dict[str, Any]:
    """Return what the kills did, for whoever adds up all chaos."""
    kills = [kill for one in ran for kill in one.kills]
    spent = [
        (one, proofs.spent(stand.workspace, site, one.study.digest), site)
        for one in ran
        for site in SITES
    ]
    costs = {
        (one.study.digest, site): sum(k.spends for k in one.kills if k.program == site)
        for one, _, site in spent
    }
    return {
        "kill_points": len(points()),
        "kill_points_hit": len({kill.label for kill in kills}),
        "kills": len(kills),
        "seconds": round(sum(one.seconds for one in ran), 1),
        "rounds": sum(one.study.file.training.rounds for one in ran),
        "rounds_lost": sum(
            one.study.file.training.rounds
            - len(set(proofs.times_applied(stand.workspace, one.study.digest)))
            for one in ran
        ),
        "released_without_debit": sum(found.without_debit for _, found, _ in spent),
        "debits_for_resending": sum(
            found.reserved.total() - one.study.file.training.rounds - costs[one.study.digest, site]
            for one, found, site in spent
        ),
        "epsilon_lost_to_crashes": sum(epsilon_lost(one.study, one.kills) for one in ran),
        "recovery_seconds": _seconds(kill.poll_s for kill in kills),
        "training_recovery_seconds": _seconds(kill.train_s for kill in kills),
        "import_seconds": _seconds(kill.import_s for kill in kills),
        "coordinator_recovery_seconds": _seconds(kill.coordinator_s for kill in kills),
    }


def _launch(stand: Stand, hospitals: Hospitals, study: Study, labels: Sequence[str]) -> None:
    """Launch a study, also where the coordinator dies of it: what it kept, it carries out."""
    stand.coordinator.arm(*((label, 1) for label in labels))
    with suppress(LarreyError), hospitals.operator() as operator:
        operator.launch(study.digest)
    for label in labels:
        stand.coordinator.await_kill(label)


def _strike(stand: Stand, study: Study, point: Point, chance: random.Random) -> None:
    """Kill at one point and wait until a later round than that one is applied."""
    program = _program(stand, point, chance)
    orders = [(point.label, point.times(chance))]
    if point.at == "start":
        orders.insert(0, (_BEFORE["site" if point.is_at_site else "coordinator"], 1))
    program.arm(*orders)
    program.await_kill(point.label, _LIMIT_S)
    done = proofs.applied(stand.workspace, study.digest)
    assert done < study.file.training.rounds - 1, f"no round is left after {point.label}"
    try:
        until(lambda: proofs.applied(stand.workspace, study.digest) > done, _LIMIT_S)
    except AssertionError:
        said = "\n".join(f"--- {p.name}\n{p.tail()}" for p in stand.programs)
        raise AssertionError(f"after {point.label} at {program.name}: no round\n{said}") from None


def _end(stand: Stand, chosen: Sequence[Point], chance: random.Random) -> None:
    """Arm the points of a study's end, in the order in which they come, and await them."""
    armed: dict[str, tuple[Program, list[tuple[str, int]]]] = {}
    for point in chosen:
        program = armed[point.process][0] if point.process in armed else None
        program = program or _program(stand, point, chance)
        armed.setdefault(point.process, (program, []))[1].append((point.label, 1))
    for program, orders in armed.values():
        program.arm(*orders)
    for program, orders in armed.values():
        for label, _ in orders:
            program.await_kill(label, 5 * _LIMIT_S)


def _program(stand: Stand, point: Point, chance: random.Random) -> Program:
    return stand.sites[chance.choice(SITES)] if point.is_at_site else stand.coordinator


def _seconds(values: Any) -> list[float]:
    return sorted(round(value, 3) for value in values if value is not None)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile of sorted values, 0 of none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def run_seeded(stand: Stand, chosen: Sequence[Point], chance: random.Random, say: Say) -> Storm:
    """Run the seeded study through its kills: every bit must be an undisturbed run's."""
    usable = [point for point in chosen if not point.private]
    study = study_of("storm-seeded", "seeded", rounds_for(usable))
    ran = storm(stand, study, usable, chance, say)
    check(stand, ran, usable)
    alone = proofs.undisturbed(study, stand.workspace.folder / "alone")
    assert proofs.final_model(stand.workspace, study.digest) == alone
    return ran


def run_private(stand: Stand, chosen: Sequence[Point], chance: random.Random, say: Say) -> Storm:
    """Run the real training through its kills: the models must follow from the contributions."""
    study = study_of("storm-private", "private", rounds_for(chosen))
    folder = stand.workspace.folder
    spool = stand.workspace.coordinator.parent / "state" / "spool"
    with proofs.set_aside(spool, folder / "aside") as updates:
        ran = storm(stand, study, chosen, chance, say)
    check(stand, ran, chosen)
    made = proofs.replayed(stand.workspace, study, updates, folder / "replay")
    assert made == proofs.recorded(stand.workspace, study.digest)
    return ran


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every point, print a line each, and write ``kills.json``."""
    parser = argparse.ArgumentParser(prog="python tests/chaos kills")
    parser.add_argument("--out", type=Path, required=True, help="folder for kills.json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--study", choices=["seeded", "private"], action="append")
    parser.add_argument("--label", action="append", help="only this point; may be repeated")
    parser.add_argument("--folder", type=Path, help="keep all state here")
    options = parser.parse_args(arguments)
    chosen = [p for p in points() if not options.label or p.label in options.label]
    chance = random.Random(options.seed)
    wanted = options.study or ["seeded", "private"]
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  survived  {text}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="larrey-kills-") as scratch:
        stand = make_stand(options.folder or Path(scratch))
        with stand:
            ran = []
            if "seeded" in wanted:
                ran.append(run_seeded(stand, chosen, chance, say))
                calm(stand, ran[0].study)
            if "private" in wanted:
                ran.append(run_private(stand, chosen, chance, say))
        found = figures(stand, ran)
    for name in ("recovery", "training_recovery", "import", "coordinator_recovery"):
        values = found[f"{name}_seconds"]
        found[f"{name}_seconds_p95"] = quantile(values, 0.95)
    shown = {name: value for name, value in found.items() if not isinstance(value, list)}
    sys.stdout.write("".join(f"{name:32} {value}\n" for name, value in shown.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "kills.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
