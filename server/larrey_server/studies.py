"""The coordinator's book of studies: what was proposed, who answered what.

Everything here is signed by somebody else: proposals by the consortium or a lead of its roster,
answers by sites. Nothing is believed before its signature verifies, nothing is passed on that its
permit does not cover, and nothing runs that a site did not approve by digest of study, permit and
seats. Whether that is so is asked of the newest permit and roster each time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from larrey_protocol.amendments import require_child
from larrey_protocol.audit import AuditRecord
from larrey_protocol.canonical import short
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.lawful import Reason, is_named, not_in_force, unlawful
from larrey_protocol.roster import Roster, name_of, open_under
from larrey_protocol.signed import Answer, Proposal, Signed, open_signed
from larrey_protocol.study import Study
from larrey_server.anchors import within
from larrey_server.claims import check_claims, check_sites
from larrey_server.journal import AnswerRow, Journal, StudyRow
from larrey_server.lawbook import LawBook
from larrey_server.registry import Registry

__all__ = ["Answers", "StudyBook"]

_NEXT = {
    "permit-unknown": "Sign and send it: larrey permit sign permit.toml",
    "site-not-on-roster": "Sign a roster with the site: larrey roster sign roster.toml",
}
_MAX_ANSWERS = 100  # of one site about one study, in one run; each is a line in the trail
_MAX_RECEIPTS_BYTES = 4 << 20  # of deletion receipts in one reply
_AMEND = "Amend the permit, or correct the study: larrey permit history REFERENCE"


@dataclass(frozen=True, slots=True)
class Answers:
    """Who decided what about a study, in roster order."""

    approved: tuple[str, ...]
    refused: dict[str, str]  # site -> code
    silent: tuple[str, ...]
    outdated: tuple[str, ...] = ()  # approved another version of the permit, or other seats


class StudyBook:
    """Proposals and answers over the journal; thread-safe."""

    def __init__(self, journal: Journal, registry: Registry, law: LawBook) -> None:
        self.law = law
        self._journal = journal
        self._registry = registry
        self._lock = threading.Lock()
        self._studies: dict[str, Study] = {}
        self._answers: Counter[tuple[str, str]] = Counter()  # by site and study
        # A number no earlier process of this coordinator used, so that sites notice a restart.
        first = time.time_ns() // 1_000_000
        self._revisions: defaultdict[str, int] = defaultdict(lambda: first)

    @property
    def consortium(self) -> str:
        """Return the consortium's present public key."""
        return self.law.consortium

    def roster(self) -> Roster:
        """Return the newest roster, an empty one before the first."""
        return self.law.roster()

    def propose(self, signed: Signed) -> Study:
        """Store a proposal and return its study; proposing twice changes nothing.

        Raises:
            IntegrityError: neither the consortium nor a person of its roster signed it.
            Refusal: ``role-not-allowed``, a code of `larrey_protocol.lawful`, ``unknown-site``,
                ``epsilon-impossible``, ``parent-unknown``, ``not-an-amendment`` or
                ``digest-too-near``.
            UsageError: its strategy is unknown.
        """
        consortium, roster = self.consortium, self.roster()
        study = open_under(signed, Proposal, "propose", consortium=consortium, roster=roster).study
        self._require_lawful(study, signed.signer)
        check_sites(study, self._registry.sites)
        check_claims(study)
        self._require_own_place(study)
        if study.file.study.parent:
            require_child(self._parent(study), study)
        row = StudyRow(study.digest, study.name, signed.to_bytes(), "proposed", time.time())
        if self._journal.propose(row, name_of(signed.signer, consortium=consortium, roster=roster)):
            self.changed(study.file.site_names)
        return study

    def require_launchable(self, row: StudyRow, launcher: str) -> None:
        """Return if a person, by public key, may start this study now.

        Raises:
            Refusal: a code of `larrey_protocol.lawful`, or ``parent-running``.
        """
        study = self.study(row.digest)
        self._require_lawful(study, launcher)
        parent = study.file.study.parent
        if parent and self.find(parent).state == "open":
            raise Refusal(
                "parent-running",
                f"study {row.name} amends {short(parent)}, which still runs",
                f"Wait for its end, or close it: larrey study close {short(parent)}",
            )

    def require_resumable(self, digest: str) -> None:
        """Return if a stopped study may go on now.

        Raises:
            Refusal: a code of `larrey_protocol.lawful`.
        """
        self._require_lawful(self.study(digest), self.consortium)

    def require_named(self, digest: str, key: str) -> None:
        """Return if roster and newest permit name the owner of a public key.

        Raises:
            Refusal: ``person-not-permitted``.
        """
        reference = self.study(digest).file.study.permit
        newest = self.law.newest(reference)
        if newest is None or not is_named(
            newest[1], self.roster(), key, consortium=self.consortium
        ):
            raise Refusal(
                "person-not-permitted",
                f"permit {reference} does not name the person who signed",
                _AMEND,
            )

    def lapsed(self, digest: str) -> Reason | None:
        """Return why a running study may not go on, None while it may.

        Its permit is not in force any more, or a new version of it or of the roster made so many
        approvals outdated that the quorum is gone: ``approval-outdated``.
        """
        file = self.study(digest).file
        newest = self.law.newest(file.study.permit)
        late = not_in_force(newest[1], self.law.today()) if newest else None
        if late is not None:
            return late
        answers = self.answers(digest)
        if answers.outdated and len(answers.approved) < file.rounds.quorum:
            text = (
                f"the approval of {', '.join(answers.outdated)} is of an earlier permit or roster"
            )
            return "approval-outdated", text
        return None

    def is_retention_over(self, digest: str) -> bool:
        """Return whether the permit no longer lets models of a study be kept here."""
        newest = self.law.newest(self.study(digest).file.study.permit)
        return newest is not None and self.law.today() > newest[1].use.retention_until

    def answer(self, site: str, signed: Signed) -> Answer:
        """Store a site's decision; the same one again changes nothing.

        Raises:
            IntegrityError: it is not signed by this site.
            Refusal: ``unknown-study``, ``not-invited``, ``study-ended``, ``too-many-answers``, or
                ``approval-outdated`` for an approval under another permit version or other seats,
                which is stored all the same but does not count.
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
        given = {one.site: one for one in self._journal.answers(row.digest)}.get(site)
        if kept != given:  # a repetition is not put on record
            self._count(kept, given, row.digest)
            self._journal.answer(row.digest, kept, time.time())
            self.changed([site])
        if answer.decision == "approved" and not self._is_current(answer):
            raise Refusal(
                "approval-outdated",
                f"{site} approved {short(row.digest)} under another permit version or other seats",
                "The site reads the newest and approves anew.",
            )
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
                # The signer's right was checked when it was proposed.
                self._studies[digest] = open_signed(signed, Proposal, signed.signer).study
            return self._studies[digest]

    def documents(self, row: StudyRow) -> list[bytes]:
        """Return the signed documents about a study: proposal, orders, deletion receipts.

        The short receipts first and as many as a reply takes; the journal has all.
        """
        orders, receipts = (
            [one.document for one in self._journal.documents(kind, row.digest)]
            for kind in ("order", "deletionreceipt")
        )
        told = within(_MAX_RECEIPTS_BYTES, sorted(receipts, key=len))
        return [row.proposal, *orders, *told]

    def answers(self, digest: str) -> Answers:
        """Return who decided what, as it counts under the newest permit and roster."""
        given = {row.site: row for row in self._journal.answers(digest)}
        sites = self.study(digest).file.site_names
        yes = {s for s in sites if s in given and given[s].decision == "approved"}
        current = {s for s in yes if self._is_of_member(given[s])}
        current = {s for s in current if self._is_current(_opened(given[s]))}
        return Answers(
            approved=tuple(s for s in sites if s in current),
            refused={s: _code(given[s]) for s in sites if s in given and s not in yes},
            silent=tuple(s for s in sites if s not in given),
            outdated=tuple(s for s in sites if s in yes - current),
        )

    def invited(self, site: str) -> tuple[list[StudyRow], list[StudyRow]]:
        """Return the studies that invite a site: those that may still run, and those that ended."""
        rows = [r for r in self.rows() if site in self.study(r.digest).file.site_names]
        ended = [row for row in rows if row.state == "ended"]
        return [row for row in rows if row.state != "ended"], ended

    def under(self, reference: str) -> list[StudyRow]:
        """Return the studies under a permit."""
        return [r for r in self.rows() if self.study(r.digest).file.study.permit == reference]

    def revision(self, site: str) -> int:
        """Return a number that changes whenever the site should list its studies again."""
        with self._lock:
            return self._revisions[site]

    def changed(self, sites: Iterable[str]) -> None:
        """Make these sites list their studies again."""
        with self._lock:
            for site in sites:
                self._revisions[site] += 1

    def note(self, actor: str, action: str, study: str) -> None:
        """Put one act of a person on record."""
        self._journal.note(
            AuditRecord(seq=0, at=time.time(), actor=actor, action=action, study=study)
        )

    def _count(self, answer: AnswerRow, before: AnswerRow | None, study: str) -> None:
        """Count a site's change of mind; what takes an approval back is always heard."""
        is_way_out = before is not None and before.decision == "approved" != answer.decision
        if self._answers[answer.site, study] >= _MAX_ANSWERS and not is_way_out:
            raise Refusal("too-many-answers", f"{answer.site} answered {_MAX_ANSWERS} times")
        self._answers[answer.site, study] += 1

    def _require_lawful(self, study: Study, signer: str) -> None:
        newest = self.law.newest(study.file.study.permit)
        reason = unlawful(
            study,
            newest[1] if newest else None,
            day=self.law.today(),
            roster=self.roster(),
            signer=signer,
            consortium=self.consortium,
        )
        if reason is not None:
            code, sentence = reason
            raise Refusal(code, sentence, _NEXT.get(code, _AMEND))

    def _require_own_place(self, study: Study) -> None:
        """Refuse a study made to share the twelve digits that name folders and are read aloud."""
        for row in self.rows():
            if short(row.digest) == short(study.digest) and row.digest != study.digest:
                raise Refusal(
                    "digest-too-near",
                    f"the first twelve digits {short(study.digest)} are those of {row.name}",
                    "Change the study in any way; its title, say.",
                )

    def _parent(self, study: Study) -> Study:
        parent = study.file.study.parent
        if all(row.digest != parent for row in self.rows()):
            raise Refusal(
                "parent-unknown",
                f"study {study.name} amends {short(parent)}, which was not proposed here",
                "Use: larrey study amend study.toml",
            )
        return self.study(parent)

    def _is_of_member(self, row: AnswerRow) -> bool:
        """Return whether the site is a member now, and the roster's, with the key that signed."""
        member, key = self._registry.sites.get(row.site), Signed.from_bytes(row.answer).signer
        seats = [seat.key for seat in self.roster().seats((row.site,))]
        return member is not None and member.signing_key == key and seats == [key]

    def _is_current(self, answer: Answer) -> bool:
        """Return whether an approval is of the newest permit and of the seats of the roster."""
        file = self.study(answer.study).file
        newest = self.law.newest(file.study.permit)
        seats = self.roster().seats_digest(file.site_names)
        return newest is not None and (answer.permit, answer.seats) == (newest[0], seats)


def _opened(row: AnswerRow) -> Answer:
    return Answer.model_validate_json(Signed.from_bytes(row.answer).document)


def _code(row: AnswerRow) -> str:
    return "approval-revoked" if row.decision == "revoked" else row.code
