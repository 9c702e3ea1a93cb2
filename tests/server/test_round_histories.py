"""Any history of a study keeps the promises of rounds: every event, at random times, with kills."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from larrey_lab.round_table import event_name, transitions
from larrey_protocol.refusals import STANDING_REFUSALS
from larrey_server.certificate import make_certificate
from larrey_server.journal import ContributionRow
from larrey_server.round_cells import has_quorum, members
from larrey_server.round_clock import deadline
from larrey_server.round_opening import missing
from larrey_server.round_values import (
    Action,
    Aggregate,
    Aggregated,
    Cancel,
    Cell,
    Commit,
    Event,
    Launched,
    Ordered,
    Plan,
    Replied,
    Reply,
    Resumed,
    Send,
    SiteDown,
    SiteJoined,
    SiteStopped,
    SiteUp,
    SiteWindow,
    State,
    TaskKey,
    Ticked,
)
from larrey_server.rounds import advance, begin, next_wake, task_key
from larrey_server.step_record import step_record
from larrey_server.watching import changes, describe
from tests.server.round_play import order, remembered
from tests.server.study_bench import SITES, make_study

STUDY = make_study(rounds=3)
CODES = ("", "", "", "", "", "trainer-crashed", "budget-exhausted", "outside-window")
RUNNING = {"gathering", "open", "closing"}
TABLE = {(one.status, one.event, one.after) for one in transitions()}
SHOW_THE_TIME = {"SiteUp", "SiteDown", "SiteWindow", "SiteStopped", "Replied"}
SHOW_THE_TIME |= {"exclude", "include", "extend"}
site_names = st.sampled_from(SITES)


class Histories(RuleBasedStateMachine):
    """One study, its journal, and what an onlooker knows of its sites."""

    @initialize(
        quorum=st.sampled_from([1, 2, 2, 3, 4]),
        required=st.sampled_from([(), (), ("beta",), ("alpha", "delta")]),
        phases=st.sampled_from([("train",), ("train",), ("keys", "shares", "masked", "unmask")]),
        spares=st.integers(0, 2),
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
        self.plan = Plan(STUDY.digest, SITES, 3, spares, quorum, 30.0, phases, required=required)
        self.state = self.committed = begin(self.plan, "m0")
        self.now, self.number = 1000.0, 1
        self.up: set[str] = set()
        self.window: dict[str, float] = {}
        self.out: set[str] = set()  # may not count in the open attempt
        self.busy: set[tuple[str, TaskKey]] = set()  # requests that a connected site has
        self.seen: list[TaskKey] = []
        self.cells: dict[tuple[int, int], tuple[Cell, ...]] = {}
        self.asked: dict[tuple[int, int], set[str]] = {}
        self.applied: list[int] = []
        self.feed(Launched(self.now, joined))
        if up:
            self.everybody_up()

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = advance(before, event)
        self.check_commit(actions)
        here, there = (before.round, before.attempt), (self.state.round, self.state.attempt)
        if self.state.status == "open" and (before.status != "open" or here != there):
            self.check_opening()
        for action in actions:
            self.check(action)
        if self.state.applied > before.applied:
            assert self.state.applied == before.round
            self.applied.append(self.state.applied)
        self.check_table(before, event)
        self.check_spares(before, event)
        cells = actions[0].cells if actions and isinstance(actions[0], Commit) else ()
        told = changes(before, self.state, cells)
        assert all(fact["event"] for fact in told)
        assert step_record(before, self.state, 0.0).action

    def check_table(self, before: State, event: Event) -> None:
        """What happens is in the table of docs/architecture.md."""
        after = f"{self.state.status} {self.state.outcome}".strip()
        name = event_name(event)
        names = {name, "Ticked"} if name in SHOW_THE_TIME else {name}
        is_told = any((before.status, name, after) in TABLE for name in names)
        assert before.status == self.state.status or is_told, (before.status, names, after)

    def check_spares(self, before: State, event: Event) -> None:
        """A spare is spent when an attempt fell below quorum that could have had it, only then."""
        spent = before.spares_left - self.state.spares_left
        is_repeat = self.state.attempt > before.attempt and self.state.round == before.round
        if event_name(event) == "exclude":  # it may close what the others' refusals had lost
            assert spent in {0, int(is_repeat)}
            return
        failed = is_repeat and not isinstance(event, Ordered)
        could = has_quorum(self.state, members(self.state))
        assert spent == int(bool(failed and could and before.spares_left))

    def check_commit(self, actions: tuple[Action, ...]) -> None:
        """A commit is the first action and the only one; what it holds comes back exactly."""
        commits = [action for action in actions if isinstance(action, Commit)]
        assert commits == list(actions[:1]) or not commits
        if commits:
            self.committed = self.state
            assert remembered(self.state) == self.state
            if commits[0].cells:
                self.record(commits[0].cells)
        if commits and self.state.status != "open":
            self.busy = {(site, key) for site, key in self.busy if self.is_present(key)}
        kinds = [type(action) for action in actions]
        if Cancel in kinds and Send in kinds:  # else a repeated request would be taken back
            assert kinds.index(Send) > len(kinds) - 1 - kinds[::-1].index(Cancel)

    def is_present(self, key: TaskKey) -> bool:
        return self.state.status in {"open", "closing"} and key == task_key(self.state)

    def record(self, cells: tuple[Cell, ...]) -> None:
        """Every joined site has one outcome of an attempt, and an attempt ends once."""
        places = {(cell.round, cell.attempt) for cell in cells}
        assert len(places) == 1
        place = places.pop()
        assert place not in self.cells
        self.cells[place] = cells
        assert len({cell.site for cell in cells}) == len(cells)
        assert self.asked.get(place, set()) <= {cell.site for cell in cells}
        self.busy.clear()

    def check_opening(self) -> None:
        """Quorum and all required sites are there, and nobody who is out is asked."""
        self.out = {*self.state.stopped, *self.state.excluded}
        there = [
            site
            for site in self.state.joined
            if site in self.up - self.out and self.window.get(site, 0.0) <= self.now
        ]
        assert len(there) >= self.plan.quorum
        assert set(self.plan.required) <= set(there)

    def check(self, action: Action) -> None:
        if isinstance(action, Send):
            self.check_send(action.site)
        if isinstance(action, Cancel):
            self.busy.discard((action.site, action.key))
        if isinstance(action, Aggregate):
            self.check_aggregate(action)

    def check_send(self, site: str) -> None:
        key, kept = task_key(self.state), self.committed
        assert (key.round, key.attempt, key.model) == (kept.round, kept.attempt, kept.model)
        assert site in kept.joined
        assert site not in self.out
        assert site in self.up
        was_asked = site in self.asked.get((key.round, key.attempt), set())
        is_begun = was_asked or self.state.phase > 0
        assert is_begun or self.window.get(site, 0.0) <= self.now
        assert (site, key) not in self.busy
        self.busy.add((site, key))
        self.asked.setdefault((key.round, key.attempt), set()).add(site)
        if key not in self.seen:
            self.seen.append(key)

    def check_aggregate(self, action: Aggregate) -> None:
        sites = tuple(site for site, _ in action.updates)
        assert has_quorum(self.state, sites)
        assert list(sites) == sorted(sites, key=SITES.index)
        assert not set(sites) & self.out
        for site, update in action.updates:
            assert update == f"{site} {self.state.round} {self.plan.phases[0]}"

    def is_running(self) -> bool:
        return self.state.status in RUNNING

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
                gone = [one for one in missing(state, self.now) if one.site in self.plan.invited]
                assert gone
                windows = [one.until for one in gone if one.until]
                assert wake == min(windows, default=None)
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
            assert facts["missing"]

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
            self.command("resume", "0")
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

    def certify(self) -> None:
        rows = [ContributionRow(cell) for place in sorted(self.cells) for cell in self.cells[place]]
        paper = make_certificate(STUDY, self.state, rows, declined={}, audit_head="", ended_at=0.0)
        rounds = sorted({number for number, _ in self.cells})
        assert [(c.round, c.site) for c in paper.matrix] == [(n, s) for n in rounds for s in SITES]
        served = all(c.outcome == "contributed" and not c.code for c in paper.matrix)
        is_whole = served and paper.rounds_applied == paper.rounds_planned
        assert (paper.outcome == "COMPLETE") == is_whole
        assert paper.outcome != "PARTIAL" or paper.rounds_applied > 0
        for number in self.applied:
            last = [c for c in paper.matrix if c.round == number]
            good = tuple(c.site for c in last if c.outcome == "contributed" and not c.code)
            assert has_quorum(self.state, good)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
