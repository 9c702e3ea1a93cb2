"""Every way in which Larrey refuses or fails, with a stable code.

One tree; raise the most exact class. The *code* never changes once released and is the only part
that may cross a hospital's border. The *message* (what was expected, what was found, where) and the
*next step* stay on the side where the error arose.

    LarreyError
    ├── UsageError        the person at the keyboard can correct the input
    │   ├── FileError     a file is missing, unreadable or not what its schema says
    │   └── PortBusy      the address is taken
    ├── Refusal           a rule says no; nothing was spent
    ├── DataError         a cohort does not meet its contract; stays at the site
    ├── IntegrityError    something signed, hashed or chained does not verify
    └── TransportError    the other side cannot be reached or answered out of protocol
"""

from __future__ import annotations

import re

__all__ = [
    "DataError",
    "FileError",
    "IntegrityError",
    "LarreyError",
    "PortBusy",
    "Refusal",
    "TransportError",
    "UsageError",
]

_CODE = re.compile(r"^[a-z][a-z0-9-]{2,47}$")


class LarreyError(Exception):
    """A failure that a person can act on.

    Attributes:
        code: stable, lower case with hyphens, 3 to 48 characters; safe to send to the other side.
        message: one sentence with what was expected, what was found and where.
        next_step: what to do now; may be empty only where nothing can be done.
    """

    exit_status = 1

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        if not _CODE.fullmatch(code):
            raise ValueError(f"error code {code!r} is not lower-case-with-hyphens")
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        """Return the text a person reads: message, code, next step."""
        tail = f" {self.next_step}" if self.next_step else ""
        return f"{self.message} [{self.code}]{tail}"


class UsageError(LarreyError):
    """The command or its input is wrong; exit status 2."""

    exit_status = 2


class FileError(UsageError):
    """A file is missing, empty, unreadable or does not follow its schema."""


class PortBusy(UsageError):
    """Another process already listens on the address."""


class Refusal(LarreyError):
    """A rule says no before anything was spent or sent."""


class DataError(LarreyError):
    """A cohort does not meet its contract; the message stays at the site."""


class IntegrityError(LarreyError):
    """A signature, digest or chain does not verify."""


class TransportError(LarreyError):
    """The other side is unreachable or answered outside the protocol."""
