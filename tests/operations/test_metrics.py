"""What both sides export: from the start, bounded, without a series for a study that is closed."""

import io
import json
import logging
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from larrey_client.metrics import SiteMetrics
from larrey_lab.metrics_page import families_of
from larrey_protocol.json_log import JsonLines, formatter
from larrey_server.metrics import MOST_STUDIES, Metrics
from larrey_server.tally import count

LABELS = {
    *("study", "site", "phase", "kind", "outcome", "reason", "rule", "service", "method", "code"),
    *("role", "volume", "stop", "version", "flwr_version", "state", "dataset", "barrier"),
}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics(clock):
    made = Metrics(clock)
    made.study_known("heart", ["alpha", "beta"], quorum=2, rounds=3, deadline_s=60.0, epsilon=1.0)
    return made


def event(kind, state="open", **more):
    sites = [
        {"site": "alpha", "state": "answered", "epsilon": 0.25},
        {"site": "beta", "state": "working", "epsilon": None},
    ]
    return {"event": kind, "status": {"state": state, "round": 1, "sites": sites}, **more}


def test_names_have_one_prefix_and_base_units():
    coordinator, site = families_of()
    for family in (*coordinator, *site):
        prefix = "larrey_site_" if family in site else "larrey_"
        assert re.fullmatch(prefix + "[a-z][a-z_]*[a-z]", family.name)
        assert not re.search("_(ms|minutes|hours|kb|mb|percent)(_|$)", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert set(family.labels) <= LABELS
        assert family.meaning
    assert not {one.name for one in coordinator} & {one.name for one in site}


def test_nothing_exported_at_start_is_undeclared(metrics, tmp_path):
    declared = {one.name for side in families_of() for one in side}
    for text in (metrics.expose(), SiteMetrics(tmp_path).text()):
        for family in text_string_to_metric_families(text.decode()):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert name in declared or name.startswith("process_")
            assert not name.endswith("_created")


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("larrey_rounds_total", {"study": "heart", "outcome": "no_quorum"}, 0),
        ("larrey_runs_total", {"study": "heart", "outcome": "failed"}, 0),
        (
            "larrey_updates_rejected_total",
            {"study": "heart", "site": "beta", "reason": "bad-signature"},
            0,
        ),
        ("larrey_round_deadline_seconds", {"study": "heart"}, 60),
        ("larrey_privacy_epsilon_budget", {"study": "heart", "site": "beta"}, 1),
        ("larrey_round_last_completed_timestamp_seconds", {"study": "heart"}, 1000),
    ],
)
def test_a_study_that_becomes_known_has_its_series_at_once(metrics, name, labels, value):
    assert metrics.registry.get_sample_value(name, labels) == value


def test_a_round_is_told_from_its_opening_to_its_end(metrics, clock):
    def now(name):
        return metrics.registry.get_sample_value(name, {"study": "heart"})

    clock.now = 5000.0
    count(metrics, "heart", event("round-opened", round=1))
    assert now("larrey_run_active") == now("larrey_round_number") == 1
    assert now("larrey_round_start_timestamp_seconds") == 5000
    assert now("larrey_round_last_completed_timestamp_seconds") == 5000  # launched: none is due
    assert now("larrey_round_replies_waiting") == 1
    site = {"study": "heart", "site": "alpha"}
    assert metrics.registry.get_sample_value("larrey_privacy_epsilon_spent", site) == 0.25
    clock.now = 5060.0
    count(metrics, "heart", event("round-applied", state="ended", round=1, sites={}))
    count(metrics, "heart", event("study-ended", state="ended", outcome="COMPLETE"))
    assert now("larrey_run_active") == now("larrey_round_start_timestamp_seconds") == 0
    assert now("larrey_round_last_completed_timestamp_seconds") == 5060
    assert now("larrey_round_duration_seconds_count") == 1


def test_sites_that_were_there_before_a_study_count_for_it(metrics):
    metrics.sites_up(["beta", "gamma"])
    metrics.study_known("later", ["beta", "delta"], quorum=1, rounds=1, deadline_s=1.0)
    for study in ("heart", "later"):
        assert metrics.registry.get_sample_value("larrey_sites_available", {"study": study}) == 1


def test_a_closed_study_leaves_no_series_and_gets_none_again(metrics):
    count(metrics, "heart", event("round-opened", round=1))
    metrics.update_received("heart", "alpha", 1000)
    metrics.task_ended("heart", "alpha", "train", 1.0)
    metrics.study_closed("heart")
    count(metrics, "heart", event("site-answered", site="alpha", code="late"))
    metrics.update_late("heart", "alpha")
    metrics.site_seen("alpha")
    metrics.sites_up(["alpha"])
    assert 'study="heart"' not in metrics.expose().decode()


def test_only_so_many_studies_have_series_and_ended_ones_make_room(metrics):
    for number in range(MOST_STUDIES):
        metrics.study_known(f"s{number}", ["alpha"], quorum=1, rounds=1, deadline_s=1.0)
    text = metrics.expose().decode()
    assert text.count("\nlarrey_run_active{") == MOST_STUDIES
    assert "\nlarrey_studies_unshown 1.0" in text
    metrics.study_ended("heart", "COMPLETE")
    metrics.study_known("next", ["alpha"], quorum=1, rounds=1, deadline_s=1.0)
    text = metrics.expose().decode()
    assert 'study="next"' in text
    assert 'study="heart"' not in text


def test_a_site_that_left_is_shown_no_more(metrics):
    metrics.site_certificate("alpha", 9.0)
    metrics.site_gone("alpha")
    assert "certificate_expiry_timestamp_seconds{site=" not in metrics.expose().decode()


def test_a_node_shows_who_waits_for_a_person_and_whether_it_may_train(tmp_path):
    node = SiteMetrics(tmp_path)
    node.watch_pending(lambda: 2)
    node.watch_window(lambda: 1234.0)
    text = node.text().decode()
    assert "\nlarrey_site_pending_approvals 2.0" in text
    assert "\nlarrey_site_window_open 0.0" in text
    assert 'larrey_site_policy_refusals_total{rule="budget-exhausted"} 0.0' in text
    assert 'larrey_site_tasks_total{kind="train",outcome="failed"} 0.0' in text


def test_a_line_of_the_log_is_an_object_with_its_facts():
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(formatter({"LARREY_LOG_FORMAT": "json"}))
    logger = logging.getLogger("larrey.test_lines")
    logger.addHandler(handler)
    logger.warning("refused study=%s round=%d site=%s", "heart\n{}", 3, "alpha")
    logger.error("disk 100%% full at %r code=%s", "x", "disk-full")
    first, second = map(json.loads, said.getvalue().splitlines())
    facts = {"event": "refused", "study": "heart\n{}", "round": 3, "site": "alpha"}
    assert facts.items() <= first.items()
    assert second["event"] == "disk 100% full at 'x'"
    assert second["code"] == "disk-full"
    assert not isinstance(formatter({}), JsonLines)
