"""What the coordinator must not forget, in one SQLite file (write-ahead log, full synchronous)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from larrey_protocol.audit import AuditRecord

__all__ = ["AnswerRow", "Journal", "StudyRow"]


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A proposed study as stored; ``state`` is proposed, open or ended."""

    digest: str
    name: str
    proposal: bytes  # Signed Proposal, travelling form
    state: str
    proposed_at: float


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A site's last signed decision about a study."""

    site: str
    decision: str
    code: str
    answer: bytes  # Signed Answer, travelling form


class Journal:
    """The coordinator's memory; thread-safe; every method that changes it is one durable commit."""

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Return the journal in ``path``. Raises Refusal ``state-locked``."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file and release the lock."""
        raise NotImplementedError

    def propose(self, study: StudyRow, actor: str) -> bool:
        """Store a proposal; False if the digest is known already."""
        raise NotImplementedError

    def answer(self, study: str, answer: AnswerRow, at: float) -> None:
        """Store a site's decision; it replaces an earlier one of that site."""
        raise NotImplementedError

    def studies(self) -> tuple[StudyRow, ...]:
        """Return all studies, oldest first."""
        raise NotImplementedError

    def answers(self, study: str) -> tuple[AnswerRow, ...]:
        """Return the decisions about a study, one a site."""
        raise NotImplementedError

    def certificate(self, study: str) -> bytes | None:
        """Return the signed certificate of an ended study."""
        raise NotImplementedError

    def note(self, record: AuditRecord) -> AuditRecord:
        """Chain one audit record and return it as stored."""
        raise NotImplementedError

    def head(self) -> str:
        """Return the audit chain's head ``seq:hash``, empty for an empty chain."""
        raise NotImplementedError

    def audit(self) -> Iterator[AuditRecord]:
        """Yield the audit chain in order."""
        raise NotImplementedError
