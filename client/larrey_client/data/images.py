"""Pictures beside a table that lists them, read when a batch needs them. Sensitive.

None is read outside the dataset's folder. A picture is refused unless its file has the listed
SHA-256 and its header says exactly the shape that the contract names, before anything is decoded;
so no file can make the trainer hold more than one picture's worth of values. NPY never unpickles.
PNG needs Pillow (extra ``images``).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from larrey_client.data.violation import Violation, band
from larrey_protocol.contract import Image
from larrey_protocol.errors import DataError

__all__ = ["ImageRows", "check_listing", "read_image"]

_DIGEST = re.compile(r"^(sha256:)?[0-9a-f]{64}$")
_SLACK = 1 << 20  # bytes that a file may have beside twice its pixels: colour profile, texts
_SCALES = {"|u1": 255.0, "<u2": 65535.0, "<f4": 1.0, "<f8": 1.0}
_NEXT = "Correct the table of images or the file, then check the dataset again."


@dataclass(frozen=True, slots=True, eq=False)
class ImageRows:
    """The features of images, "(rows, values)" float32, read whenever rows are asked for.

    Attributes:
        root: the folder in which all files lie.
        image: their one shape.
        paths: below ``root``, one a row.
        digests: SHA-256 of the files, 64 hex digits, one a row.
    """

    root: Path
    image: Image
    paths: Sequence[str]
    digests: Sequence[str]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.paths)

    @property
    def ndim(self) -> int:
        """Return 2: rows and values."""
        return 2

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, values)."""
        return len(self.paths), self.image.size

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Return float32."""
        return np.dtype(np.float32)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the features of the rows, in their order.

        Raises:
            DataError: as `read_image`.
        """
        features = np.empty((len(rows), self.image.size), np.float32)
        for place, row in zip(features, rows, strict=True):
            pixels = read_image(self.root, self.paths[row], self.digests[row], self.image)
            place[...] = pixels.reshape(-1)
        return features


def check_listing(
    root: Path, paths: Sequence[str | None], digests: Sequence[str | None]
) -> Iterator[Violation]:
    """Give what is wrong with a list of images without opening one: paths, files, digests."""
    faults: dict[str, int] = {}
    for path, digest in zip(paths, digests, strict=True):
        fault = _fault(root, path, digest)
        if fault:
            faults[fault] = faults.get(fault, 0) + 1
    told = {
        "image-path": "rows name a file outside the dataset's folder",
        "image-missing": "rows name a file that is not there",
        "image-digest": "rows have no SHA-256 of 64 hex digits",
    }
    for rule, count in faults.items():
        yield Violation(rule, "", f"{band(count)} {told[rule]}")


def read_image(root: Path, path: str, digest: str, image: Image) -> NDArray[np.float32]:
    """Return one image's values in [0, 1], "(height, width, channels)".

    Raises:
        DataError: ``image-path``, ``image-missing``, ``image-digest``, ``image-shape``,
            ``image-unreadable`` or ``pillow-missing``; the message quotes neither path nor cell.
    """
    place = _place(root, path)
    if place is None:
        raise DataError("image-path", "a row names a file outside the dataset's folder", _NEXT)
    data = _bytes(place, most=2 * 4 * image.size + _SLACK)
    if hashlib.sha256(data).hexdigest() != digest.removeprefix("sha256:"):
        raise DataError("image-digest", "an image is not the one that the table lists", _NEXT)
    decode = _npy if place.suffix.lower() == ".npy" else _png
    pixels = decode(data, image)
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise DataError("image-unreadable", "an image has values outside [0, 1]", _NEXT)
    return pixels


def _fault(root: Path, path: str | None, digest: str | None) -> str:
    if digest is None or not _DIGEST.fullmatch(digest):
        return "image-digest"
    place = _place(root, path or "")
    if place is None:
        return "image-path"
    return "" if place.is_file() else "image-missing"


def _place(root: Path, path: str) -> Path | None:
    """Return where a listed file is, None where that is not below the dataset's folder."""
    listed = PurePosixPath(path)
    if not path or "\0" in path or "\\" in path or listed.is_absolute() or ".." in listed.parts:
        return None
    try:
        place = (root / listed).resolve()
    except (OSError, RuntimeError):  # a ring of links
        return None
    return place if place.is_relative_to(root.resolve()) else None


def _bytes(place: Path, *, most: int) -> bytes:
    """Return a regular file's bytes; a pipe or device is not waited for."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise DataError("image-missing", "a listed image cannot be opened", _NEXT) from None
    with os.fdopen(descriptor, "rb") as file:
        if not place.is_file():
            raise DataError("image-missing", "a listed image is no regular file", _NEXT)
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError("image-shape", "an image's file is larger than its shape allows", _NEXT)
    return data


def _npy(data: bytes, image: Image) -> NDArray[np.float32]:
    stream = io.BytesIO(data)
    try:
        npy.read_magic(stream)  # an array without Python objects has version 1.0
        shape, is_fortran, kind = npy.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TypeError):
        raise DataError("image-unreadable", "an NPY image has no plain header", _NEXT) from None
    whole = (image.height, image.width, image.channels)
    if shape != whole and (image.channels > 1 or shape != whole[:2]):
        raise _wrong_shape(image)
    scale = _SCALES.get(kind.str)
    if scale is None or len(data) - stream.tell() != image.size * kind.itemsize:
        raise DataError("image-unreadable", "an NPY image has another type or length", _NEXT)
    values = np.frombuffer(data, kind, image.size, stream.tell())
    shaped = values.reshape(whole, order="F" if is_fortran else "C")
    return (shaped / scale).astype(np.float32)


def _png(data: bytes, image: Image) -> NDArray[np.float32]:
    try:
        from PIL import Image as Pillow
    except ImportError:
        raise DataError(
            "pillow-missing", "reading PNG needs Pillow", "Install the extra 'images'."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)  # the shape decides
            picture = Pillow.open(io.BytesIO(data), formats=["PNG"])  # reads the header alone
        if picture.size != (image.width, image.height):
            raise _wrong_shape(image)
        scale = {("L", 1): 255.0, ("I;16", 1): 65535.0, ("RGB", 3): 255.0}.get(
            (picture.mode, image.channels)
        )
        if scale is None:
            raise _wrong_shape(image)
        values = np.asarray(picture, np.float32)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        raise DataError("image-unreadable", "a listed image is no intact PNG", _NEXT) from None
    return values.reshape(image.height, image.width, image.channels) / np.float32(scale)


def _wrong_shape(image: Image) -> DataError:
    expected = f"{image.height} x {image.width} with {image.channels} channels"
    return DataError("image-shape", f"an image is not {expected}, as the contract says", _NEXT)
