"""Run one part of the chaos tests in full: ``python tests/chaos PART [options]``.

Each part is a module here with ``main(arguments) -> int``; its docstring names its options.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

_PARTS = (
    "kills",
    "storm",
    "storm_transfer",
    "storm_crowd",
    "storm_stalled",
    "storm_silence",
    "soak",
    "field",
)


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _main() -> int:
    part, *arguments = sys.argv[1:] or [""]
    if part not in _PARTS:
        sys.stderr.write(f"usage: python tests/chaos {{{','.join(_PARTS)}}} [options]\n")
        return 2
    # Other distributions install a package of this name, too; ours is the folder above.
    tests = sys.modules["tests"] = ModuleType("tests")
    tests.__path__ = [str(Path(__file__).parents[1])]
    # Whoever ends this run ends what it started: by the context managers that did.
    signal.signal(signal.SIGTERM, _end)
    return int(import_module(f"tests.chaos.{part}").main(arguments))


if __name__ == "__main__":
    sys.exit(_main())
