"""After the run: score the exported models, compare over splits, verify, write the files."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from larrey_client.data.cohort import load_cohort
from larrey_lab.demo.screen import Screen
from larrey_lab.demo.story import BUDGET, Run
from larrey_lab.evaluation import auc, bootstrap_auc
from larrey_lab.facts import DemoFacts, HospitalFacts, RunFile
from larrey_lab.heart import HOSPITALS
from larrey_lab.rehearsal import Scores, cohorts_of, scores
from larrey_lab.report import render
from larrey_lab.tables import write_csv
from larrey_lab.utility import measure
from larrey_privacy.cohort import Cohort
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.signed import Certificate, Signed, open_signed
from larrey_protocol.study import DpSgd

__all__ = ["close"]

_FILES = (
    ("report.html", "what happened, with plots; open it in a browser"),
    ("model.safetensors", "the released model"),
    ("study.toml", "the study as proposed, with contract.toml beside it"),
    ("certificate.json", "who contributed in which round, signed by the coordinator"),
    ("facts.json", "everything the report says, for a program"),
)


def close(run: Run, screen: Screen, *, splits: int) -> DemoFacts:
    """Return the facts and write report, facts and certificate beside the model.

    Raises:
        LarreyError: ``not-verified`` if a ledger, audit trail or certificate does not hold.
    """
    torch.set_num_threads(1)  # tiny models: a second thread only costs
    _require_proofs(run)
    held = _held_out_cohort(run)
    models = [_model(run, round_facts.number) for round_facts in run.rounds]
    areas = [auc(held.label, _scores(run, model, held)) for model in models]
    rounds = tuple(replace(r, auc=area) for r, area in zip(run.rounds, areas, strict=True))
    score = _scores(run, models[-1], held)
    screen.step(f"Comparing over {splits} repeated splits: alone, federated, with and without DP")
    with screen.counting(splits, "splits") as progress:
        utility = measure(
            run.study,
            cohorts_of(run.tables, run.study),
            seeds=range(splits),
            held_out=0.3,
            repeats=3,  # takes the chance of one noise draw out of the printed gap
            progress=progress,
        )
    study, privacy = run.study.file, run.study.file.privacy
    if not isinstance(privacy, DpSgd):
        raise TypeError("the demo's study is private")
    facts = DemoFacts(
        study=run.study.name,
        version=study.study.version,
        title=study.study.title,
        question=study.study.question,
        digest=run.study.digest,
        outcome=run.outcome,
        finished_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        unit=f"{run.study.contract.unit.name} at one hospital",
        relation="adding or removing that patient",
        accountant="PLD, beside a binding Rényi filter of fixed order",
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        mechanism=_mechanism(run, privacy),
        hospitals=tuple(_hospital(run, name) for name in study.site_names),
        rounds=rounds,
        run=bootstrap_auc(held.label, score, held.patient),
        run_patients=held.patients,
        utility=utility,
        refusal=run.refusal,
        files=_files(run.folder),
        seconds_to_first_round=run.seconds_to_first_round,
        seconds_total=screen.seconds,
    )
    (run.folder / "report.html").write_text(render(facts), encoding="utf-8")
    (run.folder / "facts.json").write_text(json.dumps(facts.as_json(), indent=2) + "\n")
    return facts


def _require_proofs(run: Run) -> None:
    """Check what a doubting reader would: chains at the sites, the certificate's signature."""
    broken = [name for name, facts in run.sites.items() if not facts["is_intact"]]
    if broken:
        raise LarreyError("not-verified", f"ledger or audit trail of {broken[0]} does not hold")
    signer = SigningKey.load(run.folder / "coordinator" / "signing.ed25519").public
    signed = Signed.from_bytes((run.folder / "certificate.json").read_bytes())
    certificate = open_signed(signed, Certificate, signer)
    model = digest_bytes((run.folder / "model.safetensors").read_bytes())
    if (certificate.model, certificate.study) != (model, run.study.digest):
        raise LarreyError("not-verified", "the certificate names another model or study")


def _held_out_cohort(run: Run) -> Cohort:
    """Return all sites' held-out patients as one cohort, in the contract's features."""
    parts = []
    with tempfile.TemporaryDirectory() as name:
        for site, rows in run.held_out.items():
            path = Path(name) / f"{site}.csv"
            write_csv(path, run.tables.columns, rows)
            parts.append(load_cohort(path, run.study.contract))
    offsets = np.cumsum([0, *(part.patients for part in parts)])
    return Cohort(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([p.patient + o for p, o in zip(parts, offsets, strict=False)]),
    )


def _model(run: Run, number: int) -> NDArray[np.float32]:
    path = run.folder / "rounds" / f"round-{number:04d}.safetensors"
    data = path.read_bytes()
    header = len(model_layout(run.study).header)
    return np.frombuffer(data, "<f4", offset=header)


def _scores(run: Run, model: NDArray[np.float32], held: Cohort) -> Scores:
    return scores(run.study, model.copy(), held.features)


def _hospital(run: Run, name: str) -> HospitalFacts:
    facts = run.sites[name]
    return HospitalFacts(
        name=name,
        title=next(title for title, site in HOSPITALS if site == name),
        patients=run.study.site(name).patients,
        epsilon_by_round=run.epsilon_by_round[name],
        budget=BUDGET,
        used_share=float(facts["used_share"]),
        held_share=float(facts["held_share"]),
        ledger_entries=int(facts["ledger_entries"]),
        audit_records=int(facts["audit_records"]),
        is_verified=bool(facts["is_intact"]),
    )


def _mechanism(run: Run, privacy: DpSgd) -> str:
    training = run.study.file.training
    sampling = "every patient" if privacy.sampling_rate == 1 else f"q = {privacy.sampling_rate:g}"
    return (
        f"DP-SGD, noise multiplier {privacy.noise_multiplier:g}, clip {privacy.clip:g}, {sampling}"
        f" in each step, {training.local_steps} step a round, {training.rounds} rounds and"
        f" {training.spare_rounds} spare"
    )


def _files(folder: Path) -> tuple[RunFile, ...]:
    found = []
    for path, what in _FILES:
        is_final = path not in {"report.html", "facts.json"}  # those two are written after this
        digest = digest_bytes((folder / path).read_bytes()) if is_final else ""
        found.append(RunFile(path, what, digest))
    return tuple(found)
