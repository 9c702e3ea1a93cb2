"""One training by the trainer, and what the site then keeps for the study's algorithm.

What is kept is on disk before the update's own commit, so that an update that was sent has its
state; what no commit followed is never in force (`larrey_client.site_states`).
"""

from __future__ import annotations

import os

from larrey_client.gate_facts import StudyCase
from larrey_client.holding import held
from larrey_client.node import Node
from larrey_client.remembering import kept_layout
from larrey_client.site_states import SiteStates
from larrey_client.task import TRAIN, Task
from larrey_client.trainer_link import TrainTask
from larrey_protocol.envelope import check_update
from larrey_protocol.waypoints import reached

__all__ = ["trained"]


def trained(node: Node, task: Task, approval: StudyCase, model: int, sequence: int) -> int:
    """Return what the trainer makes of a model: a sealed file, which the caller closes.

    Args:
        node: with the study loaded in its trainer.
        task: what was asked.
        approval: of its study.
        model: descriptor of the model's file.
        sequence: of the reservation in the ledger, 0 for a phase that reserves nothing.

    Raises:
        Refusal: ``update-not-finite`` where what would be kept is not.
        LarreyError: as `TrainerLink.train`; ``disk-full``.
    """
    wish = TrainTask(task.study, task.round, task.phase, node.site, sequence)
    timeout_s = node.settings.trainer.timeout_s
    layout = kept_layout(approval.study)
    if task.phase != TRAIN or not layout.entries:
        return node.trainer.train(wish, model, timeout_s=timeout_s)
    states, hold = SiteStates(node.store.folder), held(node.store, approval.dataset, task.study)
    done = {r.round for r in hold.reservations if r.output_digest} if hold else set()
    now = states.in_force(task.study, task.applied, done - {task.round})
    try:
        update, after = node.trainer.train_keeping(wish, model, now, timeout_s=timeout_s)
    finally:
        if now is not None:
            os.close(now)
    try:
        check_update(after, layout, norm_bound=float("inf"))
        states.keep(task.study, task.round, after)
        reached("agent.state-kept")
    except BaseException:
        os.close(update)
        raise
    finally:
        os.close(after)
    return update
