"""What must hold of every step of a study's history: an onlooker who checks each, for tests."""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine

from larrey_lab.round_table import event_name, transitions
from larrey_server.certificate import make_certificate
from larrey_server.journal import ContributionRow
from larrey_server.round_cells import has_quorum, is_too_slow, members
from larrey_server.round_values import (
    Action,
    Aggregate,
    Cancel,
    Cell,
    Commit,
    Event,
    Ordered,
    Plan,
    Replied,
    Send,
    State,
    TaskKey,
)
from larrey_server.rounds import advance, begin, task_key
from larrey_server.step_record import step_record
from larrey_server.watching import changes
from tests.server.round_play import remembered
from tests.server.study_bench import SITES, make_study

STUDY = make_study(rounds=3)
TABLE = {(one.status, one.event, one.after) for one in transitions()}
SHOW_THE_TIME = {"SiteUp", "SiteDown", "SiteWindow", "SiteStopped", "Replied"}
SHOW_THE_TIME |= {"exclude", "include", "extend"}


class History(RuleBasedStateMachine):
    """One study, its journal, and what an onlooker knows of its sites."""

    def begin(self, plan: Plan) -> None:
        self.plan = plan
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
        self.rest_until, self.failures = 0.0, 0  # of the pause after refusals

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
        self.check_pause(before, event)
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

    def check_pause(self, before: State, event: Event) -> None:
        """Who spends a spare on refusals waits, longer each time; persons and restarts do not."""
        spent = self.state.spares_left < before.spares_left
        if isinstance(event, Replied) and spent and before.pending == (event.reply.site,):
            self.failures += 1
            assert self.state.status != "open"
            self.rest_until = self.now + min(2.0 * 4 ** (self.failures - 1), 3.0)
        elif before.status != self.state.status == "open":
            by_person = event_name(event) in {"retry", "resume"}
            assert by_person or self.now >= self.rest_until
        if event_name(event) in {"retry", "resume", "Resumed"}:
            self.rest_until = 0.0
        if self.state.round > before.round or event_name(event) in {"retry", "resume"}:
            self.failures = 0

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
        slow = {site for site in members(self.state) if is_too_slow(self.state, site)}
        others = tuple(site for site in there if site not in slow)
        if has_quorum(self.state, others):  # it would train for nothing
            assert not slow & set(self.state.pending)
        else:
            assert set(there) <= set(self.state.pending)

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
