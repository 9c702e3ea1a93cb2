"""Is a participation certificate what it says: its signature, its matrix, its outcome. Pure.

Anybody can check one with the file alone: the matrix has to hold one cell for each invited site and
round, and the outcome has to follow from it. COMPLETE is only what every invited site contributed
to in every planned round. Whether a cell is true, the receipts in the audit trail tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from larrey_protocol.errors import IntegrityError
from larrey_protocol.signed import Certificate, Contribution, Signed, open_signed
from larrey_protocol.study import Study

__all__ = ["open_certificate", "require_honest", "require_of"]

_AGAIN = "Ask the coordinator for it again; if it stays so, open an incident."


def open_certificate(signed: Signed, key: str = "") -> Certificate:
    """Return a certificate that is signed, whose matrix is whole and whose outcome follows from it.

    Args:
        signed: as it came.
        key: the coordinator's public signing key; where it is empty, the one that signed, whose
            fingerprint the caller then compares by phone.

    Raises:
        IntegrityError: as `open_signed` or `require_honest`.
    """
    certificate = open_signed(signed, Certificate, key or signed.signer)
    require_honest(certificate)
    return certificate


def require_honest(certificate: Certificate) -> None:
    """Return if the matrix is whole and the outcome is the one that it shows.

    Raises:
        IntegrityError: ``matrix-incomplete`` or ``outcome-unfounded``.
    """
    _require_whole(certificate)
    _require_applied(certificate)
    shown = _shown(certificate)
    is_failure = (
        certificate.outcome == "FAILED" and certificate.reason
    )  # no aggregate could be made
    if certificate.outcome != shown and not is_failure:
        raise _unfounded(f"says {certificate.outcome}; its matrix shows {shown}")


def require_of(certificate: Certificate, study: Study) -> None:
    """Return if a certificate is about this study, and every applied round had its quorum.

    Raises:
        IntegrityError: ``certificate-differs`` or ``outcome-unfounded``.
    """
    file = study.file
    said = (certificate.study, certificate.sites, certificate.rounds_planned)
    if said != (study.digest, file.site_names, file.training.rounds):
        raise IntegrityError(
            "certificate-differs",
            f"the certificate is not about study {study.name}, its sites and its rounds",
            _AGAIN,
        )
    contributors = _contributors(certificate)
    for number in range(1, certificate.rounds_applied + 1):
        present = contributors[number]
        missing = [site for site in file.rounds.required if site not in present]
        if len(present) < file.rounds.quorum or missing:
            raise _unfounded(
                f"says that round {number} was applied with {len(present)} sites; the study asks"
                f" for {file.rounds.quorum}" + (f" and for {missing[0]}" if missing else "")
            )


def _require_whole(certificate: Certificate) -> None:
    """Refuse a matrix that lacks a cell, has one twice, or one of nobody."""
    last = max((cell.round for cell in certificate.matrix), default=0)
    if not certificate.rounds_applied <= last <= certificate.rounds_planned:
        raise _incomplete(
            f"it ends with round {last}; {certificate.rounds_applied} of"
            f" {certificate.rounds_planned} rounds were applied"
        )
    if len(certificate.matrix) > last * len(certificate.sites):
        raise _incomplete("it has more cells than sites and rounds")
    found = Counter((cell.site, cell.round) for cell in certificate.matrix)
    for number in range(1, last + 1):
        for site in certificate.sites:
            if found[site, number] != 1:
                times = "no cell" if not found[site, number] else "more than one cell"
                raise _incomplete(f"it has {times} of {site} in round {number}")


def _require_applied(certificate: Certificate) -> None:
    contributors = _contributors(certificate)
    for number in range(1, certificate.rounds_applied + 1):
        if not contributors[number]:
            raise _unfounded(f"says that round {number} was applied, to which nobody contributed")
    if bool(certificate.model) != bool(certificate.rounds_applied):
        raise _unfounded(
            f"says that {certificate.rounds_applied} rounds were applied, and"
            f" {'names a' if certificate.model else 'names no'} model"
        )


def _shown(certificate: Certificate) -> str:
    """Return the outcome that the matrix shows."""
    if not certificate.rounds_applied:
        return "FAILED"
    is_all = certificate.rounds_applied == certificate.rounds_planned
    return "COMPLETE" if is_all and all(map(_counts, certificate.matrix)) else "PARTIAL"


def _contributors(certificate: Certificate) -> Mapping[int, set[str]]:
    found: defaultdict[int, set[str]] = defaultdict(set)
    for cell in certificate.matrix:
        if _counts(cell):
            found[cell.round].add(cell.site)
    return found


def _counts(cell: Contribution) -> bool:
    return cell.outcome == "contributed" and not cell.code


def _incomplete(what: str) -> IntegrityError:
    return IntegrityError(
        "matrix-incomplete", f"the certificate's matrix is not whole: {what}", _AGAIN
    )


def _unfounded(what: str) -> IntegrityError:
    return IntegrityError("outcome-unfounded", f"the certificate {what}", _AGAIN)
