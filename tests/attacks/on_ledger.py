"""Attacks on what counts: ledger, audit trail, clock and charter, from inside and outside."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable

from larrey_client.store import DATABASE, SiteStore
from larrey_protocol.decisions import Anchor, AnchoredSpend
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import sign
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site

FUTURE = "999:sha256:" + "f" * 64


def anchor(key: SigningKey) -> bytes:
    """Return an anchor of a future that never was."""
    spent = (AnchoredSpend(family="heart", units=10**9),)
    made = Anchor(site="alpha", ledger_head=FUTURE, audit_head=FUTURE, spent=spent, at=9e9)
    return sign(made, key).to_bytes()


def between(site: Site, act: Callable[[], None]) -> str:
    """Do something to the state while no node runs; return the code with which none starts."""
    site.watch()
    site.halt()
    act()
    return site.refused(site.start)


def rewritten(site: Site, *statements: str) -> None:
    """Change the database as whoever owns the machine can: without its triggers."""
    connection = sqlite3.connect(site.settings.site.state / DATABASE)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in names:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@attack("anchor-forged")
def anchor_forged(site: Site) -> str:
    """Only the site's own signature counts, or anybody could stop it for ever."""
    site.peer.anchors.append(anchor(SigningKey.generate()))
    site.tell()
    with site.node.node.store.reading() as records:
        codes = [r.code for r in records.audit() if r.action == "anchor-ignored"]
    return codes[-1]


@attack("anchors-flood")
def anchors_flood(site: Site) -> str:
    site.peer.anchors += [anchor(site.consortium) + b" " * n for n in range(2000)]
    site.tell()
    with site.node.node.store.reading() as records:
        found = [r.code for r in records.audit() if r.action == "anchor-ignored"]
    assert len(found) < 200
    return found[-1]


@attack("ledger-behind-told", alone=True)
def ledger_behind_told(site: Site) -> str:
    """An old copy that no witness gave away, and a coordinator that kept a newer anchor."""
    site.watch()
    site.peer.anchors.append(anchor(site.pki.signing))
    site.tell()
    return site.ask(site.daily)


@attack("trail-behind-told", alone=True)
def trail_behind_told(site: Site) -> str:
    site.watch()
    head = site.node.node.store.ledger_head
    made = Anchor(site="alpha", ledger_head=head, audit_head=FUTURE, at=9e9)
    site.peer.anchors.append(sign(made, site.pki.signing).to_bytes())
    site.tell()
    return site.ask(site.daily)


@attack("backup-restored", alone=True)
def backup_restored(site: Site) -> str:
    """An old copy of the whole state, while the coordinator withholds every head it knows."""
    state = site.settings.site.state
    site.halt()
    shutil.copytree(state, site.folder / "old", ignore=shutil.ignore_patterns("*.sock"))
    site.start()
    assert site.serves() == ""

    def restore() -> None:
        shutil.rmtree(state)
        shutil.copytree(site.folder / "old", state)

    return between(site, restore)


@attack("ledger-cut", alone=True)
def ledger_cut(site: Site) -> str:
    assert site.serves() == ""
    (site.folder / "elsewhere" / "witness").unlink()  # the witness is bribed as well
    cut = "DELETE FROM privacy_ledger WHERE seq = (SELECT max(seq) FROM privacy_ledger)"
    return between(site, lambda: rewritten(site, cut, cut))


@attack("ledger-edited", alone=True)
def ledger_edited(site: Site) -> str:
    assert site.serves() == ""
    drop = "DELETE FROM privacy_ledger WHERE seq = 2"
    return between(site, lambda: rewritten(site, drop))


@attack("family-moved", alone=True)
def family_moved(site: Site) -> str:
    """With another family's budget the same patients' data would be spent on twice."""
    assert site.serves() == ""
    move = "UPDATE families SET family = 'elsewhere'"
    return between(site, lambda: rewritten(site, move))


@attack("trail-edited", alone=True)
def trail_edited(site: Site) -> str:
    edit = "UPDATE audit SET record = CAST(replace(CAST(record AS TEXT), 'dora', 'ines') AS BLOB)"
    return between(site, lambda: rewritten(site, edit))


@attack("second-node", alone=True)
def second_node(site: Site) -> str:
    """Two nodes on one state would spend the budget twice."""
    site.watch()
    return site.refused(lambda: SiteStore.open(site.settings.site.state, time.time).close())


@attack("clock-set-back", alone=True)
def clock_set_back(site: Site) -> str:
    """With yesterday's clock an expired permit would be good again."""
    site.halt()
    store = SiteStore.open(site.settings.site.state, lambda: time.time() + 3600)
    with store.transaction():
        store.audit("status-asked", "alpha")
    store.close()
    site.start()
    site.watch()
    return site.ask(site.daily)


@attack("policy-loosened", alone=True)
def policy_loosened(site: Site) -> str:
    loose = site.settings.policy.model_copy(update={"max_epsilon_per_study": 90.0})
    site.halt()
    site.start(site.settings.model_copy(update={"policy": loose}))
    site.watch()
    return site.ask(site.daily)


@attack("old-policy-restored", alone=True)
def old_policy_restored(site: Site) -> str:
    """A looser policy, signed once, is put back after a stricter one was signed."""
    loose = site.settings
    policy = loose.policy.model_copy(update={"min_noise_multiplier": 2.0})
    site.halt()
    site.start(site.people.sign_charter(loose.model_copy(update={"policy": policy})))
    assert site.serves() == ""
    site.halt()
    site.start(loose)
    site.watch()
    return site.ask(site.daily)


@attack("consortium-key-exchanged", alone=True)
def consortium_key_exchanged(site: Site) -> str:
    other = site.settings.consortium.model_copy(update={"key": SigningKey.generate().public})
    site.halt()
    site.start(site.settings.model_copy(update={"consortium": other}))
    site.watch()
    return site.ask(site.daily)


@attack("approval-removed", alone=True)
def approval_removed(site: Site) -> str:
    """A revocation taken out of the database would bring the approval back."""
    site.halt()
    rewritten(site, "DELETE FROM documents WHERE kind = 'approval' AND number = 2")
    site.start()
    site.watch()
    return site.ask(site.daily)
