"""The coordinator's book of studies: what was proposed, who answered what.

Everything here is signed by somebody else: proposals by the consortium, answers by sites. Nothing
is believed before its signature verifies, and nothing runs that a site did not approve by digest.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from larrey_protocol.audit import AuditRecord
from larrey_protocol.canonical import short
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.signed import Answer, Proposal, Signed, open_signed
from larrey_protocol.study import Study
from larrey_server.claims import check_claims, check_sites
from larrey_server.journal import AnswerRow, Journal, StudyRow
from larrey_server.registry import Registry

__all__ = ["Answers", "StudyBook"]


@dataclass(frozen=True, slots=True)
class Answers:
    """Who decided what about a study, in roster order."""

    approved: tuple[str, ...]
    refused: dict[str, str]  # site -> code
    silent: tuple[str, ...]


class StudyBook:
    """Proposals and answers over the journal; thread-safe."""

    def __init__(self, journal: Journal, registry: Registry, consortium: str) -> None:
        self._journal = journal
        self._registry = registry
        self._consortium = consortium
        self._lock = threading.Lock()
        self._studies: dict[str, Study] = {}
        # A number no earlier process of this coordinator used, so that sites notice a restart.
        first = time.time_ns() // 1_000_000
        self._revisions = dict.fromkeys(registry.sites, first)

    def propose(self, signed: Signed, actor: str) -> Study:
        """Store a proposal and return its study; proposing twice changes nothing.

        Raises:
            IntegrityError: it is not signed by the consortium.
            Refusal: ``epsilon-impossible`` or ``unknown-site``.
            UsageError: its strategy is unknown.
        """
        study = open_signed(signed, Proposal, self._consortium).study
        check_sites(study, self._registry.sites)
        check_claims(study)
        row = StudyRow(study.digest, study.name, signed.to_bytes(), "proposed", time.time())
        if self._journal.propose(row, actor):
            self.changed(study.file.site_names)
        return study

    def answer(self, site: str, signed: Signed) -> Answer:
        """Store a site's decision; the same one again changes nothing.

        Raises:
            IntegrityError: it is not signed by this site.
            Refusal: ``unknown-study``, ``not-invited`` or ``study-ended``.
        """
        answer = open_signed(signed, Answer, self._registry.sites[site].signing_key)
        if answer.site != site:
            raise IntegrityError("wrong-signer", f"{site} sent an answer of {answer.site}")
        row = self.find(answer.study)
        if site not in self.study(row.digest).file.site_names:
            raise Refusal("not-invited", f"study {short(row.digest)} does not invite {site}")
        if row.state == "ended":
            raise Refusal("study-ended", f"study {short(row.digest)} has ended")
        kept = AnswerRow(site, answer.decision, answer.code, signed.to_bytes())
        if kept not in self._journal.answers(row.digest):  # a repetition is not put on record
            self._journal.answer(row.digest, kept, time.time())
            self.changed([site])
        return answer

    def rows(self) -> tuple[StudyRow, ...]:
        """Return all studies, oldest first."""
        return self._journal.studies()

    def find(self, text: str) -> StudyRow:
        """Return the study with this digest, first twelve hex digits, or name (the newest).

        Raises:
            Refusal: ``unknown-study``.
        """
        for row in reversed(self.rows()):
            if text in (row.digest, short(row.digest), row.name):
                return row
        raise Refusal(
            "unknown-study", f"no study '{text}' was proposed here", "See: larrey study list"
        )

    def study(self, digest: str) -> Study:
        """Return a proposed study.

        Raises:
            Refusal: ``unknown-study``.
        """
        with self._lock:
            if digest not in self._studies:
                signed = Signed.from_bytes(self.find(digest).proposal)
                self._studies[digest] = open_signed(signed, Proposal, self._consortium).study
            return self._studies[digest]

    def answers(self, digest: str) -> Answers:
        """Return who decided what."""
        given = {row.site: row for row in self._journal.answers(digest)}
        sites = self.study(digest).file.site_names
        return Answers(
            approved=tuple(s for s in sites if s in given and given[s].decision == "approved"),
            refused={
                s: given[s].code for s in sites if s in given and given[s].decision != "approved"
            },
            silent=tuple(s for s in sites if s not in given),
        )

    def for_site(self, site: str) -> tuple[list[bytes], list[str]]:
        """Return the proposals that invite a site, and the digests of those that have ended."""
        rows = [r for r in self.rows() if site in self.study(r.digest).file.site_names]
        running = [row.proposal for row in rows if row.state != "ended"]
        return running, [row.digest for row in rows if row.state == "ended"]

    def revision(self, site: str) -> int:
        """Return a number that changes whenever the site should list its studies again."""
        return self._revisions[site]

    def changed(self, sites: tuple[str, ...] | list[str]) -> None:
        """Make these sites list their studies again."""
        with self._lock:
            for site in sites:
                if site in self._revisions:
                    self._revisions[site] += 1

    def note(self, actor: str, action: str, study: str) -> None:
        """Put one act of a person on record."""
        self._journal.note(
            AuditRecord(seq=0, at=time.time(), actor=actor, action=action, study=study)
        )
