"""The local door of a running node: a Unix socket in the state folder, mode 0600, JSON lines.

One request a connection: ``{"command": ..., ...}``; one answer: ``{"value": ...}`` or
``{"error": {code, message, next_step}}``. Who asks is what the kernel says about the other process,
not what it claims. No network, no secret, no file content passes here.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from larrey_protocol.errors import LarreyError, TransportError

__all__ = ["SOCKET", "Door", "account", "ask"]

logger = logging.getLogger(__name__)

SOCKET = "agent.sock"
_MAX_LINE = 1 << 16
_MAX_ANSWER = 1 << 24
_PATIENCE_S = 5.0
_ASK_TIMEOUT_S = 3700.0  # an approval may read a large table first

Handler = Callable[[Mapping[str, Any], str], Any]  # Any: JSON values are recursive


class Door:
    """Serves commands until it is closed."""

    def __init__(
        self,
        state: Path,
        handlers: Mapping[str, Handler],
        record: Callable[[str, str, str, str], None] = lambda *_: None,
    ) -> None:
        """Open the door.

        Args:
            state: folder of the socket.
            handlers: by command.
            record: is told who used which command with which outcome, and the signed document that
                was taken, empty where there was none.
        """
        self._record = record
        self._path = state / SOCKET
        self._handlers = handlers
        self._path.unlink(missing_ok=True)  # of a node that was killed; the state lock is ours
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(state) as short:
            self._listener.bind(short)
        self._path.chmod(0o600)
        self._listener.listen(8)
        self._closed = threading.Event()
        threading.Thread(target=self._serve, name="door", daemon=True).start()

    def close(self) -> None:
        """Stop serving and remove the socket."""
        self._closed.set()
        self._path.unlink(missing_ok=True)
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        finally:
            self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(peer,), name="door", daemon=True).start()

    def _attend(self, peer: socket.socket) -> None:
        """Answer one connection; whatever it does, the door stays open."""
        with peer:
            try:
                peer.settimeout(_PATIENCE_S)
                answer = self._answer(_read_line(peer, _MAX_LINE), _actor(peer))
                peer.sendall(json.dumps(answer).encode() + b"\n")
            except (OSError, TransportError) as error:
                logger.debug("a local caller left: %s", error)

    def _answer(self, line: bytes, actor: str) -> dict[str, Any]:  # Any: JSON
        try:
            request = json.loads(line)
            command = str(request.pop("command"))
            handler = self._handlers[command]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _error("request-malformed", "the local request was not understood", "")
        answer = self._handled(handler, request, actor)
        code = answer.get("error", {"code": "ok"})["code"]
        signed = str(request.get("signed", "")) if code == "ok" else ""
        self._record(actor, command, code, signed)
        return answer

    def _handled(
        self, handler: Handler, request: Mapping[str, Any], actor: str
    ) -> dict[str, Any]:  # Any: JSON
        try:
            return {"value": handler(request, actor)}
        except LarreyError as error:
            return _error(error.code, error.message, error.next_step) | {
                "exit_status": error.exit_status
            }
        except Exception:
            logger.exception("a local request failed in an unforeseen way")
            return _error("node-failed", "the node failed at this request", "See its log.")


def ask(state: Path, command: str, **arguments: Any) -> Any:  # Any: JSON values are recursive
    """Return a running node's answer.

    Raises:
        TransportError: ``agent-not-running``.
        LarreyError: what the node says, with its code.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        try:
            with _short(state) as short:
                peer.connect(short)
            peer.settimeout(_ASK_TIMEOUT_S)
            peer.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            answer = json.loads(_read_line(peer, _MAX_ANSWER))
        except (OSError, ValueError) as error:
            raise TransportError(
                "agent-not-running",
                f"no node answers in {state}",
                "Start it: larrey-site run, with the same --config.",
            ) from error
    if "error" in answer:
        said = answer["error"]
        failure = LarreyError(said["code"], said["message"], said["next_step"])
        failure.exit_status = int(answer.get("exit_status", 1))
        raise failure
    return answer["value"]


@contextmanager
def _short(state: Path) -> Iterator[str]:
    """Yield a path of the socket that fits the kernel's limit of 107 bytes, however deep it is."""
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _read_line(peer: socket.socket, limit: int) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = peer.recv(1 << 16)
        if not part or len(data) + len(part) > limit:
            raise TransportError("request-malformed", "expected one line of JSON")
        data += part
    return bytes(data)


def _actor(peer: socket.socket) -> str:
    """Return the account of the process at the other end, as the kernel knows it."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return account(uid)


def account(uid: int | None = None) -> str:
    """Return an account's name, of this process by default; never what the environment claims."""
    uid = os.getuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _error(code: str, message: str, next_step: str) -> dict[str, Any]:  # Any: JSON
    return {"error": {"code": code, "message": message, "next_step": next_step}}
