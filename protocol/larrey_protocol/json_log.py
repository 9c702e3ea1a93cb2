"""Logs as JSON, one object a line, for whoever asks by ``LARREY_LOG_FORMAT=json``.

A message is written here as ``what happened study=%s round=%d site=%s``; each of its facts becomes
a key with the value that was given for it, so that nothing has to be parsed out of text. Keys:
``at`` (RFC 3339, UTC), ``level``, ``logger``, ``event``, ``fault`` with a trace, and the facts.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
from collections.abc import Mapping

__all__ = ["TEXT", "JsonLines", "formatter"]

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_HOLDER = re.compile(r"(?:(\w+)=)?%[-+#0 ]*[\d.]*([a-zA-Z%])")
_OWN = frozenset({"at", "level", "logger", "event", "fault"})


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; text of a record that names no facts stands in ``event``."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname, "logger": record.name, **_facts(record)}
        if record.exc_info:
            line["fault"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def formatter(environment: Mapping[str, str] = os.environ) -> logging.Formatter:
    """Return how lines are written: as text, or as JSON where ``LARREY_LOG_FORMAT`` says so."""
    is_json = environment.get("LARREY_LOG_FORMAT", "text").lower() == "json"
    return JsonLines() if is_json else logging.Formatter(TEXT)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    arguments = record.args
    if not isinstance(arguments, tuple) or "*" in str(record.msg):
        return {"event": record.getMessage()}
    given, facts = iter(arguments), dict[str, object]()

    def take(holder: re.Match[str]) -> str:
        name, form = holder.groups()
        if form == "%":
            return holder[0]
        value = next(given)
        if name and name not in _OWN:
            facts[name] = value if isinstance(value, str | int | float | None) else str(value)
            return ""
        return (f"{name}=" if name else "") + (repr(value) if form == "r" else str(value))

    try:
        text = _HOLDER.sub(take, str(record.msg))
    except StopIteration:
        return {"event": str(record.msg)}
    return {"event": " ".join(text.replace("%%", "%").split()), **facts}
