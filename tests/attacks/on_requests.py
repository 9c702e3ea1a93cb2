"""Attacks by requests: without approval or order, after a stop, out of order, once too often."""

from __future__ import annotations

import time
from dataclasses import replace

from larrey_client.gate import decide_task
from larrey_client.gate_facts import Refuse, TaskCase
from larrey_client.stopping import stop
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person
from larrey_protocol.signed import sign
from larrey_protocol.study import Study
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site


@attack("study-unknown")
def study_unknown(site: Site) -> str:
    return site.ask(site.study())


@attack("study-not-approved")
def study_not_approved(site: Site) -> str:
    study = site.launch(site.propose(site.study()))
    site.watch()
    return site.ask(study)


@attack("study-refused-by-a-person")
def study_refused_by_a_person(site: Site) -> str:
    study = site.launch(site.propose(site.study()))
    site.watch()
    no = {"decision": "refused", "permit": "", "seats": "", "dataset": "heart"}
    site.people.approve(site.node, study, site.people.dpo, **no)
    site.node.desk.send_decisions()
    return site.ask(study)


@attack("approval-revoked")
def approval_revoked(site: Site) -> str:
    study = site.running()
    site.people.decide(site.node, study, site.people.it, "revoked")
    site.node.desk.send_decisions()
    site.watch()
    return site.ask(study)


@attack("revoked-while-training")
def revoked_while_training(site: Site) -> str:
    """The approval is taken back after the round was reserved: the update does not leave."""
    study = site.running()
    site.watch()
    site.trainer.entered.clear()
    site.trainer.release.clear()
    count = len(site.peer.given)
    site.peer.send(site.peer.first_task(study))
    assert site.trainer.entered.wait(10)
    site.people.decide(site.node, study, site.people.dpo, "revoked")
    site.trainer.release.set()
    site.wait(lambda: len(site.peer.given) > count)
    site.node.desk.send_decisions()
    return str(site.peer.given[count].fields["code"])


@attack("launch-without-order")
def launch_without_order(site: Site) -> str:
    study = site.approve(site.propose(site.study()))
    site.watch()
    return site.ask(study)


@attack("launch-by-its-approver", alone=True)
def launch_by_its_approver(site: Site) -> str:
    study = site.approve(site.propose(site.study()))
    ines = Person(name="ines", role="lead", key=site.people.it.public)  # enlisted afterwards
    site.tell(rosters=sign(site.roster(version=2, extra=(ines,)), site.consortium).to_bytes())
    site.launch(study, key=site.people.it, person="ines")
    site.watch()
    return site.ask(study)


@attack("halt-ignored")
def halt_ignored(site: Site) -> str:
    study = site.running()
    site.tell(orders=site.order(study, "halt", key=site.olga, person="olga").to_bytes())
    site.watch()
    return site.ask(study)


@attack("resume-forged")
def resume_forged(site: Site) -> str:
    study = site.running()
    site.tell(orders=site.order(study, "halt").to_bytes())
    site.watch()
    forged = site.order(study, "resume", key=SigningKey.generate())
    assert site.tell(orders=forged.to_bytes()) == "wrong-signer"
    assert site.tell(
        orders=site.order(study, "resume", key=site.olga, person="olga").to_bytes()
    ) == "role-not-allowed"  # fmt: skip
    return site.ask(study)


@attack("site-pause-ignored")
def site_pause_ignored(site: Site) -> str:
    study = site.running()
    stop(site.node.node.store, "pause", study.digest, "ines")
    site.watch()
    site.tell(orders=site.order(study, "resume").to_bytes())
    asked = site.peer.request(site.peer.first_task(study))
    return str(asked.fields["code"])


@attack("study-ended-asked")
def study_ended_asked(site: Site) -> str:
    study = site.running()
    site.peer.end(study.digest)
    site.tell()
    site.peer.ended.clear()
    site.watch()
    return site.ask(study)


@attack("site-withdrawn-asked")
def site_withdrawn_asked(site: Site) -> str:
    study = site.running()
    site.watch()
    site.tell(orders=site.order(study, "withdraw", subject="alpha").to_bytes())
    return site.ask(study)


@attack("call-not-in-the-study")
def call_not_in_the_study(site: Site) -> str:
    study = site.running()
    site.watch()
    return site.ask(study, phase="query")


@attack("evaluate-before-train")
def evaluate_before_train(site: Site) -> str:
    study = site.with_app()
    site.watch()
    return site.ask(study, phase="evaluate")


@attack("round-beyond-the-last")
def round_beyond_the_last(site: Site) -> str:
    study = site.running()
    site.watch()
    return site.ask(study, 5)


@attack("round-zero")
def round_zero(site: Site) -> str:
    study = site.running()
    site.watch()
    return site.ask(study, round=0)


@attack("rounds-reordered")
def rounds_reordered(site: Site) -> str:
    study = site.running()
    for number in (1, 3):
        assert site.ask(study, number) == ""
    site.watch()
    return site.ask(study, 2)


@attack("many-models-one-round")
def many_models_one_round(site: Site) -> str:
    """Each further model for a round would be another look at the same patients."""
    study = site.running()
    tasks = [replace(site.peer.first_task(study, number), round=1) for number in (1, 2, 3)]
    for task in tasks[:2]:
        assert site.request(task) == ""
    site.watch()
    return site.request(tasks[2])


@attack("rounds-used-up")
def rounds_used_up(site: Site) -> str:
    study = site.running()
    for number in (1, 2, 3):
        assert site.ask(study, number) == ""
    second = replace(site.peer.first_task(study, 9), round=3)
    assert site.request(second) == ""
    site.watch()
    return site.ask(study, 4)


@attack("round-replayed")
def round_replayed(site: Site) -> str:
    """The same request a hundred times: the same answer, one training, one debit."""
    study = site.running()
    task = site.peer.first_task(study)
    first, count = site.peer.request(task), len(site.trainer.trained)
    site.watch()
    for attempt in range(2, 102):
        again = site.peer.request(task, attempt=attempt)
        assert (again.receipt, again.fields["code"]) == (first.receipt, "")
    assert len(site.trainer.trained) == count
    return ""


@attack("old-round-replayed")
def old_round_replayed(site: Site) -> str:
    study = site.running()
    for number in (1, 2):
        assert site.ask(study, number) == ""
    site.watch()
    return site.ask(study, 1)


@attack("stored-answer-exchanged")
def stored_answer_exchanged(site: Site) -> str:
    study = site.running()
    given = site.peer.request(site.peer.first_task(study))
    blob = site.node.node.store.spool / str(given.fields["update"]).removeprefix("sha256:")
    blob.write_bytes(b"rows of Dupont")
    site.watch()
    return site.ask(study, 1)


@attack("deadline-passed")
def deadline_passed(site: Site) -> str:
    study = site.running()
    site.watch()
    return site.ask(study, deadline_s=0.0)


@attack("requests-flood")
def requests_flood(site: Site) -> str:
    """Three hundred requests at once, of studies that nobody approved."""
    task, count = site.peer.first_task(site.study()), len(site.peer.given)
    for number in range(300):
        site.peer.send(replace(task, study=f"sha256:{number:064x}"))
    site.wait(lambda: len(site.peer.given) >= count + 300)
    return ",".join({str(one.fields["code"]) for one in site.peer.given[count:]})


@attack("rounds-overtaken")
def rounds_overtaken(site: Site) -> str:
    """The next round is asked for while one is trained, so that what was paid for is lost."""
    study = site.running()
    site.watch()
    site.trainer.entered.clear()
    site.trainer.release.clear()
    count = len(site.peer.given)
    site.peer.send(site.peer.first_task(study, 1))
    assert site.trainer.entered.wait(10)
    site.peer.send(site.peer.first_task(study, 2))
    site.wait(lambda: len(site.peer.given) >= count + 2)
    assert site.peer.given[count + 1].fields["code"] == ""
    return str(site.peer.given[count].fields["code"])


@attack("asked-at-noon")
def asked_at_noon(site: Site) -> str:
    """A training is asked for outside the hours in which the hospital trains."""
    study, settings = site.running(), site.settings
    opens, ends = (f"{int((time.time() + ahead) // 3600 % 24):02}:00" for ahead in (7200, 10800))
    hours = {"windows": (f"{opens}-{ends}",), "timezone": "UTC"}
    closed = settings.trainer.model_copy(update=hours)
    site.start(settings.model_copy(update={"trainer": closed}))
    site.watch()
    try:
        return site.ask(study)
    finally:
        site.start(settings)


def decided(site: Site, asked: Study, **changes: object) -> str:
    """Return what the gate says about a running study's request with some facts replaced."""
    ground, case = site.node.node.cases.of(asked.digest)
    standing = site.node.node.cases.standing(asked.digest)
    assert case is not None
    task = site.peer.first_task(asked)
    facts = TaskCase(task, 9.0, ground, replace(case, **changes), standing)  # type: ignore[arg-type]
    decision = decide_task(facts)
    return decision.code if isinstance(decision, Refuse) else ""


@attack("study-swapped-at-the-site")
def study_swapped_at_the_site(site: Site) -> str:
    """Whatever hands the gate another study under an approved digest."""
    study = site.running()
    site.watch()
    return decided(site, study, study=site.study(training__rounds=99))


@attack("hold-removed")
def hold_removed(site: Site) -> str:
    """Whatever hands the gate an approved study for which no budget is held."""
    study = site.running()
    site.watch()
    return decided(site, study)
