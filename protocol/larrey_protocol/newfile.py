"""Files that a command makes: nothing is overwritten, and a wrong path is said before any work.

What the operating system refuses is told in one sentence, too, so that no command ends in a
traceback because a folder is missing or a disk is full.
"""

from __future__ import annotations

from pathlib import Path

from larrey_protocol.errors import FileError

__all__ = ["file_failed", "require_new"]


def require_new(path: Path) -> None:
    """Return if ``path`` can be made: its folder is there and nothing has its name.

    Raises:
        FileError: ``file-exists`` or ``missing-folder``.
    """
    if path.exists() or path.is_symlink():
        raise FileError("file-exists", f"{path} exists already", "Choose another --out.")
    if not path.parent.is_dir():
        text = f"expected a folder at {path.parent}, found none"
        raise FileError(
            "missing-folder", text, f"Make it, or choose another place for {path.name}."
        )


def file_failed(error: OSError) -> FileError:
    """Return what the operating system said, for a person: ``file-failed``."""
    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{error.strerror or type(error).__name__}"
    return FileError("file-failed", text, "Check the path, its permissions and the free space.")
