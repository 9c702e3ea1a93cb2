"""The state folder: writable, large, quick, closed and on a disk of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from larrey_client.settings import SiteSettings
from larrey_client.sources_settings import ImageSource
from larrey_protocol.checkup import Check, Outcome, Skip, Text
from larrey_protocol.checkup_probes import file_system, flush_time, nearest
from larrey_protocol.checkup_rules import remote, slow_flush

__all__ = ["CHECKS", "Facts", "look"]

_LEAST_FREE = 1 << 30  # bytes: a model, its update, the ledger and the trail
_LEAST_FILES = 1000
_SLOW_S = 0.25  # of one flush; a site and round has three


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured.

    Attributes:
        path: of the state folder, as ``site.toml`` has it.
        trouble: what the system says to a write; "" if it succeeds.
        is_readonly: its volume is mounted read-only.
        free_bytes: on its volume.
        free_files: that can be made there; None where the file system does not count.
        is_open: others may read or enter it.
        kind: of its file system, as /proc/self/mountinfo names it.
        flush_s: the median of five flushes; None where none succeeded.
        data_root: the folder of data that holds it, as setting and path; "" for none.
        writable: a folder on this machine that takes writes; "" for none.
    """

    path: str
    trouble: str = ""
    is_readonly: bool = False
    free_bytes: int = 8 << 30
    free_files: int | None = None
    is_open: bool = False
    kind: str = "ext4"
    flush_s: float | None = 0.001
    data_root: str = ""
    writable: str = ""


def look(settings: SiteSettings) -> Facts:
    """Measure; a folder that is not there yet is judged by the nearest one above."""
    folder = settings.site.state
    there = nearest(folder)
    facts = os.statvfs(there)
    trouble, flush = flush_time(there)
    root = next((one for one in _roots(settings) if folder.is_relative_to(one[1])), None)
    return Facts(
        path=str(folder),
        trouble=trouble,
        is_readonly=bool(facts.f_flag & os.ST_RDONLY),
        free_bytes=facts.f_bavail * facts.f_frsize,
        free_files=facts.f_favail if facts.f_files else None,
        is_open=there == folder and bool(stat.S_IMODE(folder.stat().st_mode) & 0o077),
        kind=file_system(there.resolve()),
        flush_s=flush,
        data_root=f"{root[0]} = {root[1]}" if root else "",
        writable=next(_writable(), ""),
    )


def _roots(settings: SiteSettings) -> Iterator[tuple[str, Path]]:
    for dataset in settings.datasets:
        if isinstance(dataset.origin, ImageSource):
            yield f"datasets.{dataset.name}.source.root", dataset.origin.root


def _writable() -> Iterator[str]:
    for folder in (Path("/var/lib/larrey"), Path("/var/lib"), Path.home(), Path.cwd()):
        if folder.is_dir() and os.access(folder, os.W_OK):
            yield str(folder / "larrey-site" if folder.name != "larrey" else folder)


def _read_only(facts: Facts) -> Outcome:
    if not facts.is_readonly:
        return None
    en, fr = f"site.state: {facts.path}", f"site.state : {facts.path}"
    if not facts.writable:
        return Text(en, fr)
    return Text(f"{en}; a folder on a writable volume here: {facts.writable}",
                f"{fr} ; un dossier inscriptible ici : {facts.writable}")  # fmt: skip


def _not_writable(facts: Facts) -> Outcome:
    if facts.is_readonly or not facts.trouble:
        return None
    return Text(f"site.state: {facts.path}: {facts.trouble}",
                f"site.state : {facts.path} : {facts.trouble}")  # fmt: skip


def _nearly_full(facts: Facts) -> Outcome:
    free = facts.free_bytes >> 20
    if facts.free_bytes >= _LEAST_FREE:
        return None
    return Text(f"{free} MiB are free", f"{free} Mio libres")


def _files(facts: Facts) -> Outcome:
    free = facts.free_files
    if free is None:
        return Skip(Text("this file system does not count files",
                         "ce système de fichiers ne compte pas les fichiers"))  # fmt: skip
    if free >= _LEAST_FILES:
        return None
    return Text(f"{free} more files can be made", f"{free} fichiers encore possibles")


def _open(facts: Facts) -> Outcome:
    if not facts.is_open:
        return None
    return Text(f"site.state: {facts.path}", f"site.state : {facts.path}")


def _remote(facts: Facts) -> Outcome:
    return remote(facts.kind)


def _slow(facts: Facts) -> Outcome:
    return slow_flush(facts.flush_s, _SLOW_S)


def _among_data(facts: Facts) -> Outcome:
    return Text(facts.data_root, facts.data_root) if facts.data_root else None


CHECKS: tuple[Check, ...] = (
    Check(
        "state-read-only", "state", "failed",
        Text("the state's volume takes writes", "le volume de l'état accepte les écritures"),
        Text("Mount a writable volume and set site.state to a folder on it.",
             "Montez un volume inscriptible et mettez-y site.state."),
        "a read-only mount over the state folder, in a mount namespace",
        _read_only,
    ),
    Check(
        "state-not-writable", "state", "failed",
        Text("the state folder takes writes", "le dossier d'état accepte les écritures"),
        Text("Free space there, and let the node's account write it.",
             "Libérez de l'espace et donnez au compte du nœud le droit d'y écrire."),
        "a full tmpfs as the state folder, in a mount namespace",
        _not_writable,
    ),
    Check(
        "state-nearly-full", "state", "warning",
        Text("1 GiB is free for models and the ledger", "1 Gio est libre pour modèles et registre"),
        Text("Free some space, or use a larger volume.",
             "Libérez de l'espace, ou prenez un volume plus grand."),
        "a tmpfs of 8 MiB as the state folder, in a mount namespace",
        _nearly_full,
    ),
    Check(
        "state-few-files", "state", "warning",
        Text(f"{_LEAST_FILES} more files can be made", f"{_LEAST_FILES} fichiers sont possibles"),
        Text("Remove small files there, or use a volume with more inodes.",
             "Supprimez de petits fichiers, ou prenez un volume avec plus d'inodes."),
        "a tmpfs of 64 inodes as the state folder, in a mount namespace",
        _files,
    ),
    Check(
        "state-open", "state", "warning",
        Text("the state folder is closed to others", "le dossier d'état est fermé aux autres"),
        Text("chmod 700 the folder.", "chmod 700 sur le dossier."),
        "a state folder of mode 0755",
        _open,
    ),
    Check(
        "state-remote", "state", "failed",
        Text("the state lies on a disk of this machine",
             "l'état est sur un disque de cette machine"),
        Text("Move site.state to a local disk: locks and flushes of a share do not hold.",
             "Déplacez site.state sur un disque local : un partage ne garantit ni verrous ni"
             " écritures."),
        "a mount table with an NFS share, given to the rule: a share needs a server",
        _remote,
    ),
    Check(
        "state-slow", "state", "warning",
        Text(f"a flush takes less than {_SLOW_S * 1000:.0f} ms",
             f"une écriture durable prend moins de {_SLOW_S * 1000:.0f} ms"),
        Text("Use a local disk with power-loss protection.",
             "Prenez un disque local protégé contre les coupures."),
        "a flush time, given to the rule: a slow disk needs hardware",
        _slow,
    ),
    Check(
        "state-among-data", "state", "failed",
        Text("nothing is written among data", "rien n'est écrit parmi les données"),
        Text("Keep site.state outside the folders with data.",
             "Gardez site.state hors des dossiers de données."),
        "a state folder inside a folder of images",
        _among_data,
    ),
)  # fmt: skip
