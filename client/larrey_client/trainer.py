"""The trainer process: ``python -m larrey_client.trainer FD``, started by `TrainerLink` only.

It holds data, model and device, has neither keys nor network, and answers one frame at a time.
Its standard library part confines the process first, by the plan that is the agent's first frame,
and tells which barriers stand; only then numerical libraries are imported.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from larrey_client.confinement.process import Plan, confine
from larrey_client.device import device_lost, is_device_lost, require_device
from larrey_client.frames import PeerClosed, receive_frame, send_frame
from larrey_client.shared_memory import is_shared_memory_full, shared_memory_full
from larrey_protocol.errors import DataError, LarreyError, TransportError
from larrey_protocol.streams import reuse_buffers
from larrey_protocol.waypoints import reached

if TYPE_CHECKING:
    from larrey_client.assignment import Assignment

__all__ = ["main"]

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Serve the agent until it hangs up; return 0 then, 1 after a broken frame."""
    parser = argparse.ArgumentParser(prog="larrey-trainer")
    parser.add_argument("descriptor", type=int)
    parser.add_argument("--warm", action="store_true")
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    with socket.socket(fileno=options.descriptor) as agent:
        try:
            plan = Plan.parse(receive_frame(agent)[0])
            send_frame(agent, {"isolation": dict(confine(plan).reasons)})
            reached("trainer.confined")
        except TransportError:  # the agent is gone already
            return 1
        reuse_buffers()  # of a step's gradients: clearing new pages doubles its time
        return _Server(device=plan.device, is_warm=options.warm).serve(agent)


class _Server:
    """Answers frames; holds at most one assignment."""

    def __init__(self, *, device: str, is_warm: bool) -> None:
        self._device = device
        self._assignment: Assignment | None = None
        import larrey_client.assignment  # noqa: F401  before any thread imports what it shares

        self._warming: threading.Thread | None = None
        if is_warm:
            self._warm_up(_import_app)

    def serve(self, agent: socket.socket) -> int:
        while True:
            try:
                frame, files = receive_frame(agent)
                answer, update = self._answer(frame, files)
                send_frame(agent, answer, update)
            except PeerClosed:
                return 0
            except TransportError as error:
                logger.error("trainer ends code=%s", error.code)  # noqa: TRY400  no trace in logs
                return 1
            for fd in (*files, *update):
                os.close(fd)

    def _answer(self, frame: dict[str, Any], files: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Return the answer and its files; the guard of this process's main loop."""
        try:
            if frame.get("op") == "load":
                return self._load(frame, files), []
            if frame.get("op") == "personalise":
                return self._personalise(frame, files)
            is_scan = frame.get("op") == "scan"
            return {}, [self._scan(frame, files)] if is_scan else self._train(frame, files)
        except LarreyError as error:
            logger.info("trainer refuses op=%s code=%s", frame.get("op"), error.code)
            return _report(error), []
        except Exception as error:  # noqa: BLE001  the text may hold data: only its type is told
            if known := _of_the_machine(error):
                logger.error("trainer failed op=%s code=%s", frame.get("op"), known.code)  # noqa: TRY400
                return _report(known), []
            logger.error("trainer failed op=%s error=%s", frame.get("op"), type(error).__name__)  # noqa: TRY400
            return {"code": "trainer-failed", "message": "the training failed"}, []

    def _load(self, frame: dict[str, Any], files: list[int]) -> dict[str, Any]:
        from larrey_client.assignment import assign

        self._assignment = None
        if self._device != "cpu" and self._warming is not None:
            self._warming.join()
        require_device(self._device)
        made = self._assignment = assign(files, frame, device=self._device)
        reached("trainer.loaded")
        self._warm_up(made.warm)
        return {"units": made.units, "content": made.content, "excluded": made.excluded}

    def _scan(self, frame: dict[str, Any], files: list[int]) -> int:
        from larrey_client.assignment import scan_patients

        return scan_patients(files[0], frame)

    def _warm_up(self, work: Callable[[], None]) -> None:
        """Run ``work`` in the background, after what was begun before it."""
        before = self._warming

        def run() -> None:
            if before is not None:
                before.join()
            work()

        self._warming = threading.Thread(target=run, name="warm-up", daemon=True)
        self._warming.start()

    def _personalise(
        self, frame: dict[str, Any], files: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        if self._assignment is None or frame.get("site") != self._assignment.site:
            raise LarreyError("study-not-loaded", "the trainer holds no such study")
        if self._warming is not None:
            self._warming.join()
        scores, own = self._assignment.personalise(files, frame)
        return {"scores": scores}, [own]

    def _train(self, frame: dict[str, Any], files: list[int]) -> list[int]:
        if self._assignment is None or frame.get("site") != self._assignment.site:
            raise LarreyError("study-not-loaded", "the trainer holds no such study")
        if self._warming is not None:
            self._warming.join()
        reached("trainer.training-begun")
        made = self._assignment.call(
            files,
            round_number=frame["round"],
            phase=frame["phase"],
            sequence=frame["sequence"],
        )
        reached("trainer.update-made")
        return made


def _import_app() -> None:
    import larrey_client.app  # noqa: F401  torch, opacus: seconds that the first round then saves

    reached("trainer.warmed")


def _of_the_machine(error: Exception) -> LarreyError | None:
    """Return what to report where the machine is to blame, not the data or the study."""
    if is_device_lost(error):
        return device_lost()
    return shared_memory_full() if is_shared_memory_full(error) else None


def _report(error: LarreyError) -> dict[str, Any]:
    return {
        "code": error.code,
        "kind": "data" if isinstance(error, DataError) else "",
        "message": error.message,
        "next_step": error.next_step,
    }


if __name__ == "__main__":
    sys.exit(main())
