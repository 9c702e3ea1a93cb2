"""Rules of the gate about the ground the node stands on and the warrant of a study.

`larrey_client.gate` lists every rule in its order. Whether a permit lets a study run is decided by
`larrey_protocol.lawful`, the same function that the consortium and the coordinator use.
"""

from __future__ import annotations

from larrey_client.gate_facts import Ground, Refuse, StudyCase, Warrant
from larrey_protocol.lawful import unlawful

__all__ = ["CLOCK_SLACK_S", "GROUND_RULES", "WARRANT_RULES"]

CLOCK_SLACK_S = 300.0  # what time servers correct; more is a clock that was set back


def _policy_signed(ground: Ground) -> Refuse | None:
    if ground.is_policy_signed:
        return None
    found = "site.toml is not what this hospital's people signed last"
    return Refuse("policy-unsigned", found, "See: larrey-site policy show")


def _clock(ground: Ground) -> Refuse | None:
    if ground.clock_lag_s <= CLOCK_SLACK_S:
        return None
    found = f"the clock is {ground.clock_lag_s:.0f} s behind this site's own records"
    return Refuse("clock-set-back", found, "Set the clock right.")


def _anchors(ground: Ground) -> Refuse | None:
    if not ground.anchors_code:
        return None
    found = "an anchor kept elsewhere names records that are gone here"
    return Refuse(ground.anchors_code, found, "See: larrey-site ledger adopt --help")


def _documents(ground: Ground) -> Refuse | None:
    if not ground.altered:
        return None
    found = f"a kept document does not verify: {ground.altered}"
    return Refuse("document-altered", found, "Open an incident; restore a verified backup.")


def _superseded(case: StudyCase) -> Refuse | None:
    if not case.is_superseded:
        return None
    return Refuse("study-superseded", "a later version of this study was approved here")


def _lawful(case: StudyCase) -> Refuse | None:
    warrant = _warrant(case)
    found = unlawful(
        case.study,
        warrant.permit,
        day=warrant.day,
        roster=warrant.roster,
        signer=warrant.signer,
        consortium=warrant.consortium,
        site=case.site,
        dataset=case.dataset or None,
    )
    if found is None:
        return None
    return Refuse(*found, "Ask the consortium; see: larrey-site permit show")


def _countersigned(case: StudyCase) -> Refuse | None:
    if _warrant(case).is_countersigned:
        return None
    reference = case.study.file.study.permit
    return Refuse(
        "permit-not-countersigned",
        f"the data protection officer has not signed the newest version of permit {reference}",
        f"larrey-site permit countersign {reference} --document FILE --key dpo.key",
    )


def _warrant(case: StudyCase) -> Warrant:
    if case.warrant is None:
        raise ValueError("rules of the permit need a warrant")
    return case.warrant


GROUND_RULES = (_documents, _policy_signed, _clock, _anchors)
WARRANT_RULES = (_superseded, _lawful, _countersigned)
