"""A command that makes a file says what is wrong with its place before it does anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from larrey_protocol.errors import FileError
from larrey_protocol.newfile import file_failed, require_new


def test_a_free_name_in_a_folder_may_be_made(tmp_path: Path) -> None:
    require_new(tmp_path / "new.json")


def test_a_taken_name_is_refused_even_if_its_link_leads_nowhere(tmp_path: Path) -> None:
    taken, link = tmp_path / "taken", tmp_path / "link"
    taken.touch()
    link.symlink_to(tmp_path / "nowhere")
    for path in (taken, link):
        with pytest.raises(FileError, match="exists already") as refused:
            require_new(path)
        assert refused.value.code == "file-exists"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="none") as refused:
        require_new(tmp_path / "none" / "new.json")
    assert refused.value.code == "missing-folder"


def test_what_the_system_refuses_is_one_sentence_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none") as failed:
        (tmp_path / "none" / "new").write_text("")
    told = file_failed(failed.value)
    assert (told.code, told.exit_status) == ("file-failed", 2)
    assert str(tmp_path / "none" / "new") in told.message
    assert told.next_step
    assert "\n" not in str(told)
