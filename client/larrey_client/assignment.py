"""What the trainer was told to work on, and one round of it. No torch of its own.

The Flower app is called with a message as Flower would deliver it. Ours answers with the update; a
standard app answers with new weights, and the update is taken here; where a study calls its other
handlers, their metrics are. Nothing is sent from here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import (
    DEFAULT_TTL,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    Metadata,
    RecordDict,
)
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from larrey_client.app_metrics import metrics_of
from larrey_client.arrays import record_of, tensors_of
from larrey_client.data.cohort import load, scan
from larrey_client.data.identity import unpack_hashes
from larrey_client.data.reading import Reading
from larrey_client.data.sources import connect
from larrey_client.device import device_lost, is_device_lost
from larrey_client.frames import memory_file, seal
from larrey_client.remembering import KEPT, incoming_layout, kept_layout
from larrey_client.shared_memory import is_shared_memory_full, shared_memory_full
from larrey_privacy.cohort import Cohort
from larrey_protocol.encodings import encode
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout, phase_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import TensorLayout, pack

__all__ = ["OWN_APP", "Assignment", "assign", "scan_patients"]

OWN_APP = "larrey_client.app:app"
_MAX_DOCUMENT_BYTES = 1 << 26
_MESSAGE_TYPES = {
    "train": MessageType.TRAIN,
    "evaluate": MessageType.EVALUATE,
    "query": MessageType.QUERY,
}


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """A study at this site, its data checked."""

    study: Study
    text: str  # the study's JSON, as the app gets it
    layout: TensorLayout  # of what a request brings
    kept: TensorLayout  # of what the site keeps between rounds; mostly without entries
    site: str
    data: Path
    root: Path | None
    app: str
    device: str
    units: int  # who is trained on; private
    content: str  # digest of the rows read; private
    excluded: int  # patients who were dropped; private
    cohort: Cohort | None = field(repr=False)  # None where a standard app reads for itself

    def call(
        self, files: Sequence[int], *, round_number: int, phase: str, sequence: int
    ) -> list[int]:
        """Return sealed memory files with what the app's handler makes of a model file.

        That is an update after ``train``, the declared metrics after ``evaluate`` and ``query``;
        after an update, what the site keeps once it was applied, if the study's objective keeps
        anything.

        Args:
            files: the model; then what the site keeps now, absent before its first round.
            round_number: from 1.
            phase: which handler.
            sequence: of the reservation in the ledger.

        Raises:
            LarreyError: ``model-malformed``, ``state-malformed``, ``app-not-found``,
                ``app-failed``, ``reply-wrong-tensors`` or ``reply-wrong-metrics``; or what our own
                app raises.
        """
        app = _load_app(self.app) if self.cohort is None else _own_app(self.cohort)
        with _mapped(files[0], self.layout) as flat:
            content = RecordDict(
                {
                    "arrays": record_of(self.layout, flat),
                    "config": self._config(round_number, phase, sequence),
                }
            )
            message = _message(content, round_number, _MESSAGE_TYPES[phase])
            layout = phase_layout(self.study, phase)
            context = self._context()
            if self.cohort is not None:
                self._put_kept(context, files[1:])
                arrays = _arrays_of(app(message, context))
                return [_update_file(layout, arrays, None), *self._take_kept(context)]
            reply = _foreign(app, message, context)
            if phase == "train":
                return [_update_file(layout, _arrays_of(reply), flat)]
            return [seal(memory_file("metrics", [pack(layout, metrics_of(reply.content, layout))]))]

    def _put_kept(self, context: Context, files: Sequence[int]) -> None:
        """Give the app what the site keeps, which is in force."""
        for file in files:
            with _mapped(file, self.kept, "state") as flat:
                context.state[KEPT] = record_of(self.kept, flat)

    def _take_kept(self, context: Context) -> list[int]:
        """Return what the site would keep after this round, as a sealed file, if it keeps any."""
        if not self.kept.entries:
            return []
        record = context.state[KEPT]
        if not isinstance(record, ArrayRecord):
            raise LarreyError("trainer-failed", "the app left no state")
        return [_update_file(self.kept, record, None)]

    def personalise(
        self, files: Sequence[int], wish: dict[str, Any]
    ) -> tuple[dict[str, float], int]:
        """Return scores, and a sealed file with a model of the site's own (`personal`).

        The scores are the mean losses of the shared and the own model over the rows of the
        contract's validation part, which neither was trained on; none where there is no such part.

        Args:
            files: the study's final model, the site's secret, the excluded patients.
            wish: ``lambda_``, ``steps`` and ``learning_rate``.

        Raises:
            LarreyError: ``model-malformed``, ``study-not-loaded`` where an app reads for itself.
            DataError: as `larrey_client.data.cohort.load`.
        """
        from larrey_client.app import network_of
        from larrey_client.personal import Personal, mean_loss, personal_model

        if self.cohort is None:
            raise LarreyError("study-not-loaded", "the study's own app holds the rows")
        network = network_of(self.text, self.device)
        how = Personal(wish["lambda_"], wish["steps"], wish["learning_rate"])
        layout = model_layout(self.study)
        with _mapped(files[0], layout) as final:
            own = personal_model(
                self.study, network, self.cohort, site=self.site, final=final, how=how
            )
            scores: dict[str, float] = {}
            if (split := self.study.contract.split) and split.valid:
                held = self._held_out(files[1:])
                for name, model in (("shared", final), ("own", own)):
                    scores[name] = mean_loss(self.study, network, model, held)
                scores["rows"] = len(held.label)
        return scores, seal(memory_file("personal", [pack(layout, own)]))

    def _held_out(self, files: Sequence[int]) -> Cohort:
        secret, excluded = (_content(file) for file in files)
        reading = Reading(secret, unpack_hashes(excluded), self.root, "valid")
        return load(connect(self.data, self.root), self.study.contract, reading).cohort

    def warm(self) -> None:
        """Do ahead, where the app is ours, what does not depend on the model that will arrive."""
        if self.app == OWN_APP:
            from larrey_client.app import prepare_study

            with contextlib.suppress(LarreyError, RuntimeError):  # the first round will say so
                prepare_study(self.text, self.device)

    def _config(self, round_number: int, phase: str, sequence: int) -> ConfigRecord:
        return ConfigRecord(
            {
                "study": self.text,
                "site": self.site,
                "round": round_number,
                "phase": phase,
                "ledger-sequence": sequence,
                "server-round": round_number,  # this and lr: the names of Flower's own strategies
                "lr": self.study.file.training.learning_rate,
            }
        )

    def _context(self) -> Context:
        names = self.study.file.site_names
        node: dict[str, bool | float | int | str] = {
            "data": str(self.data),
            "device": self.device,
            "partition-id": names.index(self.site),
            "num-partitions": len(names),
        }
        return Context(run_id=0, node_id=0, node_config=node, state=RecordDict(), run_config={})


def assign(files: Sequence[int], wish: dict[str, Any], *, device: str) -> Assignment:
    """Return the assignment that a load frame describes.

    Args:
        files: the study's document, the site's secret, the excluded patients.
        wish: the frame.
        device: of the training.

    Raises:
        DataError: the data do not meet the contract (`larrey_client.data`).
        LarreyError: ``load-malformed``, ``site-not-invited``, ``app-not-found`` or
            ``app-reads-all-rows``.
    """
    document, secret, excluded = (_content(file) for file in files)
    study = Study.model_validate(json.loads(document))
    if study.digest != wish["digest"]:
        raise LarreyError("load-malformed", "the study is not the one that was announced")
    if wish["site"] not in study.file.site_names:
        raise LarreyError("site-not-invited", f"the study does not invite '{wish['site']}'")
    app = wish["app"] or OWN_APP
    if app != OWN_APP:
        _load_app(app)
    data, root = Path(wish["data"]), Path(wish["root"]) if wish["root"] else None
    prepared = load(
        connect(data, root), study.contract, Reading(secret, unpack_hashes(excluded), root)
    )
    if app != OWN_APP and (prepared.excluded or study.contract.split):
        raise LarreyError(
            "app-reads-all-rows",
            "a standard app reads the file itself, with patients who must be left out",
            "Give the app a file without them, or refuse the study.",
        )
    return Assignment(
        study=study,
        text=study.model_dump_json(by_alias=True),
        layout=incoming_layout(study),
        kept=kept_layout(study),
        site=wish["site"],
        data=data,
        root=root,
        app=app,
        device=device,
        units=prepared.cohort.patients,
        content=prepared.content,
        excluded=prepared.excluded,
        cohort=prepared.cohort if app == OWN_APP else None,
    )


def scan_patients(secret: int, wish: dict[str, Any]) -> int:
    """Return a sealed memory file with the sorted hashes of a source's patients.

    Raises:
        DataError: as `larrey_client.data.cohort.scan`.
    """
    hashes = scan(connect(Path(wish["data"])), wish["unit"], _content(secret))
    return seal(memory_file("patients", [hashes]))


def _content(file: int) -> bytes:
    """Return a small memory file's bytes.

    Raises:
        LarreyError: ``load-malformed``.
    """
    data = os.pread(file, _MAX_DOCUMENT_BYTES + 1, 0)
    if len(data) > _MAX_DOCUMENT_BYTES:
        raise LarreyError("load-malformed", f"a document has over {_MAX_DOCUMENT_BYTES} bytes")
    return data


def _own_app(cohort: Cohort) -> ClientApp:
    from larrey_client.app import make_app

    return make_app(cohort=cohort)


def _message(content: RecordDict, round_number: int, kind: str) -> Message:
    """Return a message with metadata of its own.

    Flower's shorter constructor takes them from identities that are global to a process.
    """
    metadata = Metadata(
        run_id=0,
        message_id=f"round-{round_number}",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id=str(round_number),
        created_at=time.time(),
        ttl=DEFAULT_TTL,
        message_type=kind,
    )
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload, no-any-return]  # Flower leaves this form out of its overloads


def _load_app(name: str) -> ClientApp:
    module, _, attribute = name.partition(":")
    try:
        app = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise LarreyError("app-not-found", f"there is no '{name}' to import") from error
    if not isinstance(app, ClientApp):
        raise LarreyError("app-not-found", f"'{name}' is not a Flower ClientApp")
    return app


def _foreign(app: ClientApp, message: Message, context: Context) -> Message:
    """Return a standard app's answer; what goes wrong in it, a missing handler too, is one code.

    Raises:
        LarreyError: ``app-failed``, ``device-lost``, ``shared-memory-full``.
    """
    try:
        reply = app(message, context)
    except MemoryError:  # what is left of this process is not worth keeping
        raise
    except Exception as error:  # noqa: BLE001  the app's own words may hold data: only the type is told
        if is_device_lost(error):
            raise device_lost() from None
        if is_shared_memory_full(error):
            raise shared_memory_full() from None
        raise LarreyError("app-failed", f"the app raised {type(error).__name__}") from None
    if reply.has_error():
        raise LarreyError("app-failed", f"the app answered with error {reply.error.code}")
    return reply


def _arrays_of(reply: Message) -> ArrayRecord:
    records = list(reply.content.array_records.values())
    if len(records) != 1:
        raise LarreyError("reply-wrong-tensors", f"the app sent {len(records)} array records")
    return records[0]


@contextlib.contextmanager
def _mapped(model: int, layout: TensorLayout, what: str = "model") -> Iterator[NDArray[np.float32]]:
    """Give the values of a model's file, or a state's, read in place.

    Raises:
        LarreyError: ``model-malformed``, ``state-malformed`` if the file is not in exactly the
            layout.
    """
    head = layout.header
    if os.fstat(model).st_size != layout.nbytes or os.pread(model, len(head), 0) != head:
        raise LarreyError(f"{what}-malformed", f"the {what} file is not as the study says")
    # The map goes when the last array on it goes; closing it earlier would be an error.
    yield np.frombuffer(mmap.mmap(model, 0, prot=mmap.PROT_READ), "<f4", offset=len(head))


def _update_file(
    layout: TensorLayout, arrays: ArrayRecord, start: NDArray[np.float32] | None
) -> int:
    """Return a sealed file of ``arrays``, minus ``start`` if it is given, encoded as laid out."""
    if layout.encoding != "float32":
        return seal(memory_file("update", _encoded(layout, arrays, start)))
    update = memory_file("update", [layout.header])
    try:
        os.ftruncate(update, layout.nbytes)
        area = mmap.mmap(update, 0)
        _fill(np.frombuffer(area, "<f4", offset=len(layout.header)), layout, arrays, start)
        area.close()  # not in a "with": after an error, arrays on it still live in the traceback
        return seal(update)
    except BaseException:
        os.close(update)
        raise


def _encoded(
    layout: TensorLayout, arrays: ArrayRecord, start: NDArray[np.float32] | None
) -> list[bytes | memoryview]:
    """Return the parts of an encoded file: the values are clipped and noised by now."""
    flat = np.empty(layout.size, np.float32)
    _fill(flat, layout, arrays, start)
    scales, codes = encode(layout.encoding, flat)
    return [layout.header, scales.data, codes.data]


def _fill(
    flat: NDArray[np.float32],
    layout: TensorLayout,
    arrays: ArrayRecord,
    start: NDArray[np.float32] | None,
) -> None:
    places = layout.views(flat)
    sources = tensors_of(arrays, layout)
    if start is None:
        for values, place in zip(sources, places, strict=True):
            place[...] = values
        return
    for values, before, place in zip(sources, layout.views(start), places, strict=True):
        np.subtract(values, before, out=place, casting="same_kind")
