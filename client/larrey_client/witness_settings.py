"""``[witness]`` of site.toml: where this site's anchors are kept off this host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from larrey_protocol.tomlfile import Record

__all__ = ["Witness"]


class Witness(Record):
    """Witnesses of this site's ledger; without one, only the coordinator and other sites are.

    An old copy of the whole state folder is then found only if one of those says so.
    """

    file: Path | None = None  # append-only, on another machine's share; read at every start
    syslog: Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+:\d{1,5})?$")] = ""  # TCP, send only

    @property
    def kinds(self) -> list[str]:
        """Return which witnesses there are."""
        return [kind for kind, place in (("file", self.file), ("syslog", self.syslog)) if place]

    def rooted(self, folder: Path) -> Witness:
        """Return the settings with the file's path counted from ``folder``."""
        return self.model_copy(update={"file": folder / self.file if self.file else None})
