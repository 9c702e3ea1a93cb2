"""Which answer belongs to which request of a study's open attempt. Pure."""

from __future__ import annotations

from dataclasses import replace

from larrey_server.round_values import State, TaskKey

__all__ = ["expects", "offered", "task_key"]


def offered(state: State) -> str:
    """Return the digest of the file that sites fetch for the open round."""
    return state.request or state.model


def task_key(state: State) -> TaskKey:
    """Return the key of the requests of the present phase."""
    plan = state.plan
    return TaskKey(plan.study, state.round, plan.phases[state.phase], state.attempt, offered(state))


def expects(state: State, site: str, key: TaskKey, code: str) -> bool:
    """Return whether this answer is still owed; a refusal is to its own attempt only."""
    if site not in state.pending:  # nobody is, but while an attempt is open
        return False
    present = task_key(state)
    if code:
        return key == present
    return key.attempt <= present.attempt and replace(key, attempt=present.attempt) == present
