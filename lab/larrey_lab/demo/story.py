"""The demonstration, step by step: exactly the programs, files and commands of real hospitals.

What only a demonstration may do is said where it is done: it owns all four public data files, so
it can hold patients out and score models in one place.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larrey_client.local import ask
from larrey_client.settings import load_settings
from larrey_lab.demo.examples import example
from larrey_lab.demo.folder import fresh_folder, note_sandbox
from larrey_lab.demo.screen import Screen
from larrey_lab.facts import DemoFacts, RefusalFacts, RoundFacts
from larrey_lab.federation.paperwork import DECISION, grant
from larrey_lab.federation.processes import Federation, run_command, typed
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_lab.heart import HOSPITALS, read_heart
from larrey_lab.tables import Row, SiteTables, split_rows, write_csv
from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import LarreyError
from larrey_protocol.study import DpSgd, Study, load_study
from larrey_server.operator import Operator
from larrey_server.settings import load_operator

__all__ = ["BUDGET", "Run", "tell"]

BUDGET = 2.0  # epsilon per patient that each site's dataset may spend over all studies
_POLICY = {"min_noise_multiplier": 5.0, "max_epsilon_per_study": 1.5, "max_delta": 1e-5}
_HELD_OUT, _SPLIT_SEED = 0.3, 0
Facts = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class Run:
    """What a real run left behind for the closing chapters."""

    folder: Path
    study: Study
    held_out: Mapping[str, list[Row]]
    tables: SiteTables
    rounds: tuple[RoundFacts, ...]
    epsilon_by_round: Mapping[str, tuple[float, ...]]
    refusal: RefusalFacts
    outcome: str
    seconds_to_first_round: float
    sites: Mapping[str, Facts]  # ledger and audit facts of each site


def tell(out: Path, screen: Screen, *, splits: int, keep: bool) -> DemoFacts:
    """Return what happened; files lie in ``out/heart``.

    Raises:
        LarreyError: a program did not start, a step was refused, a chain did not verify.
    """
    from larrey_lab.demo.closing import close

    study = load_study(example("heart") / "study.toml")
    folder = fresh_folder(out / study.name)
    tables = read_heart()
    with Federation(_prepare(folder, study, tables, screen)) as federation:
        run = _run(federation, study, tables, screen)
        if keep:
            note_sandbox(folder, federation.processes)
            _say_how_to_look_around(federation, screen)
            federation.forget()
    facts = close(run, screen, splits=splits)
    screen.summary(facts, str(folder))
    return facts


def _prepare(folder: Path, study: Study, tables: SiteTables, screen: Screen) -> Any:
    """Write the workspace: each site gets its own training rows only; nobody gets held-out rows."""
    screen.step("Writing one coordinator, one operator and four hospital folders")
    with tempfile.TemporaryDirectory() as name:
        plans = []
        for site in study.file.site_names:
            training, _ = split_rows(tables, site, held_out=_HELD_OUT, seed=_SPLIT_SEED)
            data = Path(name) / f"{site}.csv"
            write_csv(data, tables.columns, training)
            plans.append(
                SitePlan(site, data, study.name, epsilon=BUDGET, unit=tables.unit, policy=_POLICY)
            )
            screen.detail(f"{_title(site):<14} {len(training)} patients to train on, own keys")
        return create_workspace(folder, plans)


def _run(federation: Federation, study: Study, tables: SiteTables, screen: Screen) -> Run:
    workspace = federation.workspace
    screen.step("Starting larrey serve and four larrey-site run; gRPC with mutual TLS on loopback")
    federation.start_coordinator()
    federation.start_sites()
    with Operator(load_operator(workspace.operator)) as operator:
        grant(workspace, operator, study)
        screen.step("Signed: a roster under the consortium's key, a permit by its lead")
        digest = operator.propose(study)
        screen.step(
            f"Proposed study '{study.name}', signed by the consortium's lead: {digest[7:19]}…"
        )
        _approve(federation, study, screen)
        operator.launch(digest)
        events = _watch(operator, digest, workspace.sites, screen)
        shutil.copyfile(example("heart") / "study.toml", workspace.folder / "study.toml")
        shutil.copyfile(example("heart") / "contract.toml", workspace.folder / "contract.toml")
        _export(operator, digest, workspace.folder, study.file.training.rounds)
        refusal = _ask_too_much(operator, federation, study, screen)
    screen.step("Verifying every ledger and audit trail")
    sites = {site: _site_facts(federation, site) for site in workspace.sites}
    held_out = {
        site: split_rows(tables, site, held_out=_HELD_OUT, seed=_SPLIT_SEED)[1]
        for site in workspace.sites
    }
    return Run(
        folder=workspace.folder,
        study=study,
        held_out=held_out,
        tables=tables,
        rounds=tuple(_round_facts(event) for event in events if event.get("event") == _APPLIED),
        epsilon_by_round=_epsilon_by_round(events, workspace.sites),
        refusal=refusal,
        outcome=str(events[-1]["status"]["outcome"]),
        seconds_to_first_round=next(e["_seconds"] for e in events if e.get("event") == _APPLIED),
        sites=sites,
    )


_APPLIED = "round-applied"


def _approve(federation: Federation, study: Study, screen: Screen) -> None:
    """Let each hospital's officer read and sign, with the hospital's own commands."""
    workspace = federation.workspace
    decision = workspace.folder / "decision.txt"  # stands for the authority's document
    decision.write_bytes(DECISION)

    def sign(site: str) -> str:
        _await_study(federation, site, study.name)
        officer = ("--key", str(workspace.site_key(site, "dpo")))
        permit = (study.file.study.permit, "--document", str(decision))
        _site(federation, site, "policy", "sign", *officer)
        _site(federation, site, "permit", "countersign", *permit, *officer)
        _site(federation, site, "data", "add", study.name, *officer)
        _site(federation, site, "study", "approve", study.name, *officer)
        _await_figures(federation, site)
        return site

    with ThreadPoolExecutor(len(workspace.sites)) as pool:
        for site in pool.map(sign, workspace.sites):
            screen.detail(f"{_title(site)}'s officer signed policy, permit, data and study")
    screen.detail(f"each with: larrey-site study approve {study.name} --key dpo.key")


def _await_figures(federation: Federation, site: str, limit_s: float = 10.0) -> None:
    """Give the site time to compute its exact epsilon; later it would state an upper bound."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and not _ask(federation, site, "status")["epsilon_ready"]:
        time.sleep(0.2)


def _await_study(
    federation: Federation, site: str, name: str, *, refused: bool = False, limit_s: float = 30.0
) -> Facts:
    """Return the site's view of a study once it has arrived there, or was ``refused`` too."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        for view in _ask(federation, site, "study list"):
            if view["name"] == name and (view["state"] == "refused" or not refused):
                return dict(view)
        time.sleep(0.1)
    raise LarreyError("not-proposed", f"study {name} did not reach {site} in time")


def _ask(federation: Federation, site: str, question: str) -> Any:  # Any: JSON
    """Return a node's answer at its own door: waiting starts no program each time."""
    return ask(load_settings(federation.workspace.site(site)).site.state, question)


def _watch(operator: Operator, digest: str, sites: tuple[str, ...], screen: Screen) -> list[Facts]:
    screen.step("Training: each hospital on its own rows; only clipped, noised updates leave")
    screen.detail("at once, here only: elsewhere answers leave at padded times")
    events: list[Facts] = []
    with screen.watching(dict.fromkeys(sites, BUDGET)) as progress:
        for event in operator.watch(digest):
            progress.show(event.get("status", event))
            events.append({**event, "_seconds": screen.seconds})
    return [event for event in events if "status" in event]


def _export(operator: Operator, digest: str, folder: Path, rounds: int) -> None:
    """Save the model after every round and the signed certificate."""
    (folder / "rounds").mkdir()
    for number in range(rounds + 1):
        operator.model(digest, number, folder / "rounds" / f"round-{number:04d}.safetensors")
    operator.model(digest, -1, folder / "model.safetensors")
    signed = operator.certificate(digest)
    (folder / "certificate.json").write_bytes(signed.to_bytes() + b"\n")


def _ask_too_much(
    operator: Operator, federation: Federation, study: Study, screen: Screen
) -> RefusalFacts:
    """Propose a study with less noise than the hospitals' policy asks for."""
    bold = _bold(study)
    privacy = bold.file.privacy
    asked = f"noise multiplier {getattr(privacy, 'noise_multiplier', 0):g}"
    screen.step(f"Proposing '{bold.name}' on purpose: {asked}, too little for these hospitals")
    site = federation.workspace.sites[0]
    before = _site(federation, site, "ledger")
    digest = operator.propose(bold)
    view = _await_study(federation, site, bold.name, refused=True)
    after = _site(federation, site, "ledger")
    spent = after[0]["epsilon_spent"] - before[0]["epsilon_spent"]
    if spent != 0:
        raise LarreyError("demo-broken", f"{site} spent budget on {digest}, which it refused")
    allowed = f"at least {_POLICY['min_noise_multiplier']:g}"
    sentence = f"{asked}, where the policy allows {allowed}"
    screen.detail(f"{_title(site)} refused by itself [{view['code']}]: {sentence}; nothing spent")
    return RefusalFacts(bold.name, site, view["code"], sentence, asked, allowed, spent)


def _bold(study: Study) -> Study:
    """Return a one-round study whose epsilon is stated truly but whose noise is small."""
    privacy = study.file.privacy
    if not isinstance(privacy, DpSgd):
        raise TypeError("the demo's study is private")
    noise = 4.0
    epsilon = epsilon_pld(Mechanism(noise, privacy.sampling_rate, 1), privacy.delta)
    file = study.file.model_copy(
        update={
            "study": study.file.study.model_copy(update={"name": "bold"}),
            "training": study.file.training.model_copy(update={"rounds": 1, "spare_rounds": 0}),
            "privacy": privacy.model_copy(
                update={"noise_multiplier": noise, "epsilon": round(epsilon + 0.01, 2)}
            ),
        }
    )
    return Study(file=file, contract=study.contract)


def _site_facts(federation: Federation, site: str) -> Facts:
    proof = _site(federation, site, "audit", "verify")
    ledger = _site(federation, site, "ledger")[0]
    return {**ledger, **proof}


def _site(federation: Federation, site: str, *command: str) -> Any:  # Any: JSON
    """Return what the hospital's own command prints as JSON."""
    config = str(federation.workspace.site(site))
    done = run_command("larrey-site", *command, "--json", "--config", config)
    if done.returncode:
        words = done.stderr.strip() or f"exit status {done.returncode}"
        raise LarreyError("demo-broken", f"{site}: larrey-site {' '.join(command)}: {words}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def _round_facts(event: Facts) -> RoundFacts:
    sites = {
        name: row["code"] if row["outcome"] == "refused" else row["outcome"]
        for name, row in event["sites"].items()
    }
    return RoundFacts(int(event["round"]), float(event.get("seconds", 0.0)), 0.0, sites)


def _epsilon_by_round(events: list[Facts], sites: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {site: [] for site in sites}
    for event in events:
        if event.get("event") == _APPLIED:
            for row in event["status"]["sites"]:
                found[row["site"]].append(float(row["epsilon"] or 0.0))
    return {site: tuple(values) for site, values in found.items()}


def _say_how_to_look_around(federation: Federation, screen: Screen) -> None:
    workspace = federation.workspace
    screen.step("Everything keeps running. Look around:")
    site = workspace.site(workspace.sites[0])
    node, larrey = typed("larrey-site"), typed("larrey")
    screen.detail(f"{node} status --config {site}")
    screen.detail(f"{node} study show heart --config {site}")
    screen.detail(f"{larrey} study list --operator {workspace.operator}")
    screen.detail("stop: kill " + " ".join(map(str, federation.processes.values())))


def _title(site: str) -> str:
    return next((title for title, name in HOSPITALS if name == site), site)
