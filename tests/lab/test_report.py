"""The report says what the facts say, and needs nothing but itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from larrey_lab.evaluation import Interval
from larrey_lab.facts import DemoFacts, HospitalFacts, RefusalFacts, RoundFacts, RunFile
from larrey_lab.report import render
from larrey_lab.utility import CENTRAL, PRIVATE, WITHOUT, Arm, Utility, alone_at

SITES = {"cleveland": "Cleveland", "va": "VA Long Beach"}
VOID = {"meta", "use", "path", "br", "hr", "img", "link"}


def interval(value: float) -> Interval:
    return Interval(value, value - 0.02, value + 0.02)


def utility() -> Utility:
    cells = {"cleveland": interval(0.9), "va": None}
    values = {PRIVATE: 0.891, WITHOUT: 0.897, alone_at("cleveland"): 0.85, alone_at("va"): 0.77}
    return Utility(
        splits=20,
        held_out=0.3,
        patients=275,
        rows=275,
        arms=tuple(Arm(n, interval(v), cells) for n, v in {**values, CENTRAL: 0.9}.items()),
        dp_gap=interval(0.006),
        gain=interval(0.071),
        federated_gap=interval(0.003),
        central_gap=interval(0.009),
        curve=(interval(0.87), interval(0.891)),
        curve_without=(interval(0.89), interval(0.897)),
    )


@pytest.fixture
def facts() -> DemoFacts:
    hospitals = tuple(
        HospitalFacts(name, title, 200, (0.4, 0.6), 8.0, 0.021, 0.007, 9, 31, is_verified=True)
        for name, title in SITES.items()
    )
    return DemoFacts(
        study="heart",
        version=1,
        title="Narrowed coronary arteries",
        question="Which patients have one?",
        digest="sha256:" + "ab" * 32,
        outcome="COMPLETE",
        finished_at="2026-01-01 10:00",
        unit="a patient at one hospital",
        relation="adding or removing one patient",
        accountant="privacy loss distributions",
        epsilon=1.0,
        delta=1e-5,
        mechanism="Gaussian noise",
        hospitals=hospitals,
        rounds=(
            RoundFacts(1, 0.4, 0.87, {"cleveland": "contributed", "va": "contributed"}),
            RoundFacts(2, 0.4, 0.88, {"cleveland": "contributed", "va": "late"}),
        ),
        run=interval(0.889),
        run_patients=275,
        utility=utility(),
        refusal=RefusalFacts("loud", "va", "noise-below-policy", "Too little.", "0.3", "0.5", 0.0),
        files=(RunFile("model.safetensors", "the model", "sha256:" + "cd" * 32),),
        seconds_to_first_round=9.0,
        seconds_total=30.0,
    )


class Page(HTMLParser):
    """Collects what a browser would."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: Counter[str] = Counter()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.note(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(attrs)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def note(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in {"src", "href", "xlink:href", "action", "data"}:
                self.links.append(value)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_page_is_whole_and_its_ids_are_unique(facts):
    page = Page(render(facts))
    assert page.open == []
    assert page.ids
    assert max(page.ids.values()) == 1


def test_page_asks_nothing_of_the_network(facts):
    text = render(facts)
    assert all(link.startswith("#") for link in Page(text).links)
    assert "url(http" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_every_reference_inside_a_plot_resolves(facts):
    text = render(facts)
    wanted = set(re.findall(r"url\(#([^)]+)\)", text)) | {
        link[1:] for link in Page(text).links if link != "#"
    }
    assert wanted <= set(Page(text).ids)


def test_epsilon_stands_with_unit_relation_delta_and_accountant(facts):
    text = Page(render(facts)).text
    for words in (
        "a patient at one hospital",
        "adding or removing one patient",
        "epsilon 1 at delta 1e-5",
        "privacy loss distributions",
    ):
        assert words in text


def test_table_cells_with_few_patients_say_so(facts):
    assert Page(render(facts)).text.count("too few") == len(facts.utility.arms)


def test_late_hospital_is_named_in_its_round(facts):
    assert '<span class="mark off">late</span>' in render(facts)
    whole = replace(facts, rounds=facts.rounds[:1])
    assert "mark off" not in render(whole)


def test_refusal_tells_code_and_that_nothing_was_spent(facts):
    text = Page(render(facts)).text
    assert "noise-below-policy" in text
    assert "Spent: nothing." in text


@pytest.mark.parametrize(("is_verified", "words"), [(True, "intact"), (False, "BROKEN")])
def test_a_broken_chain_is_told(facts, is_verified, words):
    hospitals = tuple(replace(h, is_verified=is_verified) for h in facts.hospitals)
    assert words in Page(render(replace(facts, hospitals=hospitals))).text


def test_text_from_a_study_cannot_become_markup(facts):
    hostile = '<img src="https://example.org/x"> & "quotes"'
    refusal = replace(facts.refusal, sentence=hostile, asked=hostile)
    page = Page(render(replace(facts, title=hostile, question=hostile, refusal=refusal)))
    assert not any("example" in link for link in page.links)
    assert page.open == []


def test_hospitals_with_other_rounds_get_their_own_line(facts):
    first, second = facts.hospitals
    text = render(replace(facts, hospitals=(first, replace(second, epsilon_by_round=(0.4,)))))
    assert "all hospitals</text>" not in text
    assert "VA Long Beach</text>" in text


def test_same_facts_give_the_same_page(facts):
    assert render(facts) == render(facts)


def test_facts_are_json_even_where_nothing_could_be_estimated(facts):
    lone = replace(facts, run=Interval(0.9, float("nan"), float("nan")))
    document = json.loads(json.dumps(lone.as_json(), allow_nan=False))
    assert document["run"] == {"value": 0.9, "low": None, "high": None}
    assert document["utility"]["arms"][0]["by_site"]["va"] is None
    assert document["hospitals"][0]["epsilon_by_round"] == [0.4, 0.6]
