"""English and French say the same, and what is dangerous is said first."""

from __future__ import annotations

import string

import pytest

from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.explain import explain_study
from larrey_client.explain.english import ENGLISH
from larrey_client.explain.french import FRENCH
from larrey_client.explain.plain import plain, shown
from larrey_client.settings import SiteSettings
from larrey_client.views import study_view
from larrey_protocol.keys import fingerprint
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve
from tests.client.node.peer import Peer

Table = dict[str, str]


def fields(phrase: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(phrase) if name is not None}


def test_both_languages_have_the_same_phrases_about_the_same_values() -> None:
    assert list(ENGLISH) == list(FRENCH)
    differing = [key for key in ENGLISH if fields(ENGLISH[key]) != fields(FRENCH[key])]
    assert differing == []


def test_no_phrase_was_left_untranslated() -> None:
    same = {key for key in ENGLISH if ENGLISH[key] == FRENCH[key]}
    assert same <= {"title", "question", "signatures", "variables", "code"}


@pytest.fixture
def view(agent: Agent, settings: SiteSettings, lawful: Approve) -> dict[str, object]:
    lawful(agent, STUDY)
    return study_view(agent.node.store.records.connection, settings, STUDY.digest)


def test_a_person_reads_permit_roster_cost_and_what_leaves(
    view: dict[str, object], pki: Pki
) -> None:
    text = explain_study(view)
    for word in (
        "test/1 version 1, GRANTED, by an authority",
        "Hospital Alpha",
        f"alpha (100 or more, {fingerprint(pki.signing.public)})",
        "at delta 1e-05 per patient (a value of pid)",
        "of the budget",
        "clipped and noised",
        "left out",
        "0 of 2 (it, dpo missing)",
    ):
        assert word in text
    assert "!!" not in text


def test_the_same_is_read_in_french(view: dict[str, object], pki: Pki) -> None:
    text = explain_study(view, lang="fr")
    for word in (
        "la recherche scientifique",
        "Autorisation  test/1 version 1",
        f"alpha (100 ou plus, {fingerprint(pki.signing.public)})",
        "multiplicateur de bruit 4",
        "aucune ligne, aucun effectif, aucun texte",
        "0 sur 2 (manque : it, dpo)",
    ):
        assert word in text
    assert len(text.splitlines()) == len(explain_study(view).splitlines())


@pytest.mark.parametrize(("lang", "loud"), [("en", "NO differential"), ("fr", "AUCUNE confid")])
def test_no_privacy_is_the_first_thing_said(view: dict[str, object], lang: str, loud: str) -> None:
    none = view | {"privacy": {"mechanism": "none"}}
    text = explain_study(none, lang="fr" if lang == "fr" else "en").splitlines()
    warnings = [number for number, line in enumerate(text) if line.startswith("!!")]
    assert loud in text[warnings[0]]
    assert warnings[0] < text.index("")


def test_what_is_missing_is_a_warning(view: dict[str, object]) -> None:
    assert "not known here" in explain_study(view | {"permit": None})
    stranger = [{"name": "beta", "patients": 9, "fingerprint": ""}]
    assert "NOT ON THE ROSTER" in explain_study(view | {"roster": stranger})
    assert "altered" in explain_study(view | {"altered": "a permit"})


def test_the_command_speaks_the_language_asked_for(
    agent: Agent, lawful: Approve, settings: SiteSettings, peer: Peer,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    lawful(agent, STUDY)
    config = str(settings.identity.key.parent / "site.toml")
    assert main(["study", "show", "tiny", "--lang", "fr", "--config", config]) == 0
    assert "Finalité" in capsys.readouterr().out
    assert main(["study", "show", "tiny", "--lang", "en", "--config", config]) == 0
    assert "What for" in capsys.readouterr().out


def test_foreign_text_stays_on_one_line() -> None:
    assert plain("a\nb\x1b[8m\u202ec") == "a b[8mc"
    assert shown(["x\ny", 2]) == "x y, 2"
    assert shown(None) == shown([]) == "-"
