"""What `larrey-site doctor` and `larrey doctor` share: checks, findings and how they are told.

A check is a frozen line of a table; its rule is pure and judges what one probe of its group
measured. Probes run side by side under one time limit. What could not be examined counts as
failed, so that silence never reads as health.
"""

from __future__ import annotations

import logging
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from larrey_protocol.errors import LarreyError

__all__ = [
    "VERSION",
    "Check",
    "Finding",
    "Language",
    "Skip",
    "Text",
    "as_json",
    "examine",
    "exit_status",
    "joined",
    "log_findings",
    "table",
    "tell",
]

VERSION = 1  # of the JSON
_WIDTH = 80
_INDENT = " " * 9

Language = Literal["en", "fr"]
Status = Literal["failed", "warning", "skipped", "ok"]
_ORDER: tuple[Status, ...] = ("failed", "warning", "skipped", "ok")


class Text(NamedTuple):
    """One text in both languages."""

    en: str
    fr: str


@dataclass(frozen=True, slots=True)
class Skip:
    """A check does not apply here, and why."""

    why: Text


Outcome = Text | Skip | None  # what is wrong; why not examined; nothing is wrong


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table.

    Attributes:
        code: stable, lower-case with hyphens; names the fault.
        group: whose probe measures what the rule judges.
        level: of the finding where something is wrong.
        title: what is checked, as a statement that holds where all is well.
        remedy: one next step.
        fault: what its test breaks.
        rule: from what the probe measured to an outcome.
    """

    code: str
    group: str
    level: Literal["failed", "warning"]
    title: Text
    remedy: Text
    fault: str
    rule: Callable[[Any], Outcome]  # Any: what the probe of its group gives


_NOTHING = Text("", "")


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check."""

    check: Check
    status: Status
    detail: Text = _NOTHING
    is_examined: bool = True  # else the detail says why not


_WORDS: dict[Language, dict[str, str]] = {
    "en": {"failed": "FAILED", "warning": "warning", "skipped": "skipped", "ok": "ok"},
    "fr": {"failed": "ÉCHEC", "warning": "alerte", "skipped": "omis", "ok": "ok"},
}
_SUMMARY: dict[Language, str] = {
    "en": "failed: {failed}   warnings: {warning}   skipped: {skipped}   ok: {ok}",
    "fr": "échecs : {failed}   alertes : {warning}   omis : {skipped}   ok : {ok}",
}
_UNEXAMINED: dict[Language, str] = {
    "en": "{number} checks could not be made: {why}",
    "fr": "{number} contrôles n'ont pas pu être faits : {why}",
}
_SEND: dict[Language, str] = {
    "en": "Run it again as the service's account; if it stays so, mail what --report writes.",
    "fr": "Relancez avec le compte du service ; si cela persiste, envoyez le fichier de --report.",
}
_TOO_SLOW = Text("it did not answer in time", "pas de réponse dans le délai")


def examine(
    checks: Sequence[Check], probes: Mapping[str, Callable[[], object]], limit_s: float
) -> list[Finding]:
    """Return one finding a check, in their order.

    Args:
        checks: the table.
        probes: by group; each measures, in a thread of its own.
        limit_s: after which a probe that still runs is left behind.
    """
    measured: dict[str, object] = {}
    failed: dict[str, Text] = {}

    def measure(group: str, probe: Callable[[], object]) -> None:
        try:
            measured[group] = probe()
        except LarreyError as error:
            failed[group] = Text(error.code, error.code)
        except Exception as error:  # noqa: BLE001  a doctor reports whatever it meets
            kind = type(error).__name__
            failed[group] = Text(kind, kind)

    wanted = {check.group for check in checks}
    threads = [
        threading.Thread(target=measure, args=(group, probes[group]), daemon=True)
        for group in sorted(wanted)
    ]
    ends = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return [_judged(check, measured, failed) for check in checks]


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 0 where nothing failed, else 1; a warning does not fail."""
    return int(any(one.status == "failed" for one in findings))


def log_findings(findings: Iterable[Finding], logger: logging.Logger) -> None:
    """Write one line for each finding that failed or warns."""
    for one in findings:
        if one.status in {"failed", "warning"}:
            next_step = one.check.remedy.en if one.is_examined else _SEND["en"]
            logger.warning(
                "doctor=%s level=%s: %s; %s", one.check.code, one.status, one.detail.en, next_step
            )


def joined(parts: Iterable[Text]) -> Text | None:
    """Return several details as one, None where there is none."""
    found = list(parts)
    if not found:
        return None
    return Text("; ".join(one.en for one in found), "; ".join(one.fr for one in found))


def as_json(findings: Sequence[Finding], **about: str) -> dict[str, Any]:  # Any: JSON
    """Return the findings as data; ``version`` grows when a key changes its meaning."""
    counts = {status: _count(findings, status) for status in _ORDER}
    return {
        "version": VERSION,
        **about,
        "is_ready": exit_status(findings) == 0,
        "counts": counts,
        "checks": [
            {
                "code": one.check.code,
                "group": one.check.group,
                "status": one.status,
                "is_examined": one.is_examined,
                "title": one.check.title._asdict(),
                "detail": one.detail._asdict(),
                "remedy": one.check.remedy._asdict(),
            }
            for one in findings
        ],
    }


def tell(findings: Sequence[Finding], lang: Language) -> str:
    """Return the findings for a terminal of 80 columns, the worst first."""
    lines = _unexamined(findings, lang)
    known = [one for one in findings if one.is_examined]
    for one in sorted(known, key=lambda one: _ORDER.index(one.status)):
        word = _WORDS[lang][one.status]
        detail = getattr(one.detail, lang)
        if one.status in {"failed", "warning"}:
            lines.append(f"{word:9}{one.check.code}")
            lines += [*_wrapped(detail, ""), *_wrapped(getattr(one.check.remedy, lang), "> "), ""]
        else:
            said = getattr(one.check.title, lang) + (f" ({detail})" if detail else "")
            wrapped = _wrapped(said, "")
            lines += [f"{word:9}{wrapped[0].lstrip()}", *wrapped[1:]]
    counts = {status: _count(findings, status) for status in _ORDER}
    return "\n".join([*lines, "", _SUMMARY[lang].format(**counts)])


def table(checks: Iterable[Check]) -> list[str]:
    """Return the checks as lines of a Markdown table."""
    rows = [
        f"| `{one.code}` | {one.level} | {one.title.en}<br>*{one.title.fr}* |"
        f" {one.remedy.en}<br>*{one.remedy.fr}* | {one.fault} |"
        for one in checks
    ]
    head = "| code | level | what holds where all is well | next step | the fault in its test |"
    return [head, "|---|---|---|---|---|", *rows]


def _judged(check: Check, measured: Mapping[str, object], failed: Mapping[str, Text]) -> Finding:
    if check.group not in measured:
        return Finding(check, "failed", failed.get(check.group, _TOO_SLOW), is_examined=False)
    outcome = check.rule(measured[check.group])
    if outcome is None:
        return Finding(check, "ok")
    if isinstance(outcome, Skip):
        return Finding(check, "skipped", outcome.why)
    return Finding(check, check.level, outcome)


def _unexamined(findings: Sequence[Finding], lang: Language) -> list[str]:
    """Return a block a group whose probe failed; its checks' own remedies would mislead."""
    groups = {one.check.group: one.detail for one in findings if not one.is_examined}
    lines = []
    for group, why in groups.items():
        number = sum(one.check.group == group for one in findings)
        said = _UNEXAMINED[lang].format(number=number, why=getattr(why, lang))
        lines.append(f"{_WORDS[lang]['failed']:9}{group}")
        lines += [*_wrapped(said, ""), *_wrapped(_SEND[lang], "> "), ""]
    return lines


def _count(findings: Iterable[Finding], status: Status) -> int:
    return sum(one.status == status for one in findings)


def _wrapped(text: str, mark: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=_INDENT + mark,
        subsequent_indent=_INDENT + " " * len(mark),
        break_on_hyphens=False,
    )
