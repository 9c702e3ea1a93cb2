"""Any history of a study keeps the promises of rounds: every event, at random times, with kills."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, invariant, precondition, rule

from larrey_protocol.refusals import STANDING_REFUSALS
from larrey_server.round_opening import missing
from larrey_server.round_values import (
    Aggregated,
    AnsweredLate,
    Launched,
    Plan,
    Replied,
    Reply,
    Resumed,
    SiteDown,
    SiteJoined,
    SiteStopped,
    SiteUp,
    SiteWindow,
    Ticked,
)
from larrey_server.rounds import deadline, next_wake, task_key
from larrey_server.watching import describe
from tests.server.round_history import STUDY, History
from tests.server.round_play import order, remembered
from tests.server.study_bench import SITES

CODES = ("", "", "", "", "", "trainer-crashed", "budget-exhausted", "outside-window")
site_names = st.sampled_from(SITES)


class Histories(History):
    """Every event at any time."""

    @initialize(
        quorum=st.sampled_from([1, 2, 2, 3, 4]),
        required=st.sampled_from([(), (), ("beta",), ("alpha", "delta")]),
        phases=st.sampled_from([("train",), ("train",), ("keys", "shares", "masked", "unmask")]),
        spares=st.integers(0, 3),
        joined=st.sampled_from([SITES, SITES, SITES, ("alpha", "beta"), ("gamma",)]),
        up=st.booleans(),
    )
    def launch(
        self,
        quorum: int,
        required: tuple[str, ...],
        phases: tuple[str, ...],
        spares: int,
        joined: tuple[str, ...],
        up: bool,
    ) -> None:
        rules = Plan(STUDY.digest, SITES, 3, spares, quorum, 30.0, phases, required=required)
        self.begin(rules)
        self.feed(Launched(self.now, joined))
        if up:
            self.everybody_up()

    @rule(site=site_names)
    def up_again(self, site: str) -> None:
        self.up.add(site)
        self.feed(SiteUp(self.now, site))

    @rule()
    def everybody_up(self) -> None:
        for site in SITES:
            self.up_again(site)

    @rule(site=site_names)
    def down(self, site: str) -> None:
        self.up.discard(site)
        self.busy = {(name, key) for name, key in self.busy if name != site}
        self.feed(SiteDown(self.now, site))

    @rule(site=site_names, seconds=st.sampled_from([0.0, 0.0, 5.0, 29.0, 500.0]))
    def opens(self, site: str, seconds: float) -> None:
        self.window[site] = self.now + seconds
        self.feed(SiteWindow(self.now, site, self.now + seconds if seconds else 0.0))

    @rule(site=site_names)
    def joins(self, site: str) -> None:
        """A site may join that was stopped; whether it is there is told anew."""
        self.feed(SiteJoined(self.now, site))
        if site in self.up:
            self.feed(SiteUp(self.now, site))

    @rule(
        site=site_names, code=st.sampled_from(CODES), pick=st.integers(0, 3), work=st.floats(0, 9)
    )
    def answer(self, site: str, code: str, pick: int, work: float) -> None:
        """A site answers the present request, or one of some time ago."""
        if not self.seen:
            return
        key = self.seen[-1 - min(pick, len(self.seen) - 1)]
        before = self.state
        update = "" if code else f"{site} {key.round} {key.phase}"
        self.busy.discard((site, key))
        was_present = self.is_present(key)
        if code in STANDING_REFUSALS and site in before.pending and was_present:
            self.out.add(site)
        reply = Reply(site, key.phase, update, code, work_s=work)
        self.feed(Replied(self.now, key, reply))
        is_stale = bool(code) and not was_present
        if (site in self.out and not code) or is_stale:
            assert self.state == before

    @rule(sites=st.lists(site_names, unique=True, min_size=1))
    def some_answer(self, sites: list[str]) -> None:
        if self.state.status != "open":
            return
        key = task_key(self.state)
        for site in sites:
            if (site, key) in self.busy:
                self.busy.discard((site, key))
                reply = Reply(site, key.phase, f"{site} {key.round} {key.phase}", work_s=2.0)
                self.feed(Replied(self.now, key, reply))

    @rule()
    def everybody_answers(self) -> None:
        self.some_answer(list(SITES))

    @rule(code=st.sampled_from(["trainer-crashed", "device-lost"]), spared=st.sets(site_names))
    def passing_refusals(self, code: str, spared: set[str]) -> None:
        """Everybody who was asked answers, some of them that they cannot do it now."""
        for site in SITES:
            self.opens(site, 0.0)
            self.up_again(site)
        self.some_answer(sorted(spared))
        for site in SITES:
            if site in self.state.pending and site in self.state.asked:
                self.answer(site, code, 0, 1.0)

    @rule(site=site_names, back=st.integers(0, 2))
    def answers_late(self, site: str, back: int) -> None:
        """What comes too late changes nothing but how long the site is waited for."""
        before = self.state
        self.feed(AnsweredLate(self.now, site, before.round - back))
        kept = {"overdue": before.overdue, "last_asked": before.last_asked}
        assert replace(self.state, **kept) == before  # type: ignore[arg-type]

    @rule(seconds=st.sampled_from([0.5, 3.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Ticked(self.now))

    @precondition(lambda self: self.state.status == "closing")
    @rule()
    def aggregate(self) -> None:
        self.feed(Aggregated(self.now, f"m{self.state.round}"))

    @precondition(lambda self: self.state.status == "closing" and self.state.round == 2)
    @rule()
    def aggregate_in_vain(self) -> None:
        self.feed(Aggregated(self.now, code="disk-full"))
        assert (self.state.status, self.state.outcome) == ("ended", "FAILED")

    @rule(back=st.sets(site_names))
    def kill(self, back: set[str]) -> None:
        """Forget what was not committed; the clock begins anew."""
        self.state = remembered(self.committed)
        self.now, self.up, self.window = 10.0, set(), {}
        self.busy.clear()
        self.out = {*self.state.stopped, *self.state.excluded}
        self.feed(Resumed(self.now))
        for site in sorted(back):
            self.up_again(site)

    @rule(site=site_names)
    def stop(self, site: str) -> None:
        if site in self.state.joined:
            self.out.add(site)
        self.feed(SiteStopped(self.now, site, "site-withdrawn"))

    @rule(
        verb=st.sampled_from(["pause", "halt", "resume", "resume", "retry", "retry", "extend"]),
        seconds=st.sampled_from(["5", "900", "nan", "-3", "soon"]),
    )
    def command(self, verb: str, seconds: str) -> None:
        self.number += 1
        before, until = self.state, deadline(self.state)
        self.feed(order(verb, self.number, self.now, seconds))
        assert self.state.spares_left == before.spares_left
        if verb == "halt" and before.status != "ended":
            assert self.state.status == "halted"
        if verb == "resume" and before.stop and before.status in {"halted", "paused"}:
            assert self.state.status in {"gathering", "open"} or self.state.stop_code
        if verb == "extend" and before.status == "open":
            gained = {"5": 5.0, "900": 900.0}.get(seconds, 0.0)
            assert deadline(self.state) == until + gained

    @rule(site=site_names)
    def exclude(self, site: str) -> None:
        self.number += 1
        if self.state.status != "ended":
            self.out.add(site)
        self.feed(order("exclude", self.number, self.now, site, "its scanner broke"))
        assert self.state.status == "ended" or self.committed == self.state

    @rule(site=site_names)
    def include(self, site: str) -> None:
        """A site that is let in again is out until the next attempt opens."""
        self.number += 1
        self.feed(order("include", self.number, self.now, site))
        assert self.state.status == "ended" or self.committed.order == self.number

    @invariant()
    def no_round_is_applied_twice_or_out_of_order(self) -> None:
        assert self.applied == list(range(1, len(self.applied) + 1))
        assert self.state.model == f"m{self.state.applied}"

    @invariant()
    def spare_attempts_are_neither_overdrawn_nor_won(self) -> None:
        assert 0 <= self.state.spares_left <= self.plan.spare_rounds

    @invariant()
    def a_site_answers_a_phase_once(self) -> None:
        places = [(one.site, one.phase) for one in self.state.replies]
        assert len(places) == len(set(places))

    @invariant()
    def whoever_is_there_and_owes_an_answer_has_been_asked(self) -> None:
        for site in self.state.pending:
            if site in self.up and self.state.windows.get(site, 0.0) <= self.now:
                assert (site, task_key(self.state)) in self.busy

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        state, wake = self.state, next_wake(self.state, self.now)
        match state.status:
            case "open":
                assert wake is not None
                assert wake <= deadline(state)
                assert state.pending
                return
            case "gathering":
                gone = missing(state, self.now)
                rests = [self.rest_until] if self.rest_until > self.now else []
                assert gone or rests
                windows = [one.until for one in gone if one.until]
                assert wake == min([*windows, *rests], default=None)
            case "paused" | "halted":
                assert state.stop
                assert state.stop_by or state.stop_code in {"below-quorum", "too-few-sites"}
                assert (state.pending, state.replies, state.cells) == ((), (), ())
            case _:
                assert wake is None
        assert state.pending == ()

    @invariant()
    def it_can_be_told(self) -> None:
        facts = describe(STUDY, self.state, at=self.now, checking=(), epsilon={}, wall=2e9)
        if self.state.status == "gathering":
            assert facts["missing"] or facts["refusals"]
            rests = self.rest_until > self.now
            assert (facts["next_attempt_at"] is not None) == rests == bool(facts["refusals"])

    def teardown(self) -> None:
        """Whatever happened, people bring it to its end, and the certificate says everything."""
        if not hasattr(self, "plan"):
            return
        for site in SITES:
            self.include(site)
        self.finish()
        if self.state.status != "ended":
            self.feed(order("close", 99, self.now))
        self.certify()

    def finish(self) -> None:
        for _ in range(12):
            self.command("retry" if self.rest_until else "resume", "0")
            if self.state.stop_code == "too-few-sites":
                return
            for site in SITES:
                self.opens(site, 0.0)
                self.up_again(site)
            for _ in self.plan.phases:
                self.everybody_answers()
            if self.state.status == "closing":
                self.aggregate()
        can = not self.state.stopped and set(self.plan.required) <= set(self.state.joined)
        assert self.state.status == "ended" or not can or len(self.state.joined) < self.plan.quorum


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
