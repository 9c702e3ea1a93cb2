"""Attacks by numbers: larger than any column, any clock or any file."""

from __future__ import annotations

import json

from larrey_protocol.decisions import Order
from larrey_protocol.roster import Roster
from larrey_protocol.signed import sign
from tests.attacks.catalogue import attack
from tests.attacks.on_documents import proposal_with, signed_text
from tests.attacks.stand import Site


@attack("order-number-endless")
def order_number_endless(site: Site) -> str:
    """A number that no database holds, or one after which no order could follow."""
    study = site.running()
    codes = set()
    for number in (2**70, 2**63 - 1, 2**53):
        order = Order.model_construct(
            study=study.digest, number=number, verb="pause", subject="", person="olga", at=1.0
        )
        site.watch()
        codes.add(site.tell(orders=sign(order, site.olga).to_bytes()))
    return ",".join(sorted(codes))


@attack("roster-number-endless")
def roster_number_endless(site: Site) -> str:
    roster = Roster.model_construct(**(dict(site.roster()) | {"version": 2**70}))
    return site.tell(rosters=sign(roster, site.consortium).to_bytes())


@attack("proposal-number-endless")
def proposal_number_endless(site: Site) -> str:
    codes = {
        site.tell(proposals=proposal_with(site, place, 10**400))
        for place in ("study.file.study.version", "study.file.model.seed")
    }
    document = json.loads(site.proposal(site.study()).document)
    document["study"]["file"]["sites"][0]["patients"] = 10**400
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    codes.add(site.tell(proposals=signed_text("proposal", text, site.consortium)))
    return ",".join(sorted(codes))


@attack("model-larger-than-memory")
def model_larger_than_memory(site: Site) -> str:
    layers = [4096] * 100_000
    text = site.proposal(site.study()).document
    values = json.loads(text)
    values["study"]["file"]["model"] |= {"name": "mlp", "hidden": layers}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return site.tell(proposals=signed_text("proposal", text, site.consortium))
