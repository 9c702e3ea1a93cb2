"""Everything that people sign before a study may run on one machine: what they would, in order.

The consortium: a roster and a permit. Each site: its policy, the permit's countersignature, the
approvals that its policy asks for. The consortium's documents go through the operator's calls, the
sites' through ``larrey-site`` itself, so that a test or a demo takes the same way as a hospital.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from larrey_lab.federation.processes import run_command
from larrey_lab.federation.workspace import Workspace
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.permit import Permit
from larrey_protocol.roster import Roster, Seat
from larrey_protocol.signed import sign
from larrey_protocol.study import Study
from larrey_server.operator import Operator

__all__ = ["approve", "approve_at", "grant", "make_permit", "make_roster", "propose"]

_DECISION = "decision.txt"  # stands for the authority's document, which the officer compares
_PATIENCE_S = 20.0  # until a site has heard of a proposal


def propose(workspace: Workspace, operator: Operator, study: Study) -> str:
    """Sign what the study needs where it is missing, propose it, and return its digest."""
    grant(workspace, operator, study)
    return operator.propose(study)


def grant(workspace: Workspace, operator: Operator, study: Study) -> None:
    """Have the roster and the study's permit signed, where the coordinator has none."""
    if not operator.rosters():
        root = SigningKey.load(workspace.root_key)
        operator.put_roster(sign(make_roster(workspace), root))
    if not operator.permits(study.file.study.permit):
        operator.put_permit(sign(make_permit(workspace, study), operator.signer.key))


def approve(workspace: Workspace, study: Study, sites: Sequence[str] = ()) -> None:
    """Let the persons of every site, or of these, read and sign, as soon as the study got there."""
    names = sites or workspace.sites
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: approve_at(workspace, name, study), names))


def approve_at(workspace: Workspace, site: str, study: Study) -> None:
    """Sign policy, permit and approval at one site.

    Raises:
        LarreyError: ``not-approved`` with what the site's own command said.
    """
    officer, document = str(workspace.site_key(site, "dpo")), workspace.folder / _DECISION
    document.touch()
    reference = study.file.study.permit
    _patiently(workspace, site, "study", "show", study.digest)
    _say(workspace, site, "policy", "sign", "--key", officer)
    _say(
        workspace,
        site,
        *("permit", "countersign", reference, "--document", str(document), "--key", officer),
    )
    _say(workspace, site, "study", "approve", study.digest, "--key", officer)


def make_roster(workspace: Workspace, version: int = 1) -> Roster:
    """Return the roster of a workspace: its sites with their keys, and its two persons."""
    seats = tuple(
        Seat(name=name, key=SigningKey.load(workspace.site(name).parent / "signing.ed25519").public)
        for name in workspace.sites
    )
    return Roster(version=version, issued_at=time.time(), sites=seats, people=workspace.people())


def make_permit(workspace: Workspace, study: Study) -> Permit:
    """Return the first version of an internal permit for a study over all the workspace's data."""
    today = dt.datetime.now(dt.UTC).date()
    return Permit.model_validate(
        {
            "permit": {
                "reference": study.file.study.permit,
                "authority": "Nobody: data on one machine",
                "decided_on": today,
            },
            "use": {
                "legal_basis": "internal",
                "purposes": [study.file.study.purpose],
                "controllers": ["The owner of this machine"],
                "people": [person.name for person in workspace.people()],
                "valid_from": today - dt.timedelta(days=1),
                "valid_until": today + dt.timedelta(days=365),
                "retention_until": today + dt.timedelta(days=730),
            },
            "datasets": [
                {"site": site, "dataset": dataset}
                for site, dataset in zip(workspace.sites, workspace.datasets, strict=True)
            ],
            "rules": {"dpia": "none: public data", "ethics": "none: public data"},
            "hosting": {"provider": "This machine", "country": "FR"},
        }
    )


def _patiently(workspace: Workspace, site: str, *words: str) -> None:
    """Repeat a command until the site knows what it is about."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _say(workspace, site, *words)
        except LarreyError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


def _say(workspace: Workspace, site: str, *words: str) -> None:
    done = run_command("larrey-site", *words, "--config", str(workspace.site(site)))
    if done.returncode:
        raise LarreyError("not-approved", f"{site}: {done.stderr.strip()}")
