"""An in-process Flower Grid of one run: writes into the hosted state and is woken by replies.

Messages are built from explicit metadata, never from Flower's process-global task identity, so
that many studies run at once. Replies are taken by whoever completes them (`on_reply`) or waited
for with the standard `send_and_receive`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from flwr.app import DEFAULT_TTL, Message, RecordDict
from flwr.serverapp import Grid

from larrey_server.flower.engine import Engine
from larrey_server.flower.names import (
    SUPERLINK_NODE_ID,
    Metadata,
    NodeInfo,
    Run,
    get_all_nested_objects,
    get_object_tree,
    inflate_object_from_contents,
    iterate_object_tree,
    make_message,
    no_object_id_recompute,
    remove_content_from_message,
)

__all__ = ["StudyGrid"]

_SCAN_S = 5.0  # how often to look for replies that Flower itself makes: offline, expired


class StudyGrid(Grid):
    """Flower's Grid over the coordinator's own state."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._engine = engine
        self._run = run
        self._answered: set[str] = set()
        self._changed = threading.Condition()
        engine.on_reply(run, self._reply_came)

    def set_run(self, run: Run) -> None:
        """Use another run from now on."""
        self._run = run

    @property
    def run(self) -> Run:
        """Return the run this grid sends in."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message of this run to one node."""
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=time.time(),
            ttl=ttl or DEFAULT_TTL,
            message_type=message_type,
            src_task_id=self._run.primary_task_id,
        )
        return make_message(metadata, content)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are online."""
        return list(self._engine.state.get_nodes(self._run.run_id))

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what Flower knows of the online nodes."""
        return self._engine.state.get_node_info(node_ids=list(self.get_node_ids()))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages and wake their nodes; an empty id marks one that was not accepted."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return complete replies to these messages and free both sides."""
        wanted = set(message_ids)
        found = self._engine.state.get_message_res(message_ids=wanted, run_id=self._run.run_id)
        replies = [self._inflate(message) for message in found]
        self._engine.state.delete_messages({m.metadata.reply_to_message_id for m in found})
        with self._changed:
            self._answered -= wanted
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return the replies that came within ``timeout`` seconds."""
        waiting = {identifier for identifier in self.push_messages(messages) if identifier}
        end = time.monotonic() + (DEFAULT_TTL if timeout is None else timeout)
        scan = time.monotonic() + _SCAN_S
        replies: list[Message] = []
        while waiting and (now := time.monotonic()) < end:
            ready = self._wait_for(waiting, min(end, scan) - now)
            if not ready and time.monotonic() >= scan:
                ready, scan = waiting, time.monotonic() + _SCAN_S
            got = self.pull_messages(ready) if ready else []
            waiting -= {m.metadata.reply_to_message_id for m in got}
            replies += got
        return replies

    def withdraw(self, message_id: str) -> None:
        """Forget a message whether or not it was delivered."""
        self._engine.store.delete(message_id)
        self._engine.state.delete_messages({message_id})

    def _push(self, message: Message) -> str:
        state, run_id = self._engine.state, self._run.run_id
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            session = state.start_session(run_id)
            stored, missing = state.store_message_and_object_tree(
                remove_content_from_message(message), get_object_tree(message), session
            )
            if not stored:
                return ""
            objects = get_all_nested_objects(message)
            for identifier in set(missing):
                state.store_object(run_id, session, identifier, objects[identifier].deflate())
        self._engine.bell(self._engine.site_of(message.metadata.dst_node_id)).ring()
        return message.metadata.message_id

    def _inflate(self, message: Message) -> Message:
        if message.has_error():
            return message
        identifier, store = message.metadata.message_id, self._engine.store
        tree = store.get_object_tree(identifier)
        contents = {
            part.object_id: _held(store.get(part.object_id)) for part in iterate_object_tree(tree)
        }
        store.delete(identifier)
        whole = inflate_object_from_contents(identifier, contents)
        if not isinstance(whole, Message):
            raise TypeError(f"expected a message, found {type(whole).__name__}")
        whole.metadata.__dict__["_message_id"] = identifier
        return whole

    def _reply_came(self, message_id: str) -> None:
        with self._changed:
            self._answered.add(message_id)
            self._changed.notify_all()

    def _wait_for(self, waiting: set[str], timeout_s: float) -> set[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._answered & waiting, timeout=max(0.0, timeout_s))
            return self._answered & waiting


def _held(content: bytes | None) -> bytes:
    if not content:
        raise KeyError("an object of the reply is missing")
    return content
