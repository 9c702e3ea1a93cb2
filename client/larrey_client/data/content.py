"""A digest of the rows that were read: equal content, equal digest, whatever the file's format.

It never leaves the site: small tables could be guessed from it. What leaves is at most a
commitment that somebody keyed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from larrey_client.data.cells import trimmed
from larrey_protocol.canonical import canonical_json

__all__ = ["content_digest"]


def content_digest(table: pa.Table) -> str:
    """Return "sha256:…" over names, then each column's cells as text, in order of rows.

    Missing and empty cells are one; white space around a cell does not count.
    """
    digest = hashlib.sha256(canonical_json([table.column_names, table.num_rows]))
    for name in table.column_names:
        texts = pc.fill_null(trimmed(table[name]), "")
        for chunk in texts.chunks:
            digest.update(np.asarray(pc.binary_length(chunk), "<i4").tobytes())
        for chunk in texts.chunks:
            digest.update(_characters(chunk))
    return "sha256:" + digest.hexdigest()


def _characters(texts: pa.StringArray) -> memoryview:
    """Return the cells' UTF-8, one after another."""
    if len(texts) == 0:
        return memoryview(b"")
    _, offsets, characters = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(characters or b"")[int(ends[0]) : int(ends[-1])]
