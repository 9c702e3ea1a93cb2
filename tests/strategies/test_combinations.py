"""Which parts combine with which studies, over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from larrey_protocol.errors import Refusal, UsageError
from larrey_protocol.models import model_layout
from larrey_strategies.combinations import RULES, Setting, check, setting_of
from larrey_strategies.registry import AGGREGATORS, PRESETS, AlgorithmWords
from tests.protocol.samples import study
from tests.strategies.algorithms import ROBUST, all_parts, words, words_of_parts

ENOUGH = Setting(quorum=8)


def code(words: AlgorithmWords, setting: Setting = ENOUGH) -> str:
    refusal = check(words, setting)
    return refusal.code if refusal else ""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_a_study_without_extras(name):
    assert code(words(name)) == ""


def expected(objective: str, aggregator: str, optimizer: str) -> str:
    halves = {"scaffold", "feddyn", "mr-mtl"}
    if objective != optimizer and halves & {objective, optimizer}:
        return "parts-mismatch"
    if aggregator != "mean" and objective in halves:
        return "objective-needs-mean"
    if (objective, optimizer) == ("fedprox", "fednova"):
        return "steps-not-plain"
    return ""


@pytest.mark.parametrize("parts", all_parts(), ids="/".join)
def test_every_triple_of_parts_is_refused_or_not_as_written_here(parts):
    try:
        found = code(words_of_parts(*parts))
    except UsageError as error:
        found = error.code
    assert found == expected(*parts)


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("claim", [False, True])
def test_only_the_mean_is_hidden_or_claimed_about(name, secure, claim):
    setting = Setting(8, secure_aggregation=secure, third_party_claim=claim)
    found = code(words_of_parts("plain", name, "fedavg"), setting)
    if name == "mean" or not (secure or claim):
        assert found == ""
    else:
        assert found == ("aggregator-needs-updates" if secure else "aggregator-not-a-sum")


@pytest.mark.parametrize("name", PRESETS)
def test_per_site_noise_goes_with_all_but_krum(name):
    found = code(words(name), Setting(8, per_site_dp=True))
    assert found == ("krum-under-noise" if "krum" in name else "")


@pytest.mark.parametrize("name", PRESETS)
def test_an_app_takes_its_own_steps(name):
    found = code(words(name), Setting(8, app=True))
    own = name in {"fedprox", "scaffold", "feddyn", "mr-mtl", "fednova"}
    assert found == ("app-trains-itself" if own else "")


@pytest.mark.parametrize("name", PRESETS)
def test_local_tensors_go_with_all_but_an_app(name):
    assert code(words(name), Setting(8, local_tensors=True)) == ""
    assert code(words(name), Setting(8, local_tensors=True, app=True)) == "app-trains-itself"


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "mr-mtl"])
def test_states_at_sites_go_with_secure_aggregation_and_noise(name):
    assert code(words(name), Setting(2, per_site_dp=True, secure_aggregation=True)) == ""


FEWEST = {
    "median": 3,
    "geometric-median": 3,
    "centered-clipping": 3,
    "trimmed-mean": 3,
    "krum": 5,
    "multi-krum": 5,
    "norm-bounding": 1,
    "fedavg": 1,
}


@pytest.mark.parametrize(("name", "fewest"), list(FEWEST.items()))
def test_a_quorum_must_leave_the_rule_something_to_withstand(name, fewest):
    assert code(words(name), Setting(fewest)) == ""
    if fewest > 1:
        assert code(words(name), Setting(fewest - 1)) == "quorum-too-small"


def test_multi_krum_keeps_no_more_than_the_paper_allows():
    many = AlgorithmWords("multi-krum", {"f": 1, "m": 4})
    assert code(many, Setting(7)) == ""
    assert code(many, Setting(6)) == "quorum-too-small"


def test_a_trim_that_leaves_out_nobody_is_refused():
    tenth = AlgorithmWords("trimmed-mean", {"beta": 0.1})
    assert code(tenth, Setting(9)) == "trim-cuts-nothing"
    assert code(tenth, Setting(10)) == ""


@pytest.mark.parametrize("name", ["centered-clipping", "norm-bounding"])
def test_a_radius_below_the_noise_is_refused(name):
    assert code(words(name), Setting(8, per_site_dp=True, noise_norm=9.0)) == "radius-below-noise"
    assert code(words(name), Setting(8, per_site_dp=True, noise_norm=1.0)) == ""


def test_a_refusal_says_what_why_and_what_next():
    refusal = check(words("krum"), Setting(8, secure_aggregation=True))
    assert isinstance(refusal, Refusal)
    assert "plain / krum / fedavg: a robust rule compares" in refusal.message
    assert "'mean'" in refusal.next_step


def test_every_rule_has_a_code_of_its_own_and_a_next_step():
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert all(Refusal(rule.code, rule.reason, rule.next_step).next_step for rule in RULES)


def test_robust_rules_are_all_aggregators_but_the_mean():
    assert set(ROBUST) == set(AGGREGATORS) - {"mean"}


def test_a_studys_setting_is_read_from_its_tables():
    setting = setting_of(study())
    assert (setting.quorum, setting.per_site_dp, setting.app) == (2, True, False)
    plain = setting_of(study(privacy={"mechanism": "none"}, training__app="torch"))
    assert plain == Setting(2, app=True)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_noise_of_an_update_is_as_long_as_drawn_noise_in_the_training_loop(momentum):
    some = study(training__local_steps=6, training__momentum=momentum)
    size, random = 3000, np.random.default_rng(0)
    now, velocity = np.zeros(size), np.zeros(size)
    for _ in range(6):  # sigma 4, clip 0.5, 300 patients at rate 1, learning rate 1
        velocity = momentum * velocity + random.normal(0, 4 * 0.5 / 300, size)
        now -= velocity
    drawn = np.linalg.norm(now) * np.sqrt(model_layout(some).size / size)
    assert setting_of(some).noise_norm == pytest.approx(drawn, rel=0.05)
