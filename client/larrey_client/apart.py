"""One document that fails in a way nobody foresaw stops neither the others nor the node."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["apart"]

logger = logging.getLogger(__name__)


@contextmanager
def apart(what: str) -> Iterator[None]:
    """Log what goes wrong inside and go on after it; ``what`` names the document in the log.

    Raises:
        sqlite3.OperationalError: the state cannot be written now. That is no document's fault, and
            whoever asked asks again, so that no stop is lost.
    """
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except Exception:
        logger.exception("%s failed in an unforeseen way; the others go on", what)
