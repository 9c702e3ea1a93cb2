"""Read a TOML file into a frozen model, or say exactly what is wrong with it.

An unknown key names itself and the nearest valid one; a wrong value names its place, what was
expected and what was found. Nothing is read twice and nothing is guessed.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from larrey_protocol.errors import FileError

__all__ = ["Record", "load_toml", "parse_toml", "read_table", "read_text", "validate"]

MAX_FILE_BYTES = 1 << 20  # a study, contract or site file is a few kilobytes

# What the patterns of this package's names and numbers ask for, in words.
_PATTERNS = {
    r"^[a-z][a-z0-9-]{1,40}$": "a name of lower-case letters, digits and hyphens, 2 to 41 long",
    r"^[a-z][a-z0-9.-]{1,40}$": (
        "a name of lower-case letters, digits, dots and hyphens, 2 to 41 long"
    ),
    r"^[A-Za-z][A-Za-z0-9_-]{0,60}$": "a name of letters, digits, hyphens and underscores",
    r"^[a-z][a-z0-9-]{0,60}$": "a name of lower-case letters, digits and hyphens",
    r"^[a-z][a-z0-9_-]{0,40}$": "a name of lower-case letters, digits, hyphens and underscores",
    r"^[A-Za-z0-9][A-Za-z0-9._/-]{1,60}$": (
        "a reference of letters, digits, dots, slashes and hyphens, such as FR/2026/0001"
    ),
    r"^ed25519:[A-Za-z0-9_-]{43}$": "a public key: ed25519: and 43 characters",
    r"^sha256:[0-9a-f]{64}$": "a digest: sha256: and 64 hex digits",
    r"^(sha256:[0-9a-f]{64})?$": "a digest: sha256: and 64 hex digits, or nothing",
    r"^[A-Za-z0-9._-]+:\d{1,5}$": "an address such as coordinator.example.org:9443",
    r"^[A-Z]{2}$": "a country of two capital letters, such as FR",
    r"^\d+\.\d+\.\d+$": "a version such as 1.0.0",
}

_ModelT = TypeVar("_ModelT", bound=BaseModel)


class Record(BaseModel):
    """A frozen value read at a border; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load_toml(path: Path, model: type[_ModelT]) -> _ModelT:
    """Return the file's content as ``model``.

    Raises:
        FileError: ``missing-file``, ``file-too-large``, ``invalid-toml``, ``unknown-key`` or
            ``invalid-file``.
    """
    return parse_toml(read_text(path), model, where=str(path))


def read_text(path: Path) -> str:
    """Return the text of a small configuration file.

    Raises:
        FileError: ``missing-file`` or ``file-too-large`` or ``invalid-toml`` (not UTF-8).
    """
    if not path.is_file():
        raise FileError("missing-file", f"expected a file at {path}, found none", "Check the path.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise FileError("file-too-large", f"{path} is over {MAX_FILE_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError("invalid-toml", f"{path} is not UTF-8 text", "Save it as UTF-8.") from error


def parse_toml(text: str, model: type[_ModelT], where: str) -> _ModelT:
    """Return TOML text as ``model``; ``where`` names the source in messages.

    Raises:
        FileError: ``invalid-toml``, ``unknown-key`` or ``invalid-file``.
    """
    return validate(read_table(text, where), model, where)


def read_table(text: str, where: str) -> dict[str, Any]:  # Any: TOML values are recursive
    """Return TOML text as it is, unchecked.

    Raises:
        FileError: ``invalid-toml``.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError("invalid-toml", f"{where} is not TOML: {error}", "Correct it.") from error


def validate(data: Any, model: type[_ModelT], where: str) -> _ModelT:  # Any: foreign input
    """Return foreign data as ``model``.

    Raises:
        FileError: ``unknown-key`` or ``invalid-file``, with the place and the next step.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(error, model, where) from None


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> FileError:
    problems = error.errors(include_url=False)
    unknown = [p for p in problems if p["type"] == "extra_forbidden"]
    problem = (unknown or problems)[0]
    place = ".".join(str(part) for part in problem["loc"]) or "the file"
    if unknown:
        key = str(problem["loc"][-1])
        near = difflib.get_close_matches(key, _keys_at(model, problem["loc"][:-1]), n=1, cutoff=0.0)
        hint = f"Did you mean '{near[0]}'?" if near else "Remove it."
        return FileError("unknown-key", f"{where}: unknown key '{key}' at {place}", hint)
    text = f"{where}: {place}: {_reason(problem)}{_found(problem)}"
    return FileError("invalid-file", text, "Correct this value.")


def _reason(problem: ErrorDetails) -> str:
    """Return what was expected, in words where a pattern would be all there is to read."""
    if problem["type"] == "string_pattern_mismatch":
        pattern = str(problem["ctx"]["pattern"])
        return f"expected {_PATTERNS.get(pattern, f'text like {pattern}')}"
    return problem["msg"].removeprefix("Value error, ")


def _found(problem: ErrorDetails) -> str:
    """Return what was found, if that is one value: a rule about a whole table names its keys."""
    is_whole = problem["type"] in {"value_error", "assertion_error"}
    if problem["type"] == "missing" or (
        is_whole and isinstance(problem["input"], dict | BaseModel)
    ):
        return ""
    return f", found {_brief(problem['input'])}"


def _brief(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return "a table"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the valid keys of the table at ``location``, empty where it cannot be told."""
    models = [model]
    for part in location:
        fields = [m.model_fields.get(str(part)) for m in models]
        annotations = [f.annotation for f in fields if f is not None]
        if annotations:
            models = [m for a in annotations for m in _models_in(a)]
    return sorted({name for m in models for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # Any: typing constructs have no type
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is None:
        return []
    return [m for part in get_args(annotation) for m in _models_in(part)]
