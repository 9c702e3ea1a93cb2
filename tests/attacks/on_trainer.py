"""Attacks by a trainer that was taken over: what it may say and hand over, and nothing else."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from larrey_client.frames import memory_file, receive_frame, seal, send_frame
from larrey_client.trainer_link import TrainerLink
from larrey_client.trainer_process import Limits
from larrey_protocol.errors import TransportError
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import TensorLayout, pack
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site

PATIENT = "patient Dupont in /data/heart.csv"
Deed = Callable[[socket.socket, list[int]], None]


# --- updates that should not leave


def answered(site: Site, make: Callable[[TensorLayout], bytes], *, is_sealed: bool = True) -> str:
    """Have the trainer answer a round with these bytes."""
    study = site.running()
    site.watch()
    site.trainer.make = lambda study: make(model_layout(study))
    site.trainer.is_sealed = is_sealed
    try:
        return site.ask(study)
    finally:
        site.trainer.make, site.trainer.is_sealed = None, True


def filled(layout: TensorLayout, value: float) -> bytes:
    return pack(layout, np.full(layout.size, value, np.float32))


@attack("update-with-nan")
def update_with_nan(site: Site) -> str:
    return answered(site, lambda layout: filled(layout, float("nan")))


@attack("update-with-infinity")
def update_with_infinity(site: Site) -> str:
    return answered(site, lambda layout: filled(layout, float("inf")))


@attack("update-over-norm")
def update_over_norm(site: Site) -> str:
    return answered(site, lambda layout: filled(layout, 1e6))


@attack("update-with-rows-behind")
def update_with_rows_behind(site: Site) -> str:
    return answered(site, lambda layout: filled(layout, 0.0) + PATIENT.encode())


@attack("update-with-rows-in-names")
def update_with_rows_in_names(site: Site) -> str:
    def named(layout: TensorLayout) -> bytes:
        (_, shape), *rest = layout.entries
        return filled(TensorLayout((("Dupont", shape), *rest)), 0.0)[: layout.nbytes]

    return answered(site, named)


@attack("update-is-other-tensors")
def update_is_other_tensors(site: Site) -> str:
    return answered(site, lambda layout: filled(TensorLayout((("w", (3,)),)), 0.0))


@attack("update-is-a-pickle")
def update_is_a_pickle(site: Site) -> str:
    return answered(site, lambda layout: pickle.dumps(print).ljust(layout.nbytes, b"\0"))


@attack("update-not-sealed")
def update_not_sealed(site: Site) -> str:
    """A file that could still change after it was checked."""
    return answered(site, lambda layout: filled(layout, 0.0), is_sealed=False)


# --- a process that breaks the protocol


class _Puppet:
    """Stands where the agent keeps its trainer process; the other end does what the attack says."""

    pid, isolation, alive, ended_by = 1, None, True, 0

    def __init__(self, deed: Deed) -> None:
        self.fresh, self.greeted = True, threading.Event()
        self.greeted.set()
        self.socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._deed = deed
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def may_read(self, _: object) -> bool:
        return True

    def kill(self) -> None:
        self.alive = False
        with suppress(OSError):  # closed already
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self.alive:
            self.kill()
        self._thread.join(5)
        self.socket.close()
        self._theirs.close()

    def _serve(self) -> None:
        try:
            while True:
                frame, files = receive_frame(self._theirs)
                if frame["op"] == "load":
                    found = {"units": 100, "content": "sha256:" + "0" * 64, "excluded": 0}
                    send_frame(self._theirs, found)
                else:
                    self._deed(self._theirs, files)
                for file in files:
                    os.close(file)
        except (TransportError, OSError):
            return


class _HostileLink(TrainerLink):
    """The agent's own handle, whose processes are puppets."""

    def __init__(self, deed: Deed) -> None:
        super().__init__(Limits(), warm=False)
        self._deed = deed

    def _running(self) -> Any:  # a puppet where a process belongs
        if self._stopped.is_set():
            return super()._running()
        if self._process is None or not self._process.alive:
            self._process = _Puppet(self._deed)  # type: ignore[assignment]
        return self._process


@contextmanager
def taken_over(site: Site, deed: Deed, timeout_s: float = 60.0) -> Iterator[Study]:
    """Yield a running study while the node's trainer is in the attacker's hand."""
    study, settings = site.running(), site.settings
    link = _HostileLink(deed)
    limited = settings.trainer.model_copy(update={"timeout_s": timeout_s})
    site.start(settings.model_copy(update={"trainer": limited}), link)
    site.watch()
    try:
        yield study
    finally:
        link.stop()
        site.start(settings)


def misbehaves(site: Site, deed: Deed, timeout_s: float = 60.0) -> str:
    with taken_over(site, deed, timeout_s) as study:
        return site.ask(study)


def says(code: str) -> Deed:
    """Report a failure with a patient in its text."""
    return lambda peer, _: send_frame(
        peer, {"code": code, "kind": "", "message": PATIENT, "next_step": PATIENT}
    )


for _code in (
    "app-failed", "app-not-found", "app-reads-all-rows", "device-lost", "model-buffers",
    "model-couples-patients", "model-malformed", "reply-wrong-metrics", "reply-wrong-tensors",
    "shared-memory-full",
):  # fmt: skip

    def _register(code: str) -> None:
        @attack(f"text-behind-{code}")
        def act(site: Site) -> str:
            return misbehaves(site, says(code))

    _register(_code)


@attack("patient-in-a-code")
def patient_in_a_code(site: Site) -> str:
    return misbehaves(site, says("dupont-is-positive"))


@attack("text-as-a-data-error")
def text_as_a_data_error(site: Site) -> str:
    deed = {"code": "dupont-is-positive", "kind": "data", "message": PATIENT}
    return misbehaves(site, lambda peer, _: send_frame(peer, deed))


@attack("frame-huge")
def frame_huge(site: Site) -> str:
    return misbehaves(site, lambda peer, _: peer.sendall(b"\x7f\xff\xff\xff"))


@attack("frame-is-a-pickle")
def frame_is_a_pickle(site: Site) -> str:
    body = pickle.dumps(print)
    return misbehaves(site, lambda peer, _: peer.sendall(len(body).to_bytes(4, "big") + body))


@attack("frame-deep")
def frame_deep(site: Site) -> str:
    body = b"[" * 500_000
    return misbehaves(site, lambda peer, _: peer.sendall(len(body).to_bytes(4, "big") + body))


@attack("too-many-files")
def too_many_files(site: Site) -> str:
    def deed(peer: socket.socket, _: list[int]) -> None:
        files = [seal(memory_file("update", [b"x"])) for _ in range(3)]
        send_frame(peer, {}, files)
        for file in files:
            os.close(file)

    return misbehaves(site, deed)


@attack("model-handed-back-open")
def model_handed_back_open(site: Site) -> str:
    """A pipe instead of a memory file: what is read twice could differ."""

    def deed(peer: socket.socket, _: list[int]) -> None:
        reader, writer = os.pipe()
        send_frame(peer, {}, [reader])
        os.close(reader)
        os.close(writer)

    return misbehaves(site, deed)


@attack("trainer-dies")
def trainer_dies(site: Site) -> str:
    return misbehaves(site, lambda peer, _: peer.shutdown(socket.SHUT_RDWR))


@attack("trainer-hangs")
def trainer_hangs(site: Site) -> str:
    return misbehaves(site, lambda peer, _: None, timeout_s=0.3)


@attack("trainer-ended-for-good")
def trainer_ended_for_good(site: Site) -> str:
    with taken_over(site, lambda peer, _: None) as study:
        site.node.node.trainer.stop()
        return site.ask(study)
