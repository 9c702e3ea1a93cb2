"""What who is on call may order about a running study, and what comes of it, over the real port."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from larrey_protocol.decisions import Order
from larrey_protocol.errors import LarreyError, Refusal
from larrey_protocol.people import Person
from larrey_protocol.signed import sign
from larrey_protocol.study import Study
from larrey_server.cli import main
from larrey_server.on_call import require_on_call, seconds_of
from larrey_server.orders import Present, require_sensible
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, until
from tests.server.test_orders import listed, order
from tests.server.test_study_over_grpc import approve_all

SITES = ("alpha", "beta")
OPEN = Present("heart", "open", "", SITES, "", (), status="open")
ONE_IS_ENOUGH = study(rounds__quorum=1)


def present(**changes: Any) -> Present:
    fields = {name: getattr(OPEN, name) for name in Present.__dataclass_fields__}
    return Present(**(fields | changes))


def on_call(verb: str, subject: str = "", reason: str = "it lies") -> Order:
    return order(2, verb, subject=subject, reason=reason)


@pytest.mark.parametrize(
    ("verb", "subject", "state"),
    [
        ("exclude", "beta", present()),
        ("exclude", "beta", present(status="gathering")),
        ("include", "beta", present(excluded=("beta",))),
        ("extend", "600", present()),
        ("retry", "", present()),
        ("include", "beta", present(out=("beta",), includable=("beta",))),
        ("retry", "", present(status="gathering", is_pausing=True)),
        ("retry", "", present(status="paused", stop="pause", stop_code="below-quorum")),
        ("retry", "", present(status="paused", stop="pause", stop_code="too-few-sites")),
    ],
)
def test_an_order_on_call_that_fits_is_taken(verb: str, subject: str, state: Present) -> None:
    require_sensible(on_call(verb, subject), "key", state)


@pytest.mark.parametrize(
    ("given", "state", "code"),
    [
        (on_call("exclude", "beta"), present(state="proposed", status="proposed"),
         "study-not-running"),
        (on_call("retry"), present(state="ended", status="ended"), "study-not-running"),
        (on_call("exclude", "gamma"), present(), "not-invited"),
        (on_call("exclude", "beta", reason=" "), present(), "bad-reason"),
        (on_call("exclude", "beta", reason="a\x1b[2Jb"), present(), "bad-reason"),
        (on_call("exclude", "beta"), present(excluded=("beta",)), "already-excluded"),
        (on_call("exclude", "beta"), present(out=("beta",)), "already-out"),
        (on_call("include", "gamma"), present(), "not-invited"),
        (on_call("include", "beta"), present(), "not-excluded"),
        (on_call("include", "beta"), present(out=("beta",)), "not-excluded"),
        (on_call("extend", "600"), present(status="gathering"), "nothing-to-extend"),
        (on_call("extend", "600"), present(status="paused", stop="pause"), "nothing-to-extend"),
        (on_call("extend", "soon"), present(), "bad-seconds"),
        (on_call("retry"), present(status="gathering"), "nothing-to-retry"),
        (on_call("retry"), present(status="paused", stop="pause"), "nothing-to-retry"),
        (on_call("retry"), present(status="halted", stop="halt"), "nothing-to-retry"),
    ],
)  # fmt: skip
def test_an_order_on_call_that_does_not_fit_says_why(
    given: Order, state: Present, code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        require_on_call(given, state)
    assert caught.value.code == code


@given(st.integers(1, 604_800))
def test_seconds_are_whole_and_at_most_a_week(seconds: int) -> None:
    assert seconds_of(str(seconds)) == seconds


@given(st.one_of(st.text(max_size=8), st.integers(604_801).map(str), st.integers(-9, 0).map(str)))
def test_anything_else_is_no_number_of_seconds(text: str) -> None:
    assume(not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= 604_800)
    with pytest.raises(Refusal, match="bad-seconds"):
        seconds_of(text)


@pytest.fixture
def running(federation: Federation) -> tuple[Federation, str]:
    """Give a study with a quorum of one, launched while both sites are there."""
    digest = approve_all(federation, ONE_IS_ENOUGH)
    federation.launch(digest)
    return federation, digest


def site_of(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in facts["sites"] if row["site"] == name)


def answer(federation: Federation, name: str, of: Study = ONE_IS_ENOUGH) -> None:
    with federation.site(name) as site:
        assert site.answer(site.work(), of).accepted


def certified(federation: Federation, digest: str) -> dict[tuple[str, int], tuple[str, str]]:
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["state"] == "ended")
        paper = json.loads(operator.certificate(digest).document)
    return {(c["site"], c["round"]): (c["outcome"], c["code"]) for c in paper["matrix"]}


def test_an_excluded_site_is_waited_for_no_more_and_its_answer_does_not_count(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    answer(federation, "beta")
    with federation.operator("ben") as operator:
        facts = operator.command(digest, "exclude", "beta", "its labels are swapped")
        beta = site_of(facts, "beta")
        assert (beta["state"], beta["reason"]) == ("excluded", "its labels are swapped")
        for _ in range(3):
            answer(federation, "alpha")
    cells = certified(federation, digest)
    assert [cells["beta", number][0] for number in (1, 2, 3)] == ["excluded"] * 3
    assert {cells["alpha", number] for number in (1, 2, 3)} == {("contributed", "")}


def test_an_included_site_takes_part_from_the_next_round_on(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    with federation.operator() as operator:
        operator.command(digest, "exclude", "beta", "a broken disk")
        operator.command(digest, "include", "beta")
        answer(federation, "alpha")
        until(lambda: operator.find(digest)["applied"] == 1)
    with federation.site("beta") as beta:
        assert beta.work().fields["round"] == 2


@pytest.mark.parametrize("way", ["include", "approve"])
def test_a_site_that_declined_comes_back_by_order_or_by_a_newer_approval(
    running: tuple[Federation, str], way: str
) -> None:
    federation, digest = running
    coordinator = federation.hub.coordinator
    with federation.site("beta") as beta, federation.operator() as operator:
        assert beta.give(beta.work(), code="budget-exhausted").accepted
        until(lambda: site_of(operator.find(digest), "beta")["state"] == "declined")
        coordinator.commander.join_late(digest)  # its approval is the old one
        assert site_of(operator.find(digest), "beta")["state"] == "declined"
        if way == "include":
            operator.command(digest, "include", "beta")
        else:
            assert beta.approve(digest, answered_at="1.0").recorded
        until(lambda: site_of(operator.find(digest), "beta")["state"] != "declined")
        answer(federation, "alpha")
        assert beta.work().fields["round"] == 2


def test_a_site_that_revoked_is_not_brought_back_by_an_order(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    with federation.site("beta") as beta, federation.operator() as operator:
        assert beta.approve(digest, "revoked").recorded
        until(lambda: site_of(operator.find(digest), "beta")["state"] == "declined")
        with pytest.raises(Refusal, match="not-excluded"):
            operator.command(digest, "include", "beta")


def test_an_extension_moves_the_deadline_of_the_open_round(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    with federation.operator() as operator:
        before = operator.find(digest)["deadline_s"]
        after = operator.command(digest, "extend", "3600")["deadline_s"]
    assert 3500 < after - before <= 3600


def test_a_retry_asks_everybody_again_and_costs_no_spare_attempt(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    with federation.site("alpha") as alpha, federation.operator() as operator:
        work = alpha.work()
        spares = operator.find(digest)["spares_left"]
        facts = operator.command(digest, "retry")
        assert (facts["round"], facts["attempt"], facts["spares_left"]) == (1, 2, spares)
        again = alpha.work()
    assert (again.fields["attempt"], again.fields["model"]) == (2, work.fields["model"])
    text = federation.hub.metrics.expose()
    assert b'larrey_rounds_total{outcome="retried",study="tiny"} 1.0' in text


def test_what_paused_for_want_of_sites_is_tried_again_by_a_person(federation: Federation) -> None:
    tiny = study(training__spare_rounds=0)
    digest = approve_all(federation, tiny)
    federation.launch(digest)
    with federation.site("beta") as beta, federation.operator() as operator:
        answer(federation, "alpha", tiny)
        assert beta.give(beta.work(), code="node-failed").accepted
        until(lambda: operator.find(digest)["state"] == "paused")
        facts = operator.find(digest)
        assert (facts["stop_code"], facts["next_step"]) == (
            "below-quorum", "larrey study retry tiny",
        )  # fmt: skip
        facts = operator.command(digest, "retry")
        assert (facts["state"], facts["attempt"], facts["stop"]) == ("open", 2, "")


def test_what_paused_since_too_few_approve_is_not_tried_again(federation: Federation) -> None:
    digest = approve_all(federation, study())  # a quorum of two
    federation.launch(digest)
    with federation.site("beta") as beta, federation.operator() as operator:
        assert beta.approve(digest, "revoked").recorded
        until(lambda: operator.find(digest)["state"] == "paused")
        assert operator.find(digest)["stop_code"] == "too-few-sites"
        with pytest.raises(Refusal, match="not-enough-approvals"):
            operator.command(digest, "retry")


def test_an_exclusion_survives_a_restart_whether_or_not_it_was_carried_out(
    folder: Folder, tmp_path: Path
) -> None:
    first = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    digest = approve_all(first, ONE_IS_ENOUGH)
    first.launch(digest)
    kept = sign(order(2, "exclude", digest, subject="beta", reason="it lies"), folder.ada)
    first.hub.coordinator.commander.orders.take(kept, lambda *_: None)  # and then a kill
    for _ in range(2):
        first.hub.stop()
        first = Federation(folder, Hub(folder.settings(tmp_path / "state")))
        with first.operator() as operator:
            until(lambda: site_of(operator.find(digest), "beta")["state"] == "excluded")
    first.hub.stop()


def test_an_operator_of_the_roster_may_be_on_call_and_an_auditor_may_not(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    folder = federation.folder
    roles = (("lead", folder.ada), ("operator", folder.ben))
    for version, role in enumerate(("operator", "auditor"), 2):
        people = tuple(
            Person(name=name, role=role if name == "ben" else "lead", key=key.public)
            for name, (_, key) in zip(("ada", "ben"), roles, strict=True)
        )
        roster = folder.roster(version).model_copy(update={"people": people})
        federation.hub.coordinator.take_roster(sign(roster, folder.consortium))
        with federation.operator("ben") as operator:
            if role == "operator":
                operator.command(digest, "exclude", "beta", "on call")
                continue
            with pytest.raises(LarreyError, match="role-not-allowed"):
                operator.command(digest, "include", "beta")


def test_who_ordered_it_and_why_is_told_wherever_a_person_looks(
    running: tuple[Federation, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, _ = running
    file = str(federation.folder.operator_file(tmp_path / "op.toml", federation.hub.address))
    asked = ["--operator", file]
    assert main(["study", "exclude", "tiny", "beta", "--reason", "swapped labels", *asked]) == 0
    said = capsys.readouterr()
    assert "beta:excluded (swapped labels)" in said.out
    assert "undo: larrey study include tiny beta" in said.err
    assert main(["study", "extend", "tiny", "60", *asked]) == 0
    assert "60 seconds more" in capsys.readouterr().err
    assert main(["study", "retry", "tiny", *asked]) == 0
    capsys.readouterr()
    assert main(["study", "show", "tiny", *asked]) == 0
    shown = capsys.readouterr().out
    assert "beta (swapped labels)" in shown
    told = next(line for line in shown.splitlines() if "exclude" in line and "ada" in line)
    assert told.split()[-3:] == ["beta", "swapped", "labels"]
    assert main(["audit", "query", "--action", "exclude-ordered", *asked]) == 0
    assert "ada" in (line := capsys.readouterr().out)
    assert "beta  swapped labels" in line
    assert main(["study", "include", "tiny", "beta", *asked]) == 0
    assert main(["study", "include", "tiny", "beta", *asked]) == 1
    assert "[not-excluded]" in capsys.readouterr().err
    assert main(["study", "exclude", "tiny", "beta", "--reason", "x" * 201, *asked]) == 2
    assert "at most 200" in capsys.readouterr().err


def test_a_watcher_hears_who_excluded_whom(running: tuple[Federation, str]) -> None:
    federation, digest = running
    with federation.hub.coordinator.feed.watch(digest) as events, federation.operator() as operator:
        operator.command(digest, "exclude", "beta", "it lies")
        operator.command(digest, "extend", "60")
        until(lambda: events.qsize() >= 2)
        heard = {}
        while not events.empty():
            event = events.get()
            assert event is not None
            heard[event["event"]] = event
    assert (heard["site-excluded"]["by"], heard["site-excluded"]["reason"]) == ("ada", "it lies")
    assert (heard["round-extended"]["by"], heard["round-extended"]["seconds"]) == ("ada", 60.0)


def test_sites_are_told_and_the_gauge_counts_the_excluded(running: tuple[Federation, str]) -> None:
    federation, digest = running
    with federation.operator() as operator, federation.site("alpha") as alpha:
        operator.command(digest, "exclude", "beta", "it lies")
        assert [one.verb for one in listed(alpha)] == ["launch", "exclude"]
    assert b'larrey_sites_excluded{study="tiny"} 1.0' in federation.hub.metrics.expose()
