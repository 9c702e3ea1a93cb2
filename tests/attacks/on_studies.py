"""Attacks by what a study asks: refused by policy on arrival, or when a person would approve."""

from __future__ import annotations

from typing import Any

from larrey_protocol.study import Study
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site
from tests.client.node.peer import wait_until
from tests.protocol.samples import CONTRACT

NO_DP = {"mechanism": "none"}


def arrives(site: Site, study: Study) -> str:
    """Have a signed study arrive; return the code with which policy refuses it."""
    site.tell(proposals=site.proposal(study).to_bytes())
    wait_until(lambda: _code(site, study) != "")
    return _code(site, study)


def _code(site: Site, study: Study) -> str:
    with site.node.node.store.reading() as records:
        decision = records.decision(study.digest)
    return decision.code if decision and decision.decision == "refused" else ""


def with_training(study: Study, **changes: Any) -> Study:
    """Return a study some of whose training values are others."""
    values = study.model_dump(by_alias=True)
    values["file"]["training"] |= changes
    return Study.model_validate(values)


ON_ARRIVAL: dict[str, dict[str, Any]] = {
    "study-for-others": {
        "sites": [{"name": "beta", "patients": 100}, {"name": "gamma", "patients": 9}],
    },
    "strategy-made-up": {"training__strategy": "read-everything"},
    "less-noise": {"privacy__noise_multiplier": 0.9, "privacy__epsilon": 2.9},
    "delta-raised": {"privacy__delta": 2e-4},
    "epsilon-raised": {"privacy__epsilon": 3.1},
    "epsilon-understated": {"privacy__epsilon": 0.3},
    "mechanism-beyond-accounting": {"training__rounds": 10_000, "training__local_steps": 10_000},
    "app-not-listed": {"privacy": NO_DP, "training__app": "backdoor"},
    "app-changed": {"privacy": NO_DP, "training__app": "changed"},
    "metrics-unlisted": {
        "privacy": NO_DP,
        "training__app": "silent",
        "training__calls": ["train", "evaluate"],
        "training__metrics": ["count"],
    },
}


def _register(name: str, changes: dict[str, Any]) -> None:
    @attack(name)
    def act(site: Site) -> str:
        return arrives(site, site.study(**changes))


for _name, _changes in ON_ARRIVAL.items():
    _register(_name, _changes)


@attack("no-privacy")
def no_privacy(site: Site) -> str:
    study = site.propose(site.study(privacy=NO_DP))
    site.watch()
    return site.refused(lambda: site.approve(study, "heart"))


@attack("dataset-unregistered")
def dataset_unregistered(site: Site) -> str:
    """The same patients under another name would have a second budget."""
    study = site.propose(site.study())
    site.watch()
    return site.refused(lambda: site.approve(study, "skin"))


@attack("unit-swapped")
def unit_swapped(site: Site) -> str:
    contract = CONTRACT | {"unit": CONTRACT["unit"] | {"name": "visit", "column": "visit"}}
    plain = site.study()
    study = Study.model_validate(plain.model_dump(by_alias=True) | {"contract": contract})
    return site.refused(lambda: site.approve(site.propose(study)))


@attack("budget-emptied")
def budget_emptied(site: Site) -> str:
    hungry = {"training__rounds": 60, "privacy__epsilon": 3.0, "privacy__noise_multiplier": 14.0}
    for _ in range(50):
        study = site.propose(site.study(**hungry))
        site.watch()
        if code := site.refused(lambda study=study: site.approve(study, "lung")):  # type: ignore[misc]
            return code
    return ""


@attack("cohort-too-small")
def cohort_too_small(site: Site) -> str:
    study = site.running()
    site.watch()
    site.trainer.units = 19  # of a table that lost patients since it was approved
    try:
        return site.ask(study)
    finally:
        site.trainer.units = 100


@attack("dataset-gone", alone=True)
def dataset_gone(site: Site) -> str:
    study = site.running()
    kept = [one for one in site.settings.datasets if one.name != "heart"]
    site.halt()
    site.start(site.people.sign_charter(site.settings.model_copy(update={"datasets": tuple(kept)})))
    site.watch()
    return site.ask(study)


@attack("version-skipped")
def version_skipped(site: Site) -> str:
    study = site.running()
    head = {"study__name": study.name, "study__permit": study.file.study.permit}
    skipped = site.study(study__version=3, study__parent=study.digest, training__rounds=2, **head)
    site.watch()
    return arrives(site, skipped)


@attack("old-version-asked")
def old_version_asked(site: Site) -> str:
    study = site.running()
    head = {"study__name": study.name, "study__permit": study.file.study.permit}
    newer = site.study(study__version=2, study__parent=study.digest, training__rounds=2, **head)
    site.tell(proposals=site.proposal(newer).to_bytes())
    site.approve(newer)
    site.watch()
    return site.ask(study)


@attack("rounds-added")
def rounds_added(site: Site) -> str:
    study = site.running()
    altered = with_training(study, rounds=30)
    site.tell(proposals=site.proposal(altered).to_bytes())
    site.watch()
    return site.ask(altered)


@attack("steps-added")
def steps_added(site: Site) -> str:
    study = site.running()
    altered = with_training(study, local_steps=2)
    site.tell(proposals=site.proposal(altered).to_bytes())
    site.watch()
    return site.ask(altered)


@attack("deadline-as-excuse")
def deadline_as_excuse(site: Site) -> str:
    """More rounds behind a version that looks as if it only changed the deadline."""
    study = site.running()
    head = {"study__name": study.name, "study__permit": study.file.study.permit}
    sly = site.study(
        study__version=2, study__parent=study.digest, rounds__deadline_s=60.0,
        training__rounds=4, **head,
    )  # fmt: skip
    site.tell(proposals=site.proposal(sly).to_bytes())
    site.launch(sly)
    site.watch()
    return site.ask(sly)
