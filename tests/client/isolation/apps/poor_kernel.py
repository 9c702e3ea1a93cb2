"""Work under a kernel without namespaces and Landlock.

Start a trainer and print what it says is missing; with arguments, run `larrey-site` with them.
"""

import ctypes
import json
import platform
import sys

from larrey_client.cli import main
from larrey_client.confinement import seccomp
from larrey_client.confinement.kernel import no_more_privileges, prctl
from larrey_client.trainer_link import TrainerLink

_UNSHARE, _LANDLOCK_CREATE = {"x86_64": 272, "aarch64": 97}, 444


def refuse_calls() -> None:
    """Let this process and its children have these two calls refused."""
    audit, *_ = seccomp._CALLS[platform.machine()]
    unshare = _UNSHARE[platform.machine()]
    lines = [
        seccomp._Instruction(seccomp._LOAD, 0, 0, seccomp._ARCHITECTURE),
        seccomp._Instruction(seccomp._EQUAL, 1, 0, audit),
        seccomp._Instruction(seccomp._RETURN, 0, 0, seccomp._KILL),
        seccomp._Instruction(seccomp._LOAD, 0, 0, seccomp._NUMBER),
        seccomp._Instruction(seccomp._EQUAL, 2, 0, unshare),
        seccomp._Instruction(seccomp._EQUAL, 1, 0, _LANDLOCK_CREATE),
        seccomp._Instruction(seccomp._RETURN, 0, 0, seccomp._ALLOW),
        seccomp._Instruction(seccomp._RETURN, 0, 0, seccomp._DENY),
    ]
    program = seccomp._Program(len(lines), (seccomp._Instruction * len(lines))(*lines))
    no_more_privileges()
    assert prctl(22, 2, ctypes.byref(program)) == 0


if __name__ == "__main__":
    refuse_calls()
    if len(sys.argv) > 1:
        sys.exit(main(sys.argv[1:]))
    link = TrainerLink.start(warm=False)
    link._process.greeted.wait(60)
    json.dump(link.isolation.missing, sys.stdout)
    link.stop()
