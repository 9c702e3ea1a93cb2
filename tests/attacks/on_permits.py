"""Attacks by the permit: missing, over, taken back, for somebody else, or changed afterwards."""

from __future__ import annotations

import datetime as dt

from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, sign
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site

TODAY = dt.datetime.now(dt.UTC).date()
DAY = dt.timedelta(days=1)


def amended_to(site: Site, state: str = "AMENDED", **changes: object) -> str:
    """Ask for a round after the permit of a running study was changed so."""
    study = site.running()
    version = site.amended(study, state, **changes)
    site.tell(permits=version.to_bytes())
    if state != "REVOKED":
        site.people.countersign(site.node, study.file.study.permit)
    site.watch()
    return site.ask(study)


@attack("permit-missing")
def permit_missing(site: Site) -> str:
    study = site.study()
    site.tell(proposals=site.proposal(study).to_bytes())
    return site.refused(lambda: site.approve(study))


@attack("permit-revoked")
def permit_revoked(site: Site) -> str:
    return amended_to(site, "REVOKED")


@attack("permit-over")
def permit_over(site: Site) -> str:
    past = {"valid_from": TODAY - 9 * DAY, "valid_until": TODAY - DAY}
    return amended_to(site, **{f"use__{key}": value for key, value in past.items()})


@attack("permit-to-come")
def permit_to_come(site: Site) -> str:
    return amended_to(site, use__valid_from=TODAY + 2 * DAY)


@attack("purpose-changed")
def purpose_changed(site: Site) -> str:
    return amended_to(site, use__purposes=["education"])


@attack("permit-of-another-hospital")
def permit_of_another_hospital(site: Site) -> str:
    return amended_to(site, datasets=[{"site": "beta", "dataset": "heart"}])


@attack("permit-of-another-dataset")
def permit_of_another_dataset(site: Site) -> str:
    datasets = [{"site": "alpha", "dataset": "scans"}, {"site": "beta", "dataset": "heart"}]
    return amended_to(site, datasets=datasets)


@attack("permit-amended")
def permit_amended(site: Site) -> str:
    return amended_to(site, use__intended_use="product-development")


@attack("permit-not-countersigned")
def permit_not_countersigned(site: Site) -> str:
    study = site.running()
    site.tell(permits=site.amended(study, use__controllers=["Somebody Else"]).to_bytes())
    site.watch()
    return site.ask(study)


@attack("countersigned-by-it")
def countersigned_by_it(site: Site) -> str:
    study = site.propose(site.study(), is_signed=False)
    reference = study.file.study.permit
    return site.refused(lambda: site.people.countersign(site.node, reference, site.people.it))


@attack("proposer-not-in-permit")
def proposer_not_in_permit(site: Site) -> str:
    study = site.study()
    site.tell(
        permits=sign(site.permit(study), site.consortium).to_bytes(),
        proposals=site.proposal(study, site.zoe).to_bytes(),
    )
    site.people.countersign(site.node, study.file.study.permit)
    return site.refused(lambda: site.approve(study))


@attack("launcher-not-in-permit")
def launcher_not_in_permit(site: Site) -> str:
    study = site.approve(site.propose(site.study()))
    site.launch(study, key=site.zoe, person="zoe")
    site.watch()
    return site.ask(study)


@attack("permit-forked")
def permit_forked(site: Site) -> str:
    study = site.running()
    first, second = (site.amended(study, use__controllers=[name]) for name in ("One", "Other"))
    site.tell(permits=first.to_bytes())
    site.watch()
    return site.tell(permits=second.to_bytes())


@attack("permit-unrevoked")
def permit_unrevoked(site: Site) -> str:
    study = site.propose(site.study())
    site.tell(permits=site.amended(study, "REVOKED").to_bytes())
    site.watch()
    return site.tell(permits=site.amended(study, "RENEWED").to_bytes())


@attack("permit-by-a-member")
def permit_by_a_member(site: Site) -> str:
    return site.tell(permits=sign(site.permit(site.study()), site.ben).to_bytes())


@attack("permit-by-the-coordinator")
def permit_by_the_coordinator(site: Site) -> str:
    forged = sign(site.permit(site.study()), SigningKey.generate())
    return site.tell(permits=forged.to_bytes())


@attack("permit-path")
def permit_path(site: Site) -> str:
    study = site.study()
    document = sign(site.permit(study), site.consortium).document
    text = document.replace(study.file.study.permit, "../../state/site.db")
    body = b"larrey.v1.permit\n" + text.encode()
    forged = Signed(
        kind="permit", document=text, signer=site.consortium.public,
        signature=site.consortium.sign(body),
    )  # fmt: skip
    return site.tell(permits=forged.to_bytes())


@attack("sites-exchanged", alone=True)
def sites_exchanged(site: Site) -> str:
    study = site.running()
    other = site.roster(version=2, beta=SigningKey.generate().public)
    site.tell(rosters=sign(other, site.consortium).to_bytes())
    site.watch()
    return site.ask(study)


@attack("site-struck-off", alone=True)
def site_struck_off(site: Site) -> str:
    study = site.running()
    roster = site.roster(version=2)
    only = roster.model_copy(update={"sites": roster.sites[:1]})
    site.tell(rosters=sign(only, site.consortium).to_bytes())
    site.watch()
    return site.ask(study)
