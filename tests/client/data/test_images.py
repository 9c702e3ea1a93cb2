"""Images are read when asked for, are those that the table lists, and lie below its folder."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from larrey_client.app import local_update
from larrey_client.data.cohort import load
from larrey_client.data.images import ImageRows, read_image
from larrey_client.data.reading import Reading
from larrey_client.data.sources import connect
from larrey_client.frames import memory_file, seal
from larrey_client.networks import build
from larrey_client.trainer_link import TrainerLink, TrainTask
from larrey_client.trainer_process import Limits
from larrey_privacy.cohort import Cohort
from larrey_protocol.contract import Contract, Image
from larrey_protocol.errors import DataError
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.client.training.conftest import CONTRACT

SHAPE = Image(height=4, width=5)
COLOUR = Image(height=4, width=5, channels=3)
RANDOM = np.random.default_rng(5)


def _contract(**changes: Any) -> Contract:
    kept = {key: value for key, value in CONTRACT.items() if key != "columns"}
    return Contract.model_validate(kept | {"image": {"height": 4, "width": 5}} | changes)


def _png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _put(root: Path, name: str, data: bytes) -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def pixels() -> np.ndarray:
    return RANDOM.integers(0, 256, (12, 4, 5)).astype(np.uint8)


@pytest.fixture
def manifest(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Return a table of 12 patients, an image each: half PNG, half NPY."""
    root = tmp_path / "images"
    names = [f"x/{i}.{'npy' if i % 2 else 'png'}" for i in range(12)]
    encoded = [_npy(p) if i % 2 else _png(p) for i, p in enumerate(pixels)]
    digests = [_put(root, name, data) for name, data in zip(names, encoded, strict=True)]
    columns = {
        "pid": [f"p{i}" for i in range(12)],
        "sick": [str(i % 3 % 2) for i in range(12)],
        "path": names,
        "sha256": digests,
    }
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    return tmp_path / "list.parquet"


def _rewrite(manifest: Path, column: str, row: int, cell: str) -> None:
    columns = pq.read_table(manifest).to_pydict()
    columns[column][row] = cell
    pq.write_table(pa.table(columns), manifest)


def _load(manifest: Path, contract: Contract) -> Cohort:
    source = connect(manifest, manifest.parent / "images")
    return load(source, contract, Reading(b"key")).cohort


def test_images_read_by_row_equal_those_read_ahead(manifest, pixels):
    cohort = _load(manifest, _contract())
    assert isinstance(cohort.features, ImageRows)
    assert cohort.features.shape == (12, 20)
    eager = (pixels.reshape(12, 20) / np.float32(255)).astype(np.float32)
    rows = np.array([7, 0, 0, 11])
    np.testing.assert_array_equal(cohort.features[rows], eager[rows])
    assert cohort.features[rows[:0]].shape == (0, 20)


def _image_study(make_study: Callable[..., Study], privacy: Any = None, **training: Any) -> Study:
    study = make_study(privacy, **training)
    return Study(file=study.file, contract=_contract())


def test_training_on_images_read_by_row_equals_training_in_memory(manifest, pixels, make_study):
    study = _image_study(make_study, local_steps=3)
    lazy = _load(manifest, study.contract)
    eager = Cohort(lazy.features[np.arange(12)], lazy.label, lazy.patient)
    start = np.linspace(-0.2, 0.2, model_layout(study).size).astype(np.float32)
    updates = [
        local_update(study, build(study), cohort, site="alpha", start=start)
        for cohort in (lazy, eager)
    ]
    np.testing.assert_allclose(updates[0], updates[1], atol=1e-6)
    assert np.abs(updates[0]).max() > 0


@pytest.mark.system
def test_a_trainer_trains_with_privacy_on_images_beside_a_table(manifest, make_study, private):
    study = _image_study(make_study, private)
    root = manifest.parent / "images"
    link = TrainerLink.start(Limits(readable=(manifest, root)), warm=False)
    try:
        found = link.load(study, site="alpha", data=manifest, reading=Reading(b"key", root=root))
        assert found.units == 12
        layout = model_layout(study)
        model = seal(memory_file("model", [pack(layout, np.zeros(layout.size, np.float32))]))
        update = link.train(TrainTask(study.digest, 1, "train", "alpha"), model, timeout_s=60)
        values = np.frombuffer(os.pread(update, layout.nbytes, 0), "<f4", offset=len(layout.header))
        assert np.isfinite(values).all()
        assert np.abs(values).max() > 0
        os.close(model)
        os.close(update)
    finally:
        link.stop()


@pytest.mark.parametrize(
    ("column", "cell", "code"),
    [
        ("path", "../secret.png", "image-path"),
        ("path", "x/../../secret.png", "image-path"),
        ("path", "{outside}", "image-path"),  # absolute
        ("path", "x\\..\\..\\secret.png", "image-path"),
        ("path", "link.png", "image-path"),  # a symbolic link out
        ("path", "folder/secret.png", "image-path"),  # below a link out
        ("path", "ring.png", "image-path"),
        ("path", "none.png", "image-missing"),
        ("path", "x", "image-missing"),  # a folder
        ("sha256", "abc", "image-digest"),
    ],
)
def test_a_list_that_points_elsewhere_is_refused_before_anything_is_read(
    manifest, column, cell, code
):
    outside = manifest.parent / "secret.png"
    outside.write_bytes(b"secret")
    root = manifest.parent / "images"
    (root / "link.png").symlink_to(outside)
    (root / "folder").symlink_to(manifest.parent)
    (root / "ring.png").symlink_to(root / "ring.png")
    _rewrite(manifest, column, 3, cell.replace("{outside}", str(outside)))
    with pytest.raises(DataError) as caught:
        _load(manifest, _contract())
    assert caught.value.code == code
    assert cell not in caught.value.message


def test_a_link_that_stays_inside_is_followed(manifest, pixels):
    (manifest.parent / "images" / "inside.png").symlink_to("x/2.png")
    _rewrite(manifest, "path", 2, "inside.png")
    cohort = _load(manifest, _contract())
    np.testing.assert_allclose(cohort.features[np.array([2])][0], pixels[2].reshape(-1) / 255)


def test_a_file_changed_since_it_was_listed_is_refused_whenever_it_is_read(manifest):
    cohort = _load(manifest, _contract())
    cohort.features[np.array([0])]
    _put(manifest.parent / "images", "x/0.png", _png(np.zeros((4, 5), np.uint8)))
    with pytest.raises(DataError, match="image-digest"):
        cohort.features[np.array([0])]
    cohort.features[np.array([1])]  # the others are as listed


def test_the_same_image_twice_of_one_patient_is_a_duplicate_wherever_it_lies(manifest):
    columns = pq.read_table(manifest).to_pydict()
    root = manifest.parent / "images"
    _put(root, "copy.png", (root / "x/0.png").read_bytes())
    for name, cell in (("pid", "p0"), ("sick", columns["sick"][0]), ("path", "copy.png")):
        columns[name].append(cell)
    columns["sha256"].append(columns["sha256"][0])
    pq.write_table(pa.table(columns), manifest)
    with pytest.raises(DataError, match="duplicate-rows"):
        _load(manifest, _contract(unit={"column": "pid", "max_rows": 2, "min_count": 4}))


def _bomb() -> bytes:
    """Return a PNG of a few bytes whose header promises 60,000 by 60,000 values."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _npy_bomb() -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    return stream.getvalue()


def _of(shape: tuple[int, ...], kind: str = "u1") -> np.ndarray:
    return np.ones(shape, kind)


@pytest.mark.parametrize(
    ("name", "data", "codes"),
    [
        ("a.png", _bomb(), {"image-shape", "image-unreadable"}),
        ("a.npy", _npy_bomb(), {"image-shape"}),
        ("a.npy", _pickled(), {"image-shape", "image-unreadable"}),
        ("a.png", _png(_of((5, 4))), {"image-shape"}),
        ("a.png", _png(_of((4, 5, 3))), {"image-shape"}),  # colour, where grey is expected
        ("a.npy", _npy(_of((5, 4))), {"image-shape"}),
        ("a.npy", _npy(_of((4, 5), "c16")), {"image-unreadable"}),
        ("a.npy", _npy(_of((4, 5), "f4") * 2), {"image-unreadable"}),
        ("a.npy", _npy(_of((4, 5), "f4") * np.float32("nan")), {"image-unreadable"}),
        ("a.npy", _npy(_of((4, 5)))[:-1], {"image-unreadable"}),
        ("a.png", _png(_of((4, 5)))[:50], {"image-unreadable"}),
        ("a.png", b"GIF89a", {"image-unreadable"}),
        ("a.npy", b"\0" * 10, {"image-unreadable"}),
        ("a.png", b"\0" * (4 << 20), {"image-shape"}),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_or_kind_is_refused_before_it_is_decoded(
    tmp_path, name, data, codes
):
    digest = _put(tmp_path, name, data)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path, name, digest, SHAPE)
    assert caught.value.code in codes


@pytest.mark.parametrize(
    ("image", "values", "scale"),
    [
        (SHAPE, RANDOM.integers(0, 256, (4, 5)).astype(np.uint8), 255),
        (SHAPE, RANDOM.integers(0, 65536, (4, 5)).astype(np.uint16), 65535),
        (COLOUR, RANDOM.integers(0, 256, (4, 5, 3)).astype(np.uint8), 255),
    ],
)
def test_png_and_npy_of_the_same_values_are_the_same_features(tmp_path, image, values, scale):
    expected = (values / scale).reshape(4, 5, -1)
    for name, data in (("a.png", _png(values)), ("a.npy", _npy(np.asfortranarray(values)))):
        seen = read_image(tmp_path, name, _put(tmp_path, name, data), image)
        np.testing.assert_allclose(seen, expected, atol=1e-7)
        assert seen.dtype == np.float32


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="image-missing"):
        read_image(tmp_path, "pipe.png", "0" * 64, SHAPE)
