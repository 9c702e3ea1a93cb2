"""Confine this process as the extract process does, and try where it can still get to.

Arguments: the port of a listener that plays the database, another port, a file that must be closed.
Prints for each try its errno, 0 where it succeeded.
"""

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from larrey_client.extract.__main__ import _confine
from larrey_client.extract.relay import Target
from larrey_client.extract.wish import Wish


def error_of(work: Callable[[], object]) -> int:
    try:
        work()
    except OSError as error:
        return error.errno or -1
    return 0


def main(database: int, other: int, closed: str) -> None:
    outside = Target("127.0.0.1", database).connect()
    wish = Wish("", 1, 1, 1, memory_bytes=0, hidden=(closed,))
    relay, isolation = _confine(wish, (), outside)
    relay.start()
    with socket.create_connection(("127.0.0.1", relay.port), 5) as client:
        client.sendall(b"through")
        echoed = client.recv(64)
    told = {
        "echoed": echoed.decode(),
        "missing": isolation.missing,
        "database": error_of(lambda: socket.create_connection(("127.0.0.1", database), 1)),
        "other": error_of(lambda: socket.create_connection(("127.0.0.1", other), 1)),
        "outside": error_of(lambda: socket.create_connection(("203.0.113.9", 443), 1)),
        "udp": error_of(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "unix": error_of(lambda: socket.socket(socket.AF_UNIX)),
        "closed": error_of(lambda: Path(closed).read_bytes()),
        "write": error_of(lambda: Path(closed).with_name("new").write_bytes(b"x")),
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
