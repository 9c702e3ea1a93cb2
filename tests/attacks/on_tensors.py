"""Attacks by models that the coordinator sends: wrong, huge, poisoned, hiding something else."""

from __future__ import annotations

import gzip
import json
import pickle
from dataclasses import replace

import numpy as np

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import TensorLayout, pack
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site


def sent(site: Site, make: object) -> str:
    """Ask a running study for a round that begins with the bytes that ``make`` gives."""
    study = site.running()
    layout = model_layout(study)
    model = make(layout)  # type: ignore[operator]
    site.watch()
    return site.request(replace(site.offer(study, model), model_bytes=layout.nbytes))


def filled(layout: TensorLayout, value: float) -> bytes:
    return pack(layout, np.full(layout.size, value, np.float32))


def table_of(layout: TensorLayout) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(layout.header[8:])
    return found


def with_table(layout: TensorLayout, table: object) -> bytes:
    """Return a file of the right size with another header."""
    text = table if isinstance(table, bytes) else json.dumps(table, separators=(",", ":")).encode()
    text = text.ljust(len(layout.header) - 8)
    data = len(text).to_bytes(8, "little") + text
    return data[: layout.nbytes].ljust(layout.nbytes, b"\0")


@attack("model-of-another-size")
def model_of_another_size(site: Site) -> str:
    study = site.running()
    site.watch()
    task = site.peer.first_task(study)
    return site.request(replace(task, model_bytes=task.model_bytes + (1 << 40)))


@attack("model-longer-than-announced")
def model_longer_than_announced(site: Site) -> str:
    return sent(site, lambda layout: filled(layout, 0.1) + b"\0" * (1 << 20))


@attack("model-shorter-than-announced")
def model_shorter_than_announced(site: Site) -> str:
    return sent(site, lambda layout: filled(layout, 0.1)[:-4])


@attack("model-under-another-digest")
def model_under_another_digest(site: Site) -> str:
    study = site.running()
    task = site.peer.first_task(study)
    site.peer.blobs[task.model] = filled(model_layout(study), 0.5)
    site.watch()
    return site.request(task)


@attack("model-with-nan")
def model_with_nan(site: Site) -> str:
    return sent(site, lambda layout: filled(layout, float("nan")))


@attack("model-with-infinity")
def model_with_infinity(site: Site) -> str:
    return sent(site, lambda layout: filled(layout, float("-inf")))


@attack("model-of-other-names")
def model_of_other_names(site: Site) -> str:
    def renamed(layout: TensorLayout) -> bytes:
        first, *rest = layout.entries
        name = "../" + first[0][3:] if len(first[0]) > 3 else "x" * len(first[0])
        return filled(TensorLayout(((name, first[1]), *rest)), 0.1)

    return sent(site, renamed)


@attack("model-of-other-shapes")
def model_of_other_shapes(site: Site) -> str:
    def reshaped(layout: TensorLayout) -> bytes:
        turned = tuple((name, shape[::-1]) for name, shape in layout.entries)
        return filled(TensorLayout(turned), 0.1)

    return sent(site, reshaped)


@attack("model-of-another-dtype")
def model_of_another_dtype(site: Site) -> str:
    def typed(layout: TensorLayout) -> bytes:
        table = table_of(layout)
        for row in table.values():
            row["dtype"] = "I32"
        return with_table(layout, table)

    return sent(site, typed)


@attack("model-with-overlapping-tensors")
def model_with_overlapping_tensors(site: Site) -> str:
    def overlapping(layout: TensorLayout) -> bytes:
        table = table_of(layout)
        for row in table.values():
            row["data_offsets"] = [0, 4]
        return with_table(layout, table)

    return sent(site, overlapping)


@attack("model-with-a-huge-header")
def model_with_a_huge_header(site: Site) -> str:
    return sent(site, lambda layout: (b"\xff" * 7 + b"\x7f").ljust(layout.nbytes, b"\0"))


@attack("model-with-a-huge-shape")
def model_with_a_huge_shape(site: Site) -> str:
    row = {"dtype": "F32", "shape": [2**39, 2**39], "data_offsets": [0, 4]}
    return sent(site, lambda layout: with_table(layout, {"w": row}))


@attack("model-is-a-pickle")
def model_is_a_pickle(site: Site) -> str:
    return sent(site, lambda layout: pickle.dumps(print).ljust(layout.nbytes, b"\0"))


@attack("model-is-a-zip-bomb")
def model_is_a_zip_bomb(site: Site) -> str:
    bomb = gzip.compress(b"\0" * 100_000)
    return sent(site, lambda layout: bomb[: layout.nbytes].ljust(layout.nbytes, b"\0"))


@attack("model-of-another-study")
def model_of_another_study(site: Site) -> str:
    study = site.running()
    other: Study = site.study(model={"name": "mlp", "hidden": [3]})
    model = filled(model_layout(other), 0.1)
    site.watch()
    task = replace(site.peer.first_task(study), model=digest_bytes(model))
    site.peer.blobs[task.model] = model
    return site.request(replace(task, model_bytes=len(model)))
