"""The site's own file: who we are, whom we trust, which data we hold and what we allow.

Read once at start and passed down. Relative paths count from the file's folder. ``[policy]`` and
each dataset's budget change what is protected; every other field changes only how fast or where.
An unknown key is an error that names the nearest valid one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from larrey_client.sources_settings import FileSource, Source, place_of, rooted
from larrey_client.windows import WINDOW, Windows, make_windows
from larrey_client.witness_settings import Witness
from larrey_protocol.canonical import DIGEST
from larrey_protocol.errors import FileError, UsageError
from larrey_protocol.keys import PublicKey
from larrey_protocol.people import Person
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record, load_toml

__all__ = [
    "FIRST",
    "AppRule",
    "Dataset",
    "Member",
    "Policy",
    "SiteSettings",
    "load_settings",
]

FIRST = "first"  # name of the membership in [coordinator] and [consortium]
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+:\d{1,5}$")]
Window = Annotated[str, Field(pattern=WINDOW)]


class Site(Record):
    """The node itself."""

    name: SiteName
    state: Path = Path("state")  # ledger, audit trail, approvals; back it up
    metrics: Address | Annotated[str, Field(pattern="^$")] = (
        "127.0.0.1:9465"  # "" = off; loopback unless asked
    )


class Coordinator(Record):
    """Where a membership's node asks for work."""

    address: Address
    authority: Path  # PEM of the certificate authority that signed the coordinator's certificate


class Identity(Record):
    """The node's secrets; every key file must be closed to others."""

    certificate: Path
    key: Path
    signing_key: Path  # Ed25519; signs answers and receipts


class Consortium(Record):
    """The root of trust, compared by phone."""

    key: PublicKey


class Pair(Record):
    """The certificate for one more coordinator, and its key."""

    certificate: Path
    key: Path


class Membership(Record):
    """One more coordinator, with a consortium of its own; ledger and signing key are the site's."""

    name: SiteName
    coordinator: Coordinator
    identity: Pair
    consortium: Consortium


@dataclass(frozen=True, slots=True)
class Member:
    """One membership, the first one too, as the node uses it; the signing key is the same in all.

    ``scope`` is its name in the state: empty for the first one, else the pinned consortium key.
    """

    site: str
    name: str
    scope: str
    coordinator: Coordinator
    identity: Identity
    consortium: Consortium


class Trainer(Record):
    """Speed, patience and limits of the trainer process; no promise about privacy depends on it."""

    threads: int = Field(1, ge=1, le=1024)
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    timeout_s: float = Field(3600.0, gt=0)  # one round at most
    memory_mb: int | None = Field(None, ge=1024)  # None: what the machine has less 1 GiB
    readable: tuple[Path, ...] = ()  # what a listed standard app needs to read beside the rows
    windows: tuple[Window, ...] = Field((), max_length=50)  # when training may begin; () = always
    timezone: str = Field("", max_length=60)  # of the windows, IANA name; "" = the machine's

    @model_validator(mode="after")
    def _real_hours(self) -> Trainer:
        make_windows(self.windows, self.timezone)
        return self

    @property
    def hours(self) -> Windows:
        """Return when training may begin."""
        return make_windows(self.windows, self.timezone)


class Dataset(Record):
    """A cohort on disk and its budget for all studies ever; fixed when it is first registered.

    Epsilon and delta hold per patient at this site, add/remove neighbours. ``unit`` names the
    column that says who a row belongs to; without it, the first approved study decides.
    """

    name: SiteName
    path: Path | None = None  # short for source = {kind = "file", path = …}
    source: Source | None = None
    unit: str | None = Field(None, min_length=1, max_length=61)
    epsilon: float = Field(8.0, gt=0, le=100)
    delta: float = Field(1e-5, gt=0, lt=0.01)

    @model_validator(mode="after")
    def _one_source(self) -> Dataset:
        if (self.path is None) == (self.source is None):
            raise ValueError(f"dataset '{self.name}' needs either path or source")
        return self

    @property
    def origin(self) -> Source:
        """Return where the rows come from."""
        if self.source is not None:
            return self.source
        return FileSource(kind="file", path=self.path or Path())


class AppRule(Record):
    """A standard Flower app that may run here although no epsilon describes it."""

    name: str = Field(min_length=1, max_length=64)
    module: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    digest: str = Field(pattern=DIGEST.pattern)  # of the module's source file
    unaccounted: bool = False  # must be written as true; never by default
    metrics: bool = False  # may its evaluate and query tell the scalars that a study names


class Policy(Record):
    """What this hospital allows, whatever the coordinator or a study asks.

    Counts only as its people signed it: see `larrey_client.charter`.
    """

    approvals: tuple[Literal["it", "dpo"], ...] = Field(("dpo",), min_length=1)  # who must sign
    min_noise_multiplier: float = Field(0.5, ge=0)
    max_epsilon_per_study: float = Field(3.0, gt=0)
    max_delta: float = Field(1e-4, gt=0, lt=1)
    allow_without_dp: tuple[SiteName, ...] = ()  # datasets on which epsilon may go unstated
    min_units: int = Field(20, ge=1)  # fewer patients than this and nothing runs
    small_cell: int = Field(11, ge=1, le=1000)  # smallest count that may leave, or the permit's
    completion_bucket_s: float = Field(5.0, ge=0, le=3600)  # answers wait for a multiple; 0 = off
    egress_days: float = Field(90, ge=0, le=3660)  # how long copies of what left are kept
    close_after_days: float = Field(30, ge=0, le=3660)  # of a study that ended: then it is deleted
    access_log_months: int = Field(12, ge=6, le=36)
    apps: tuple[AppRule, ...] = ()
    witness_optional: bool = False  # may the node start while its witness file cannot be asked

    @model_validator(mode="after")
    def _approvers(self) -> Policy:
        if len(set(self.approvals)) < len(self.approvals):
            raise ValueError("approvals lists 'it', 'dpo' or both, each once")
        return self


class SiteSettings(Record):
    """The content of ``site.toml``."""

    site: Site
    coordinator: Coordinator
    identity: Identity
    consortium: Consortium
    memberships: tuple[Membership, ...] = Field((), max_length=16)  # beside the one above
    trainer: Trainer = Trainer()
    witness: Witness = Witness()
    datasets: tuple[Dataset, ...] = Field((), max_length=1000)  # without one nothing can run
    policy: Policy = Policy()
    people: tuple[Person, ...] = ()  # who decides here: larrey-site person new

    @model_validator(mode="after")
    def _own_people(self) -> SiteSettings:
        for values in ([p.name for p in self.people], [p.key for p in self.people]):
            if len(set(values)) < len(values):
                raise ValueError("a person's name or key is listed twice")
        foreign = [p.role for p in self.people if p.role not in {"it", "dpo", "auditor"}]
        if foreign:
            raise ValueError(f"a person of a site is it, dpo or auditor, not {foreign[0]}")
        return self

    @model_validator(mode="after")
    def _own_consortia(self) -> SiteSettings:
        members = self.members
        if len({one.name for one in members}) < len(members):
            raise ValueError(f"a membership's name is listed twice; '{FIRST}' is [coordinator]'s")
        if len({one.consortium.key for one in members}) < len(members):
            raise ValueError("two memberships have the same consortium key")
        if len({one.identity.key for one in members}) < len(members):
            raise ValueError("two memberships have the same identity.key")
        return self

    @property
    def members(self) -> tuple[Member, ...]:
        """Return every membership, the first one first."""
        signing_key = self.identity.signing_key
        first = Member(self.site.name, FIRST, "", self.coordinator, self.identity, self.consortium)
        more = (
            Member(
                site=self.site.name,
                name=one.name,
                scope=one.consortium.key,
                coordinator=one.coordinator,
                identity=Identity(
                    certificate=one.identity.certificate,
                    key=one.identity.key,
                    signing_key=signing_key,
                ),
                consortium=one.consortium,
            )
            for one in self.memberships
        )
        return (first, *more)

    def member(self, name: str) -> Member:
        """Return a membership by its name; an empty one means the only one there is.

        Raises:
            UsageError: ``membership-unknown`` or ``membership-required``.
        """
        names = ", ".join(one.name for one in self.members)
        if not name and len(self.members) > 1:
            raise UsageError(
                "membership-required", f"this site has {names}", "Add: --membership NAME"
            )
        found = [one for one in self.members if name in {"", one.name}]
        if not found:
            raise UsageError(
                "membership-unknown", f"no membership '{name}' here", f"There is: {names}."
            )
        return found[0]

    def member_name(self, scope: str) -> str:
        """Return the name of the membership with that scope; empty where there is none any more."""
        return next((one.name for one in self.members if one.scope == scope), "")

    @model_validator(mode="after")
    def _distinct(self) -> SiteSettings:
        names = [dataset.name for dataset in self.datasets]
        if len(set(names)) < len(names):
            raise ValueError("a dataset is listed twice")
        unknown = sorted(set(self.policy.allow_without_dp) - set(names))
        if unknown:
            raise ValueError(f"allow_without_dp names '{unknown[0]}', which is no dataset here")
        return self

    def dataset(self, name: str) -> Dataset | None:
        """Return one dataset, None where this site has none of that name."""
        return next((dataset for dataset in self.datasets if dataset.name == name), None)

    def app(self, name: str) -> AppRule | None:
        """Return the policy's entry for a standard Flower app, or None."""
        return next((app for app in self.policy.apps if app.name == name), None)


def load_settings(path: Path) -> SiteSettings:
    """Return the settings in ``path`` with every path made absolute.

    Raises:
        FileError: as `larrey_protocol.tomlfile.load_toml`; ``data-shared`` when two datasets, each
            with a budget of its own, are one file.
    """
    settings = load_toml(path, SiteSettings)
    folder = path.resolve().parent
    places = [place_of(rooted(dataset.origin, folder)) for dataset in settings.datasets]
    _require_own_files(places, path)
    identity = settings.identity
    return settings.model_copy(
        update={
            "site": settings.site.model_copy(update={"state": folder / settings.site.state}),
            "coordinator": _rooted(settings.coordinator, folder),
            "memberships": tuple(
                one.model_copy(
                    update={
                        "coordinator": _rooted(one.coordinator, folder),
                        "identity": Pair(
                            certificate=folder / one.identity.certificate,
                            key=folder / one.identity.key,
                        ),
                    }
                )
                for one in settings.memberships
            ),
            "identity": Identity(
                certificate=folder / identity.certificate,
                key=folder / identity.key,
                signing_key=folder / identity.signing_key,
            ),
            "trainer": settings.trainer.model_copy(
                update={"readable": tuple(folder / place for place in settings.trainer.readable)}
            ),
            "witness": settings.witness.rooted(folder),
            "datasets": tuple(
                dataset.model_copy(
                    update={
                        "path": folder / dataset.path if dataset.path else None,
                        "source": rooted(dataset.source, folder) if dataset.source else None,
                    }
                )
                for dataset in settings.datasets
            ),
        }
    )


def _rooted(coordinator: Coordinator, folder: Path) -> Coordinator:
    return coordinator.model_copy(update={"authority": folder / coordinator.authority})


def _require_own_files(paths: Sequence[Path], where: Path) -> None:
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise FileError(
            "data-shared",
            f"{where}: two datasets are the same file, whose patients would have two budgets",
            "Keep one [[datasets]] entry a file.",
        )
