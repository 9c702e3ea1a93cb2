"""`larrey study …`: check a study file offline, and steer studies at a coordinator."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larrey_server import cli_certificate, cli_on_call, cli_orders, cli_versions
from larrey_server.cli_build import (
    STUDY,
    Subparsers,
    add_foreign,
    group,
    online,
    open_operator,
    print_facts,
    print_table,
    verb,
)

if TYPE_CHECKING:
    from larrey_protocol.study import Study

__all__ = ["command"]

_CHECK = """examples:
  larrey study check examples/heart/study.toml
  larrey study check study.toml --json

Works without a coordinator: validates study and contract, recomputes the claimed epsilon (per
patient, add/remove neighbours, PLD, over rounds and spare rounds) and prints the digest that
hospitals sign.
"""
_PLAN = """example:
  larrey study plan study.toml

Works without a coordinator: rounds, deadlines, bytes on each site's line, and how exact an encoded
update is. What the study costs in epsilon says: larrey study check
"""
_WATCH = """example:
  larrey study watch heart --operator operator.toml

Exit status: 0 it ended COMPLETE; 3 PARTIAL; 4 FAILED; 5 a person closed it. 1: it has not ended, or
the coordinator refused or was not reached; 2: wrong usage.
"""


def command(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``study`` and its verbs to the parser."""
    verbs = group(
        commands,
        "study",
        "check, propose, launch and watch studies",
        "larrey study check examples/heart/study.toml",
    )
    check = verb(verbs, "check", "check a study file, offline", _check, _CHECK)
    check.add_argument("file", type=Path, help="study.toml; its contract lies beside it")
    check.add_argument("--json", action="store_true", help="print JSON on stdout")
    plan = verb(verbs, "plan", "say what a study asks of each site", _plan, _PLAN)
    plan.add_argument("file", type=Path, help="study.toml; its contract lies beside it")
    plan.add_argument("--json", action="store_true", help="print JSON on stdout")
    propose = online(
        verbs, "propose", "sign a study and send it", _propose, "larrey study propose study.toml"
    )
    propose.add_argument("file", type=Path, help="study.toml; its contract lies beside it")
    launch = online(
        verbs, "launch", "start an approved study", _launch, "larrey study launch heart"
    )
    launch.add_argument("study", help=STUDY)
    online(verbs, "list", "show all studies", _list, "larrey study list")
    watch = online(
        verbs, "watch", "follow a study until it ends", _watch, "larrey study watch heart"
    )
    watch.epilog = _WATCH
    watch.add_argument("study", help=STUDY)
    model = online(
        verbs, "model", "save a model", _model, "larrey study model heart --out model.safetensors"
    )
    model.add_argument("study", help=STUDY)
    model.add_argument("--round", type=int, default=-1, help="0 is the start, -1 the latest")
    model.add_argument("--out", type=Path, required=True, help="new file", metavar="FILE")
    cli_certificate.add(verbs)
    cli_versions.add(verbs)
    cli_orders.add(verbs)
    cli_on_call.add(verbs)
    add_foreign(verbs, "larrey.study")


def _check(parsed: argparse.Namespace) -> int:
    from larrey_protocol.models import model_layout
    from larrey_protocol.study import load_study
    from larrey_server.claims import check_claims
    from larrey_server.study_plan import encoding_words, traffic_of

    study = load_study(parsed.file)
    epsilon, traffic = check_claims(study), traffic_of(study)
    privacy, training = study.file.privacy, study.file.training
    facts = {
        "name": study.name,
        "version": study.file.study.version,
        "digest": study.digest,
        "purpose": study.file.study.purpose,
        "permit": study.file.study.permit,
        "features": len(study.contract.feature_names()),
        "parameters": model_layout(study).size,
        "rounds": training.rounds,
        "spare_rounds": training.spare_rounds,
        "sites": list(study.file.site_names),
        "quorum": study.file.rounds.quorum,
        "bytes_down": traffic.down,  # a round and site
        "bytes_up": traffic.up,
        "encoding": encoding_words(study),
        "mechanism": privacy.mechanism,
        "epsilon": epsilon,
        "epsilon_claimed": getattr(privacy, "epsilon", None),
        "delta": getattr(privacy, "delta", None),
        "noise_multiplier": getattr(privacy, "noise_multiplier", None),
        "unit": f"{study.contract.unit.name} (column {study.contract.unit.column})",
    }
    print_facts(facts, as_json=parsed.json)
    if epsilon is None:
        sys.stderr.write("no differential privacy: a site refuses unless its policy allows it\n")
    return 0


def _plan(parsed: argparse.Namespace) -> int:
    from larrey_protocol.study import load_study
    from larrey_server.study_plan import plan_words

    print_facts(plan_words(load_study(parsed.file)), as_json=parsed.json)
    return 0


def _propose(parsed: argparse.Namespace) -> int:
    from larrey_protocol.canonical import short
    from larrey_protocol.study import load_study
    from larrey_server.claims import check_claims

    study = load_study(parsed.file)
    check_claims(study)
    with open_operator(parsed) as operator:
        _require_one(study, operator.list(), parsed.file)
        digest = operator.propose(study)
    print_facts({"name": study.name, "digest": digest}, as_json=parsed.json)
    sys.stderr.write(f"proposed; each site decides: larrey-site study show {short(digest)}\n")
    return 0


def _require_one(study: Study, present: Sequence[dict[str, Any]], file: Path) -> None:  # Any: JSON
    """Refuse a second first version under one name: nobody could tell the two apart by it."""
    from larrey_protocol.errors import Refusal

    others = [facts for facts in present if facts["name"] == study.name]
    if study.file.study.version > 1 or study.digest in {facts["digest"] for facts in others}:
        return
    if others:
        raise Refusal(
            "study-known",
            f"a study '{study.name}' was proposed already and says something else",
            f"Change it: larrey study amend {file}; or give the new one another name.",
        )


def _launch(parsed: argparse.Namespace) -> int:
    from larrey_server.cli_status import describe

    with open_operator(parsed) as operator:
        facts = operator.launch(parsed.study)
    sys.stdout.write((json.dumps(facts) if parsed.json else describe(facts)) + "\n")
    sys.stderr.write(f"launched; follow it: larrey study watch {parsed.study}\n")
    return 0


def _list(parsed: argparse.Namespace) -> int:
    with open_operator(parsed) as operator:
        studies = operator.list()
    if parsed.json:
        sys.stdout.write(json.dumps(studies) + "\n")
        return 0
    head = ("STUDY", "VERSION", "DIGEST", "STATE", "ROUND", "SITES", "PERMIT", "REMARK")
    print_table(head, [_row(facts) for facts in studies])
    if not studies:
        sys.stderr.write("no studies yet; propose one: larrey study propose study.toml\n")
    return 0


def _row(facts: dict[str, Any]) -> tuple[object, ...]:  # Any: JSON
    from larrey_server.cli_status import remark

    answers = ("approved", "refused", *(() if facts["outcome"] else ("outdated", "silent")))
    return (
        facts["name"],
        facts["version"],
        facts["digest"][7:19],
        facts["outcome"] or facts["state"],
        f"{facts['round']}/{facts['rounds']}" if facts["round"] else "",
        ", ".join(f"{len(facts[name])} {name}" for name in answers if facts[name]),
        f"{facts['permit']} {facts['permit_state']}",
        remark(facts),
    )


def _watch(parsed: argparse.Namespace) -> int:
    from larrey_server.cli_watch import follow

    with open_operator(parsed) as operator:
        return follow(operator.watch(parsed.study), as_json=parsed.json)


def _model(parsed: argparse.Namespace) -> int:
    with open_operator(parsed) as operator:
        size = operator.model(parsed.study, parsed.round, parsed.out)
    print_facts({"file": str(parsed.out), "bytes": size}, as_json=parsed.json)
    return 0
