"""English and French say the same, and what is dangerous is said first."""

from __future__ import annotations

import string

import pytest

from larrey_client import views
from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.explain import explain_study
from larrey_client.explain import study as study_page
from larrey_client.explain.decisions import explain_policy
from larrey_client.explain.english import ENGLISH
from larrey_client.explain.french import FRENCH
from larrey_client.explain.plain import duration, plain, shown, table, wrapped
from larrey_client.explain.status import explain_status, explain_studies
from larrey_client.settings import SiteSettings
from larrey_client.views import study_view
from larrey_protocol.contract import Contract
from larrey_protocol.keys import fingerprint
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve
from tests.client.node.peer import Peer
from tests.protocol.samples import CONTRACT
from tests.protocol.test_labels import LABELS

Table = dict[str, str]


def fields(phrase: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(phrase) if name is not None}


def test_both_languages_have_the_same_phrases_about_the_same_values() -> None:
    assert list(ENGLISH) == list(FRENCH)
    differing = [key for key in ENGLISH if fields(ENGLISH[key]) != fields(FRENCH[key])]
    assert differing == []


@pytest.mark.parametrize(
    ("kind", "english", "french"),
    [
        ("binary", "y", "y"),
        ("class", "y (one class of: low, mid, high)", "y (une classe parmi : low, mid, high)"),
        ("number", "y (0 to 60 d)", "y (de 0 à 60 d)"),
        (
            "survival",
            "died, and days until it or until the last news (4 intervals, up to 730 d)",
            (
                "died, et days jusque-là ou jusqu'aux dernières nouvelles"
                " (4 intervalles, jusqu'à 730 d)"
            ),
        ),
    ],
)
def test_a_person_reads_what_the_model_will_predict(kind: str, english: str, french: str) -> None:
    contract = Contract.model_validate({**CONTRACT, "label": LABELS[kind]})
    view = views._outcome(contract)
    for phrases, expected in ((ENGLISH, english), (FRENCH, french)):
        told = study_page._outcome(view, lambda key, p=phrases, **v: p[key].format(**v))
        assert told == expected


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


def test_who_approved_an_ended_study_did_not_end_it(view: dict[str, object]) -> None:
    signed = {"needed": ["dpo"], "signed": [], "missing": ["dpo"]}
    signed |= {"is_outdated": True, "carried_from": ""}
    stands = {"decided_by": "dora", "dataset": "heart", "code": "", "signatures": signed}
    ended = explain_study(view | stands | {"state": "ended"})
    assert "ended for dataset heart" in ended
    assert "Next" not in ended
    outdated = explain_study(view | stands | {"state": "approved"})
    assert "outdated: read and sign anew; it was approved by dora" in outdated
    assert "Next" in outdated


def test_the_unit_is_named_in_the_reader_s_language(view: dict[str, object]) -> None:
    assert "patient (une valeur de pid)" in explain_study(view, lang="fr")
    assert "a value of" not in explain_study(view, lang="fr")


def test_a_first_policy_is_told_without_what_was_not_there() -> None:
    policy = {"site": "alpha", "version": 1, "is_in_effect": False, "digest": "d", "altered": ""}
    policy |= {"consortium": ["K"], "approvals": ["dpo"], "people": [], "missing": ["dpo"]}
    first = explain_policy(policy | {"changes": [["policy.small_cell", None, 11]]})
    assert "  policy.small_cell: 11" in first.splitlines()
    later = explain_policy(policy | {"changes": [["policy.small_cell", 11, 5]]})
    assert "  policy.small_cell: 11 -> 5" in later.splitlines()


@pytest.mark.parametrize(
    ("seconds", "said"), [(1, "1 min"), (1920, "32 min"), (9600, "2 h 40 min"), (7200, "2 h")]
)
def test_a_time_is_told_as_people_say_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_broken_line_cannot_pass_for_another_one() -> None:
    forged = f"What for      {'research ' * 12}Privacy       epsilon 0.1"
    lines = wrapped(f"Head\n\n{forged}", 60, indent=14).splitlines()
    assert lines[:2] == ["Head", ""]
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 14) for line in lines[3:])
    assert " ".join(" ".join(lines[2:]).split()) == " ".join(forged.split())


def test_a_table_is_as_wide_as_its_widest_cells() -> None:
    assert table(("NAME", "N"), [("longer", 1), ("b", "")]) == "NAME    N\nlonger  1\nb       -"


def test_an_encoded_update_is_said_to_be_rounded(view: dict[str, object]) -> None:
    assert "rounded" not in explain_study(view)
    leaves = dict(view["leaves"])  # type: ignore[call-overload]
    assert leaves["encoding"] == "float32"
    small = view | {"leaves": leaves | {"encoding": "int8"}}
    assert "clipped and noised, then rounded to int8" in explain_study(small)


def test_status_says_what_keeps_the_site_from_working() -> None:
    status = {"site": "alpha", "is_connected": True, "trouble": "", "coordinator": "c:1"}
    status |= {"certificate_days": 9, "studies": {}, "epsilon_ready": True, "ledger_head": ""}
    status |= {"audit_head": "", "witness": [], "isolation": {"stands": [], "missing": {}}}
    stop = {"stopped": "halted", "study": f"sha256:{'ab' * 32}", "by": "ana", "at": 0.0}
    unsigned = {"version": 1, "is_in_effect": False, "missing": ["it", "dpo"]}
    status |= {"has_left": False, "policy": unsigned, "incidents": 2, "stopped": [stop]}
    hours = {"windows": ["22:00-06:00"], "timezone": "Europe/Paris", "opens": "2026-07-01 22:00"}
    status |= {"windows": hours}
    text = explain_status(status)
    assert "training    22:00-06:00 Europe/Paris; begins 2026-07-01 22:00" in text
    assert "06:00 Europe/Paris; now" in explain_status(status | {"windows": hours | {"opens": ""}})
    assert "at any hour" in explain_status(status | {"windows": hours | {"windows": []}})
    assert text.startswith("alpha: connected\n")
    assert "policy      version 1, NOT in effect, it and dpo must sign; see:" in text
    assert "incidents   2 open" in text
    assert f"halted      {'ab' * 6} by ana since 1970-01-01 00:00 UTC" in text
    assert explain_status(status | {"has_left": True}).startswith("alpha: left its coordinator")


def test_an_approval_that_no_longer_counts_is_listed_as_outdated() -> None:
    signed = {"needed": ["dpo"], "signed": [], "missing": ["dpo"], "is_outdated": True}
    line = {"name": "heart", "version": 2, "digest": f"sha256:{'ab' * 32}", "state": "approved"}
    line |= {"dataset": "heart", "code": "", "signatures": signed}
    assert explain_studies([line]).splitlines()[1].split()[:4] == [
        "heart", "2", "ab" * 6, "outdated",
    ]  # fmt: skip
