"""The next version of a study, as its file says it. Pure."""

from __future__ import annotations

from larrey_protocol.amendments import require_child
from larrey_protocol.study import Study

__all__ = ["child_of"]


def child_of(parent: Study, wanted: Study) -> Study:
    """Return ``wanted`` as the version after ``parent``; the file's own numbers do not count.

    Raises:
        Refusal: ``not-an-amendment`` where name or permit differ.
    """
    own = {"version": parent.file.study.version + 1, "parent": parent.digest}
    head = wanted.file.study.model_copy(update=own)
    child = Study(file=wanted.file.model_copy(update={"study": head}), contract=wanted.contract)
    require_child(parent, child)
    return child
