"""`larrey study certificate`: who contributed to an ended study; prints it and checks it."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larrey_server.cli_build import (
    STUDY,
    Subparsers,
    add_operator,
    open_operator,
    print_facts,
    print_table,
    verb,
)

if TYPE_CHECKING:
    from larrey_protocol.signed import Certificate, Signed

__all__ = ["add", "tell"]

_EXAMPLES = """examples:
  larrey study certificate heart --operator operator.toml
  larrey study certificate heart --json --operator operator.toml > certificate.json
  larrey study certificate --verify --file certificate.json --key ed25519:...

--verify checks the signature, that the matrix has a cell for each site and round, and that the
outcome follows from it; asked of a coordinator, also that each applied round had its quorum. With
--file it needs no coordinator. Without --key, compare the fingerprint that it prints by phone.
"""
_MAX_BYTES = 64 << 20

Facts = dict[str, Any]  # Any: JSON


def add(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verb to ``larrey study``."""
    text = "print, or check, who contributed to an ended study"
    certificate = verb(verbs, "certificate", text, _certificate, _EXAMPLES)
    add_operator(certificate)
    certificate.add_argument("--json", action="store_true", help="print it as it was signed")
    certificate.add_argument("study", nargs="?", help=STUDY)
    certificate.add_argument("--verify", action="store_true", help="check it first")
    certificate.add_argument("--file", type=Path, help="read it from here", metavar="FILE")
    certificate.add_argument("--key", default="", help="coordinator's public key that must sign")


def _certificate(parsed: argparse.Namespace) -> int:
    from larrey_protocol.keys import fingerprint
    from larrey_protocol.signed import Certificate, open_signed
    from larrey_server.certificate_check import open_certificate, require_of

    signed, study, deletions = _read(parsed) if parsed.file else _ask(parsed)
    if parsed.verify or parsed.key:
        certificate = open_certificate(signed, parsed.key)
        if study is not None:
            require_of(certificate, study)
    else:
        certificate = open_signed(signed, Certificate, signed.signer)
    if parsed.study and parsed.file:
        _require_about(certificate, parsed.study, parsed.file)
    if parsed.json:
        sys.stdout.write(signed.to_bytes().decode() + "\n")
    else:
        tell(certificate)
        sys.stderr.write(
            "epsilon: per patient at that site, add/remove neighbours, PLD, at the study's delta\n"
        )
    said = "verified: signature, matrix, outcome; " if parsed.verify or parsed.key else ""
    sys.stderr.write(f"{said}signed by {fingerprint(signed.signer)}\n")
    for entry in deletions:
        sys.stderr.write(f"{entry['by']} deleted what it kept and signed a receipt\n")
    return 0


def _ask(parsed: argparse.Namespace) -> tuple[Signed, Any, list[Facts]]:  # Any: Study or None
    from larrey_protocol.errors import UsageError

    if not parsed.study:
        raise UsageError("missing-argument", "expected STUDY, or --file FILE")
    with open_operator(parsed) as operator:
        signed = operator.certificate(parsed.study)
        deletions = operator.find(parsed.study)["deletions"]
        study = operator.proposal(parsed.study) if parsed.verify or parsed.key else None
    return signed, study, deletions


def _read(parsed: argparse.Namespace) -> tuple[Signed, None, list[Facts]]:
    from larrey_protocol.signed import Signed

    with parsed.file.open("rb") as file:
        return Signed.from_bytes(file.read(_MAX_BYTES)), None, []


def _require_about(certificate: Certificate, text: str, file: Path) -> None:
    from larrey_protocol.canonical import short
    from larrey_protocol.errors import IntegrityError

    if text not in (certificate.study, short(certificate.study), certificate.name):
        raise IntegrityError(
            "certificate-differs",
            f"{file} certifies study {certificate.name}, {short(certificate.study)}, not {text}",
        )


def tell(certificate: Certificate) -> None:
    """Print how a study ended, then a line a round with what became of each site's work."""
    ended = dt.datetime.fromtimestamp(certificate.ended_at, dt.UTC)
    spent: dict[str, float] = {}
    flags: dict[str, dict[str, None]] = {}
    cells: dict[int, dict[str, str]] = {}
    for cell in certificate.matrix:
        code = f" ({cell.code})" if cell.code else ""
        cells.setdefault(cell.round, {})[cell.site] = cell.outcome + code
        spent[cell.site] = max(cell.epsilon, spent.get(cell.site, 0.0))
        flags.setdefault(cell.site, {}).update(dict.fromkeys(cell.flags))
    facts = {
        "study": certificate.name,
        "digest": certificate.study,
        "outcome": certificate.outcome,
        "reason": certificate.reason,
        "rounds": f"{certificate.rounds_applied} of {certificate.rounds_planned} applied",
        "ended": f"{ended:%Y-%m-%d %H:%M} UTC",
        "model": certificate.model,
        "audit_head": certificate.audit_head,
    }
    print_facts(facts, as_json=False)
    sites = certificate.sites
    rows = [[number, *(row.get(site, "") for site in sites)] for number, row in cells.items()]
    if any(spent.values()):
        rows.append(["epsilon", *(f"{spent[site]:.3g}" if site in spent else "" for site in sites)])
    if any(flags.values()):
        rows.append(["budget", *(", ".join(flags.get(site, ())) for site in sites)])
    sys.stdout.write("\n" if rows else "")
    print_table(("ROUND", *sites), rows)
