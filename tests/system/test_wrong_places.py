"""A file that cannot be made, or a day that is none, is told in a sentence by both programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from larrey_client.cli import main as site
from larrey_server.cli import main as consortium

Main = Callable[[list[str]], int]


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (consortium, ["person", "new", "ada"]),
        (consortium, ["permit", "new"]),
        (consortium, ["invite", "alpha", "--operator", "nowhere.toml"]),
        (site, ["person", "new", "ana", "--role", "it"]),
    ],
)
def test_a_missing_folder_is_said_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], main: Main, words: list[str]
) -> None:
    out = tmp_path / "none" / "file"
    assert main([*words, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert str(out.parent) in said.err
    assert "[missing-folder] Make it" in said.err


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (consortium, ["audit", "query", "--from", "yesterday"]),
        (site, ["audit", "query", "--from", "yesterday"]),
        (site, ["egress", "--since", "yesterday"]),
        (site, ["opposition", "add", "1", "--valid-from", "yesterday"]),
    ],
)
def test_a_day_is_explained(
    capsys: pytest.CaptureFixture[str], main: Main, words: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "expected a day such as 2026-01-31, found 'yesterday'" in capsys.readouterr().err


def test_a_name_that_no_system_takes_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / ("long" * 100)  # longer than any file's name may be
    assert consortium(["study", "check", str(closed)]) == 2
    assert site(["status", "--config", str(closed)]) == 2
    assert [line.count("[file-failed] Check") for line in capsys.readouterr().err.splitlines()] == [
        1,
        1,
    ]
