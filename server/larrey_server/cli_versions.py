"""`larrey study show|amend|release`: versions of a study, and the release of its model."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larrey_server.cli_build import (
    STUDY,
    Subparsers,
    add_operator,
    online,
    open_operator,
    print_facts,
    print_table,
    verb,
)

if TYPE_CHECKING:
    from larrey_protocol.amendments import Change
    from larrey_server.operator import Operator
    from larrey_server.release import Bundle

__all__ = ["add"]

_RELEASE = """examples:
  larrey study release heart --out bundle.json --operator operator.toml
  larrey study release --verify bundle.json

The bundle holds what was signed: roster, permits, proposal, orders, certificate. --verify works
offline; compare the consortium's fingerprint that it prints by phone.
"""


def add(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verbs to ``larrey study``."""
    show = online(
        verbs, "show", "show a study, or what it changes", _show, "larrey study show heart"
    )
    show.add_argument("study", help=STUDY)
    show.add_argument("--against", help="version to compare with", metavar="PARENT")
    amend = online(
        verbs,
        "amend",
        "sign the next version of a study and send it",
        _amend,
        "larrey study amend study.toml",
    )
    amend.add_argument("file", type=Path, help="study.toml; version and parent are filled in")
    text = "release an ended study's model, as a second person"
    release = verb(verbs, "release", text, _release, _RELEASE)
    add_operator(release)
    release.add_argument("--json", action="store_true", help="print JSON on stdout")
    release.add_argument("study", nargs="?", help=STUDY)
    release.add_argument("--out", type=Path, help="new file for the bundle", metavar="FILE")
    release.add_argument("--verify", type=Path, help="check a bundle, offline", metavar="FILE")
    release.add_argument("--consortium", default="", help="public key that must be its root")


def _show(parsed: argparse.Namespace) -> int:
    from larrey_protocol.amendments import differences
    from larrey_server.cli_status import missing, stopped

    with open_operator(parsed) as operator:
        study = operator.proposal(parsed.study)
        if parsed.against:
            changes = differences(operator.proposal(parsed.against), study)
            return _print_changes(changes, parsed, study.digest)
        status = operator.find(study.digest)
    if parsed.json:
        document = study.model_dump(mode="json", by_alias=True)
        sys.stdout.write(json.dumps({"digest": study.digest, "study": document}) + "\n")
        return 0
    head, privacy = study.file.study, study.file.privacy
    facts = {
        "name": study.name,
        "version": head.version,
        "digest": study.digest,
        "parent": head.parent,
        "title": head.title,
        "question": head.question,
        "purpose": head.purpose,
        "permit": f"{head.permit} ({status['permit_state']})",
        "state": status["outcome"] or status["state"],
        "mechanism": privacy.mechanism,
        "epsilon": status["epsilon"],
        "rounds": study.file.training.rounds,
        "quorum": study.file.rounds.quorum,
        "approved": status["approved"],
        "outdated": status["outdated"],
        "refused": status["refused"],
        "silent": status["silent"],
        "excluded": [_excluded(site) for site in status["sites"] if site["state"] == "excluded"],
        "stopped": stopped(status),
        "missing": missing(status),
        "next": status["next_step"],
    }
    print_facts(facts, as_json=False)
    rows = [_given(order) for order in status["orders"]]
    sys.stdout.write("\n" if rows else "")
    print_table(("ORDER", "WHEN", "WHO", "WHAT", "ABOUT", "REASON"), rows)
    return 0


def _excluded(site: dict[str, Any]) -> str:  # Any: JSON
    return f"{site['site']} ({site['reason']})"


def _given(order: dict[str, Any]) -> tuple[object, ...]:  # Any: JSON
    at = dt.datetime.fromtimestamp(order["at"], dt.UTC)
    about = order["subject"]
    return (
        order["number"],
        f"{at:%Y-%m-%d %H:%M}",
        order["by"],
        order["verb"],
        about[7:19] if about.startswith("sha256:") else about,
        order["reason"],
    )


def _amend(parsed: argparse.Namespace) -> int:
    from larrey_protocol.amendments import differences
    from larrey_protocol.errors import Refusal
    from larrey_protocol.study import load_study
    from larrey_server.amending import child_of
    from larrey_server.claims import check_claims

    wanted = load_study(parsed.file)
    with open_operator(parsed) as operator:
        parent = operator.proposal(wanted.name)
        child = child_of(parent, wanted)
        changes = differences(parent, child)
        if not changes:
            raise Refusal(
                "nothing-amended",
                f"{parsed.file} says what version {parent.file.study.version} says",
                f"Change it first; what stands: larrey study show {wanted.name}",
            )
        check_claims(child)
        digest = operator.propose(child)
    return _print_changes(changes, parsed, digest)


def _release(parsed: argparse.Namespace) -> int:
    from larrey_protocol.errors import UsageError
    from larrey_protocol.newfile import require_new
    from larrey_server.release import verify_bundle

    if parsed.verify is not None:
        print_facts(verify_bundle(_read(parsed.verify), parsed.consortium), as_json=parsed.json)
        return 0
    if not parsed.study or parsed.out is None:
        raise UsageError("missing-argument", "expected STUDY and --out FILE, or --verify FILE")
    require_new(parsed.out)
    with open_operator(parsed) as operator:
        bundle = _bundle(operator, parsed.study)
        facts = verify_bundle(bundle, operator.consortium())
    parsed.out.write_text(bundle.model_dump_json() + "\n", encoding="utf-8")
    print_facts(facts | {"file": str(parsed.out)}, as_json=parsed.json)
    return 0


def _bundle(operator: Operator, text: str) -> Bundle:
    """Order the release where nobody did, and return the bundle."""
    from larrey_protocol.signed import Certificate, open_signed
    from larrey_server.release import Bundle

    sealed = operator.certificate(text)
    certificate = open_signed(sealed, Certificate, sealed.signer)
    status = operator.find(certificate.study)
    released = [(o["verb"], o["subject"]) for o in status["orders"]]
    if ("release", certificate.model) not in released:
        operator.command(certificate.study, "release", certificate.model)
    documents = (
        *operator.rosters(),
        *operator.permits(str(status["permit"])),
        *operator.documents(certificate.study),
        sealed,
    )
    return Bundle(documents=documents)


def _read(path: Path) -> Bundle:
    from larrey_protocol.errors import FileError
    from larrey_protocol.tomlfile import validate
    from larrey_server.release import Bundle

    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FileError("invalid-file", f"{path} is not a release bundle") from error
    return validate(found, Bundle, str(path))


def _print_changes(changes: Sequence[Change], parsed: argparse.Namespace, digest: str) -> int:
    from larrey_protocol.amendments import needs_signature

    signs = needs_signature(changes)
    if parsed.json:
        rows = [{"place": c.place, "before": c.before, "after": c.after} for c in changes]
        facts = {"digest": digest, "changes": rows, "needs_signature": signs}
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    for change in changes:
        mark = "  (operational)" if change.is_operational else ""
        sys.stdout.write(
            f"{change.place}: {json.dumps(change.before)} -> {json.dumps(change.after)}{mark}\n"
        )
    sys.stdout.write(f"digest  {digest}\n")
    sys.stderr.write(
        "sites must approve anew\n"
        if signs
        else "approvals that the version before still has carry over\n"
    )
    return 0
