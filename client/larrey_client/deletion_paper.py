"""What a closing writes beside the state: each thing before it goes, then the signed receipt.

``receipts/<study>.deletion.part`` has a line a thing while a study is being deleted, so that no
kill loses what went already; ``….deletion.json`` is the receipt, also kept among the documents.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from larrey_protocol.canonical import canonical_json, short
from larrey_protocol.certificates import replace_file
from larrey_protocol.decisions import Deleted
from larrey_protocol.signed import Signed

__all__ = ["Named", "Paper"]


class Paper:
    """The files about one study's deletion, in the state folder of a site."""

    def __init__(self, state: Path, study: str) -> None:
        folder = state / "receipts"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._receipt = folder / f"{short(study)}.deletion.json"
        self._part = folder / f"{short(study)}.deletion.part"

    @property
    def is_written(self) -> bool:
        """Return whether the receipt is there, with nothing left to be done."""
        return self._receipt.exists() and not self._part.exists()

    @contextmanager
    def naming(self) -> Iterator[Named]:
        """Yield what was named so far, by a run that was cut, and takes more."""
        known = Counter(_read(self._part))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with os.fdopen(os.open(self._part, flags, 0o600), "ab") as file:
            yield Named(known, file)

    def write(self, signed: Signed) -> Path:
        """Write the signed receipt where a person finds it, and return where."""
        replace_file(self._receipt, canonical_json(signed.model_dump(mode="json")))
        self._part.unlink(missing_ok=True)
        return self._receipt


class Named:
    """What a closing named: on disk before it goes."""

    def __init__(self, known: Counter[Deleted], file: BinaryIO) -> None:
        self._known, self._file = known, file
        self._now: Counter[Deleted] = Counter()

    @property
    def items(self) -> tuple[Deleted, ...]:
        """Return all that was named, in this run or in one that was cut."""
        return tuple(self._known.elements())

    def add(self, item: Deleted) -> None:
        """Return once it is on disk; what a cut run named and did not delete counts once."""
        self._now[item] += 1
        if self._now[item] > self._known[item]:
            self._file.write(
                b"\n" + canonical_json(item.model_dump(mode="json"))
            )  # ends a torn line
            self._file.flush()
            os.fsync(self._file.fileno())
            self._known[item] += 1


def _read(path: Path) -> Iterator[Deleted]:
    """Yield what a run that was cut had named; a torn last line is of a thing still there."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError):
            yield Deleted.model_validate_json(line)
