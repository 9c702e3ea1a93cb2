"""The operator file of one person, made from one that works. Pure."""

from __future__ import annotations

import json
from pathlib import Path

from larrey_server.settings import OperatorPerson, OperatorSettings

__all__ = ["operator_file"]


def operator_file(
    settings: OperatorSettings, consortium: str, person: OperatorPerson, folder: Path
) -> str:
    """Return TOML with the same coordinator and transport credential, and this person.

    The consortium's private key is not named: a person signs with their own.

    Args:
        settings: of the file that works, with absolute paths.
        consortium: its public key.
        person: who works with the new file.
        folder: absolute, where the new file will lie; paths within it are written relative to it.
    """
    tables: dict[str, dict[str, str | Path]] = {
        "coordinator": {
            "address": settings.coordinator.address,
            "authority": settings.coordinator.authority,
        },
        "identity": {"certificate": settings.identity.certificate, "key": settings.identity.key},
        "consortium": {"key": consortium},
        "person": {"name": person.name, "key": person.key},
    }
    lines = [f"# How {person.name} works with the coordinator: larrey study list --operator FILE"]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_text(v, folder)}" for key, v in table.items())]
    return "\n".join(lines) + "\n"


def _text(value: str | Path, folder: Path) -> str:
    if isinstance(value, Path) and value.is_relative_to(folder):
        value = value.relative_to(folder)
    return json.dumps(str(value), ensure_ascii=False)  # what TOML calls a basic string
