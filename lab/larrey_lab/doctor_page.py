"""The page of `larrey-site doctor` and `larrey doctor`, from the tables that they run by."""

from __future__ import annotations

from itertools import groupby

from larrey_client.doctor import CHECKS as SITE
from larrey_protocol.checkup import VERSION, Check, table
from larrey_server.doctor import CHECKS as COORDINATOR

__all__ = ["PAGE", "doctor_page"]

PAGE = "doctor.md"
_GROUPS = {
    "network": "The way to the coordinator",
    "certificates": "Certificates, keys and clock",
    "machine": "The machine",
    "state": "The state folder",
    "records": "Ledger, trail, witness and node",
    "data": "The rows",
    "identity": "Certificates and keys",
    "port": "The port that hospitals reach",
    "journal": "The journal",
    "spool": "The spool",
}
_HEAD = f"""\
# The doctor

Generated from the code by `python -m larrey_lab.reference`.

`larrey-site doctor` looks at a hospital's node, `larrey doctor` at the coordinator, each on its own
machine, whether it runs or not. Both change nothing and end within 30 s: they open the rows and
never read them, write one file without a name into the state folder, and ask for a TLS handshake.

```text
larrey-site doctor --config site.toml
larrey-site doctor --lang fr --report doctor.txt --config site.toml
larrey doctor --config coordinator.toml
```

What failed comes first, then warnings, each with one next step. `--report FILE` writes the same to
a new file to mail: it has no secret, no row, and no path that the settings do not name. `--json`
has the keys `version` ({VERSION}), `is_ready`, `counts` and `checks`, each check with `code`,
`group`, `status` (`ok`, `warning`, `failed`, `skipped`), and `title`, `detail` and `remedy` in both
languages.

| exit status | meaning |
|---|---|
| 0 | nothing failed; there may be warnings |
| 1 | something failed, or could not be examined in time |
| 2 | it could not begin: the settings file, or the report's place |

A node and a coordinator that start write what the quick checks find to their log, as
`doctor=CODE`: certificates, keys, disk, and at a site the rows.

*Level* is what a finding counts as. The last column is the fault that the check's test makes.
"""


def doctor_page() -> str:
    """Return the page."""
    lines = [_HEAD, f"## At the site: {len(SITE)} checks", *_tables(SITE)]
    lines += ["", f"## At the coordinator: {len(COORDINATOR)} checks", *_tables(COORDINATOR)]
    return "\n".join(lines) + "\n"


def _tables(checks: tuple[Check, ...]) -> list[str]:
    lines = []
    for group, found in groupby(checks, key=lambda check: check.group):
        lines += ["", f"### {_GROUPS[group]}", "", *table(found)]
    return lines
