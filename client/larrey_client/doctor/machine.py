"""Memory, device, processors, the trainer's barriers and the installed engine."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

from larrey_client.confinement.process import memory_limit
from larrey_client.settings import SiteSettings
from larrey_protocol.checkup import Check, Outcome, Skip, Text
from larrey_protocol.checkup_probes import engine_versions

__all__ = ["CHECKS", "Facts", "cgroup_driver", "look"]

_GIB = 1 << 30
_LEAST_MEMORY = 1 << 30  # bytes: torch alone takes half of it
_LEAST_SHARED = 1 << 30  # bytes; containers have 64 MiB unless asked
_LEAST_FILES = 256  # descriptors: connections, databases, model files
_TRY_S = 20.0  # torch's import and a driver that wakes up
_TRY_DEVICE = (
    "import sys, torch; from larrey_client.device import require_device as r;"
    "print(torch.version.cuda or ''); sys.stdout.flush(); r(sys.argv[1])"
)
_TRY_BARRIERS = (
    "import json; from larrey_client.confinement.process import Plan, confine;"
    "print(json.dumps(confine(Plan(memory_bytes=1 << 32)).missing))"
)
# Least driver by CUDA's major version: NVIDIA, CUDA Compatibility, "minor version compatibility".
_LEAST_DRIVER = {"11": 450, "12": 525, "13": 580}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured.

    Attributes:
        memory_bytes: that the trainer may use.
        shared_bytes: size of /dev/shm, None where there is none.
        has_apps: standard Flower apps may run here; they may load data by worker processes.
        threads: that the trainer is to use.
        processors: that this process may use.
        files: how many it may open.
        device: of the trainer.
        device_answers: None where it was not tried.
        cuda: version that torch was built for; "" where not known.
        driver: version of the NVIDIA driver; "" where there is none.
        cgroup: "systemd", "cgroupfs", "" outside a container, "unknown" where it does not show.
        barriers: those that do not stand around the trainer; None where it was not tried.
        engine: the installed version of flwr; "" where there is none.
        engine_wanted: the version that this release is made for.
    """

    memory_bytes: int = 8 * _GIB
    shared_bytes: int | None = 8 * _GIB
    has_apps: bool = False
    threads: int = 1
    processors: int = 4
    files: int = 1024
    device: str = "cpu"
    device_answers: bool | None = None
    cuda: str = ""
    driver: str = ""
    cgroup: str = ""
    barriers: tuple[str, ...] | None = ()
    engine: str = ""
    engine_wanted: str = ""


def look(settings: SiteSettings) -> Facts:
    """Measure; the device and the barriers are tried in processes of their own."""
    trainer = settings.trainer
    with ThreadPool(2) as pool:
        device = pool.apply_async(_device, (trainer.device,))
        barriers = pool.apply_async(_barriers)
        (answers, cuda), missing = device.get(), barriers.get()
    engine, wanted = engine_versions()
    return Facts(
        memory_bytes=memory_limit(trainer.memory_mb),
        shared_bytes=_size("/dev/shm"),  # noqa: S108  measured, not used
        has_apps=bool(settings.policy.apps),
        threads=trainer.threads,
        processors=len(os.sched_getaffinity(0)),
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        device=trainer.device,
        device_answers=answers,
        cuda=cuda,
        driver=_driver(),
        cgroup=_cgroup(),
        barriers=missing,
        engine=engine,
        engine_wanted=wanted,
    )


def cgroup_driver(cgroup: str, *, is_container: bool) -> str:
    """Return who made this process's cgroup, from ``/proc/self/cgroup``.

    systemd names a container's group ``….scope``, the cgroupfs driver by its bare id. A container
    with a cgroup namespace of its own sees neither: "unknown". Version 1 loses no devices: "".
    """
    path = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::")), "")
    if not is_container or not path:
        return ""
    if path == "/":
        return "unknown"
    return "systemd" if ".scope" in path or ".slice" in path else "cgroupfs"


def _size(folder: str) -> int | None:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return None
    return facts.f_blocks * facts.f_frsize


def _tried(code: str, *arguments: str) -> tuple[bool, str]:
    """Return whether a piece of code ran to its end in a process of its own, and its first line."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TRY_S)
    except (OSError, subprocess.TimeoutExpired):
        return False, ""
    return ended.returncode == 0, ended.stdout.partition("\n")[0]


def _device(device: str) -> tuple[bool | None, str]:
    return (None, "") if device == "cpu" else _tried(_TRY_DEVICE, device)


def _barriers() -> tuple[str, ...] | None:
    done, line = _tried(_TRY_BARRIERS)
    with suppress(ValueError):
        return tuple(json.loads(line)) if done else None
    return None


def _driver() -> str:
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text)
        return found[1] if found else ""
    return ""


def _cgroup() -> str:
    with suppress(OSError):
        text = Path("/proc/self/cgroup").read_text(encoding="utf-8")
        marks = ("/.dockerenv", "/run/.containerenv")
        is_container = any(Path(mark).exists() for mark in marks)
        is_container |= bool({"container", "KUBERNETES_SERVICE_HOST"} & os.environ.keys())
        return cgroup_driver(text, is_container=is_container)
    return ""


def _memory(facts: Facts) -> Outcome:
    if facts.memory_bytes >= _LEAST_MEMORY:
        return None
    size = facts.memory_bytes >> 20
    return Text(f"the trainer may use {size} MiB", f"l'entraînement dispose de {size} Mio")


def _shared(facts: Facts) -> Outcome:
    if not facts.has_apps:
        return Skip(Text("no standard app is listed", "aucune application standard listée"))
    if facts.shared_bytes is not None and facts.shared_bytes >= _LEAST_SHARED:
        return None
    size = (facts.shared_bytes or 0) >> 20
    return Text(f"it has {size} MiB (/dev/shm)", f"elle a {size} Mio (/dev/shm)")


def _threads(facts: Facts) -> Outcome:
    if facts.threads <= facts.processors:
        return None
    return Text(
        f"trainer.threads = {facts.threads}, and {facts.processors} processors may be used",
        f"trainer.threads = {facts.threads} pour {facts.processors} processeurs utilisables",
    )


def _files(facts: Facts) -> Outcome:
    if facts.files >= _LEAST_FILES or facts.files < 0:
        return None
    return Text(f"{facts.files} may be open", f"{facts.files} au plus")


_NO_GPU = Skip(Text("trainer.device is cpu", "trainer.device vaut cpu"))


def _lost(facts: Facts) -> Outcome:
    if facts.device_answers is None:
        return _NO_GPU
    return None if facts.device_answers else Text(facts.device, facts.device)


def _old_driver(facts: Facts) -> Outcome:
    if facts.device == "cpu":
        return _NO_GPU
    least = _LEAST_DRIVER.get(facts.cuda.partition(".")[0])
    if least is None or not facts.driver:
        return Skip(Text("driver or CUDA version not known", "version de pilote ou CUDA inconnue"))
    if int(facts.driver.partition(".")[0]) >= least:
        return None
    return Text(
        f"driver {facts.driver}; CUDA {facts.cuda} of torch needs {least} or newer",
        f"pilote {facts.driver} ; CUDA {facts.cuda} de torch exige {least} ou plus récent",
    )


def _vanishing(facts: Facts) -> Outcome:
    if facts.device == "cpu":
        return _NO_GPU
    if facts.cgroup not in {"systemd", "unknown"}:
        return None
    return Text(f"cgroup driver: {facts.cgroup}", f"pilote de cgroup : {facts.cgroup}")


def _isolation(facts: Facts) -> Outcome:
    if facts.barriers is None:
        return Text("no process could be confined", "aucun processus n'a pu être confiné")
    names = ", ".join(facts.barriers)
    return Text(names, names) if names else None


def _engine(facts: Facts) -> Outcome:
    if not facts.engine_wanted:
        return Skip(Text("this release names none", "cette version n'en nomme aucune"))
    if facts.engine == facts.engine_wanted:
        return None
    found = facts.engine or "-"
    return Text(
        f"flwr {found}, made for {facts.engine_wanted}",
        f"flwr {found}, prévu : {facts.engine_wanted}",
    )


CHECKS: tuple[Check, ...] = (
    Check(
        "memory-small", "machine", "warning",
        Text("the trainer has 1 GiB of memory", "l'entraînement dispose de 1 Gio de mémoire"),
        Text("Give the container or trainer.memory_mb 2 GiB or more.",
             "Donnez 2 Gio ou plus au conteneur ou à trainer.memory_mb."),
        "the size, given to the rule: a container's limit needs its runtime",
        _memory,
    ),
    Check(
        "shared-memory-small", "machine", "warning",
        Text("shared memory suffices for the listed apps",
             "la mémoire partagée suffit aux applications listées"),
        Text("Start the container with --shm-size=1g (Kubernetes: an emptyDir of medium Memory),"
             " or let the app load without workers (num_workers=0).",
             "Lancez le conteneur avec --shm-size=1g (Kubernetes : emptyDir de type Memory), ou"
             " chargez sans processus auxiliaires (num_workers=0)."),
        "a tmpfs of 64 MiB over /dev/shm, in a mount namespace",
        _shared,
    ),
    Check(
        "threads-many", "machine", "warning",
        Text("every training thread has a processor",
             "chaque fil d'entraînement a son processeur"),
        Text("Lower trainer.threads, or give the node more processors.",
             "Réduisez trainer.threads, ou donnez plus de processeurs au nœud."),
        "more threads in site.toml than there are processors",
        _threads,
    ),
    Check(
        "files-few", "machine", "warning",
        Text(f"{_LEAST_FILES} files may be open at once",
             f"{_LEAST_FILES} fichiers peuvent être ouverts"),
        Text("Raise the limit of open files (LimitNOFILE=, ulimit -n).",
             "Relevez la limite de fichiers ouverts (LimitNOFILE=, ulimit -n)."),
        "a limit of 128 open files on the process",
        _files,
    ),
    Check(
        "device-lost", "machine", "failed",
        Text("the training's device answers", "le périphérique d'entraînement répond"),
        Text('Look at nvidia-smi here; trainer.device = "cpu" needs none.',
             "Consultez nvidia-smi ici ; trainer.device = \"cpu\" n'en a pas besoin."),
        "trainer.device = cuda:63 in site.toml, on a machine without it",
        _lost,
    ),
    Check(
        "driver-too-old", "machine", "failed",
        Text("the GPU's driver suits torch", "le pilote du GPU convient à torch"),
        Text("Update the driver on the host.", "Mettez à jour le pilote sur l'hôte."),
        "an old driver's version, given to the rule: it needs the hardware",
        _old_driver,
    ),
    Check(
        "device-may-vanish", "machine", "warning",
        Text("the container keeps its GPU", "le conteneur garde son GPU"),
        Text("Give the GPU by CDI (nvidia-ctk cdi generate) or use the cgroupfs driver: after"
             " systemctl daemon-reload on the host the container can lose it.",
             "Donnez le GPU par CDI (nvidia-ctk cdi generate) ou prenez le pilote cgroupfs : après"
             " systemctl daemon-reload sur l'hôte, le conteneur peut le perdre."),
        "the cgroup's name, given to the rule: it needs a container's runtime",
        _vanishing,
    ),
    Check(
        "isolation-missing", "machine", "warning",
        Text("every barrier around the trainer stands",
             "toutes les barrières autour de l'entraînement tiennent"),
        Text("Use a kernel of 6.12 or newer with user namespaces and Landlock; see status.",
             "Utilisez un noyau 6.12 ou plus récent, avec espaces de noms et Landlock."),
        "a kernel that refuses namespaces and Landlock, by a filter of system calls",
        _isolation,
    ),
    Check(
        "engine-differs", "machine", "failed",
        Text("the installed flwr is the one this release needs",
             "le flwr installé est celui de cette version"),
        Text("Install this release again with its lock file.",
             "Réinstallez cette version avec son fichier de verrouillage."),
        "another version of flwr first on the path of packages",
        _engine,
    ),
)  # fmt: skip
