"""The study: what a consortium proposes and a hospital signs.

``study.toml`` with its contract is one document with one digest; nothing else can run under a
site's approval. `larrey_protocol.norms` derives the norm bound from it, `larrey_protocol.models`
the tensors. Whether its epsilon is true is checked where an accountant is at hand.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from larrey_protocol.canonical import digest_of
from larrey_protocol.contract import Contract
from larrey_protocol.errors import FileError
from larrey_protocol.model_file import Entries, Model, tensors_of
from larrey_protocol.tomlfile import Record, load_toml, parse_toml, read_text

__all__ = [
    "Call",
    "DpSgd",
    "NoPrivacy",
    "PermitReference",
    "Purpose",
    "SiteName",
    "Study",
    "StudyFile",
    "load_study",
]

SiteName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,40}$")]
MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
AppName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
TensorPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?-]{1,100}$")]
PartName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{0,60})?$")]  # empty: the strategy's own
Call = Literal["train", "evaluate", "query"]  # a handler of a Flower app; one phase of a round


Purpose = Literal[
    "public-interest",
    "policy-making",
    "statistics",
    "education",
    "scientific-research",
    "improving-care",
]  # the six purposes of Regulation (EU) 2025/327, article 53
# An authority's own number of its decision, e.g. "FR/2026/0042"; names every version of the permit.
PermitReference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{1,60}$")]


class Head(Record):
    """What the study is called, what it is for, and under which permit."""

    name: SiteName
    version: int = Field(1, ge=1, le=10_000)
    parent: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")  # the version that this one amends
    title: str = Field(min_length=3, max_length=200)
    question: str = Field(min_length=3, max_length=2000)
    purpose: Purpose
    permit: PermitReference
    contract: str = "contract.toml"


class Training(Record):
    """How many rounds, and what a site does in each."""

    rounds: int = Field(ge=1, le=10_000)
    spare_rounds: int = Field(2, ge=0, le=100)  # paid for at approval, used after crashes
    strategy: str = Field("fedavg", pattern=r"^[a-z][a-z0-9-]{0,60}$")
    parameters: dict[str, float] = Field(default_factory=dict)  # named as in the paper
    objective: PartName = ""  # of a site's training, in place of the strategy's own
    aggregator: PartName = ""  # how updates become one, in place of the strategy's own
    optimizer: PartName = ""  # the coordinator's step, in place of the strategy's own
    aggregator_parameters: dict[str, float] = Field(default_factory=dict)  # named as in the paper
    # Tensors that stay at each site, by name: * is any text, ? one character.
    local: tuple[TensorPattern, ...] = Field((), max_length=100)
    local_steps: int = Field(1, ge=1, le=10_000)  # H
    learning_rate: float = Field(gt=0, le=1e4)
    momentum: float = Field(0.0, ge=0, lt=1)  # post-processing of noised gradients, reset per round
    # Of updates, after clip and noise: no cost in epsilon. `larrey_protocol.encodings.Encoding`,
    # which needs numpy.
    encoding: Literal["float32", "float16", "int8"] = "float32"
    app: AppName | None = None  # a standard Flower app that the site's policy lists by digest
    calls: tuple[Call, ...] = ("train",)  # handlers of the app, in order, all on the round's model
    metrics: tuple[MetricName, ...] = Field((), max_length=64)  # all that evaluate and query tell

    @model_validator(mode="after")
    def _calls_fit(self) -> Training:
        if self.calls[:1] != ("train",) or len(set(self.calls)) < len(self.calls):
            raise ValueError("calls starts with 'train' and names each handler once")
        if len(self.calls) > 1 and self.app is None:
            raise ValueError("calls beside 'train' need a standard Flower app")
        if (len(self.calls) > 1) != bool(self.metrics):
            raise ValueError("metrics = [...] belongs to the calls evaluate and query alone")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("a metric is listed twice")
        return self

    @property
    def rounds_held(self) -> int:
        """Return the rounds whose privacy cost a site sets aside at approval."""
        return self.rounds + self.spare_rounds


class DpSgd(Record):
    """DP-SGD at each site: unit patient, add/remove neighbours, epsilon by PLD at ``delta``.

    Covers ``rounds + spare_rounds`` rounds of ``local_steps`` Poisson-sampled steps. An encoding of
    the noised update is post-processing and costs nothing.
    """

    mechanism: Literal["dp-sgd"]
    epsilon: float = Field(gt=0, le=100)
    delta: float = Field(gt=0, lt=0.01)
    noise_multiplier: float = Field(gt=0.1, le=1e4)  # sigma; tiny values break accountants
    clip: float = Field(gt=0, le=1e6)  # C, L2 norm of one patient's gradient
    sampling_rate: float = Field(gt=0, le=1)  # q


class NoPrivacy(Record):
    """No differential privacy; refused unless a dataset's policy allows it in writing."""

    mechanism: Literal["none"]
    sampling_rate: float = Field(1.0, gt=0, le=1)
    max_update_norm: float = Field(1e3, gt=0)  # what the border accepts, as no noise bounds it


class Rounds(Record):
    """Operational limits of a round.

    Every site has a deadline of its own: ``patience`` times what it usually takes. ``deadline_s``
    is the most that a round may take, and what a site without a history gets.
    """

    quorum: int = Field(ge=1)
    required: tuple[SiteName, ...] = Field((), max_length=1000)  # no round is applied without them
    patience: float = Field(3.0, ge=1, le=100)
    deadline_s: float = Field(600.0, gt=0, le=7 * 86400)


class StudySite(Record):
    """An invited site and a public, rounded-down bound of its cohort."""

    name: SiteName
    patients: int = Field(ge=1, le=10**9)


class StudyFile(Record):
    """The content of ``study.toml``."""

    study: Head
    model: Model
    training: Training
    privacy: Annotated[DpSgd | NoPrivacy, Field(discriminator="mechanism")]
    rounds: Rounds
    sites: tuple[StudySite, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _consistent(self) -> StudyFile:
        names = self.site_names
        if len(set(names)) < len(names):
            raise ValueError("a site is listed twice")
        if self.rounds.quorum > len(names):
            raise ValueError(f"quorum {self.rounds.quorum} is more than the {len(names)} sites")
        unknown = [site for site in self.rounds.required if site not in names]
        if unknown:
            raise ValueError(f"required names '{unknown[0]}', which is none of the sites")
        if self.training.app and self.privacy.mechanism != "none":
            raise ValueError("a standard Flower app is unaccounted: it needs mechanism = 'none'")
        return self

    @property
    def site_names(self) -> tuple[str, ...]:
        """Return the invited sites in roster order, the order of every aggregation."""
        return tuple(site.name for site in self.sites)


class Study(Record):
    """A study and its contract: the document that is proposed, signed and run."""

    file: StudyFile
    contract: Contract

    @model_validator(mode="after")
    def _model_fits(self) -> Study:
        tensors_of(self.contract, self.file.model)
        return self

    @cached_property
    def tensors(self) -> Entries:
        """Return name and shape of each of the model's parameters, as they travel."""
        return tensors_of(self.contract, self.file.model)

    @cached_property
    def digest(self) -> str:
        """Return the digest over study and contract that sites approve."""
        return digest_of(self.model_dump(mode="json", by_alias=True))

    @property
    def name(self) -> str:
        """Return the study's short name."""
        return self.file.study.name

    def site(self, name: str) -> StudySite:
        """Return one invited site.

        Raises:
            KeyError: the study does not invite it.
        """
        return next_or_key_error(self.file.sites, name)

    def expected_batch(self, name: str) -> float:
        """Return B = q × public patients, the divisor of a noised sum of gradients."""
        return self.file.privacy.sampling_rate * self.site(name).patients

    @property
    def weights(self) -> tuple[float, ...]:
        """Return public averaging weights in roster order; they sum to one over all sites."""
        total = sum(site.patients for site in self.file.sites)
        return tuple(site.patients / total for site in self.file.sites)


def next_or_key_error(sites: tuple[StudySite, ...], name: str) -> StudySite:
    """Return the site called ``name`` or raise KeyError."""
    for site in sites:
        if site.name == name:
            return site
    raise KeyError(name)


def load_study(path: Path) -> Study:
    """Return the study in ``path`` with the contract beside it.

    Raises:
        FileError: as `load_toml`, or ``unsafe-path`` if the contract is not in the same folder.
    """
    study = parse_toml(read_text(path), StudyFile, str(path))
    if Path(study.study.contract).name != study.study.contract:
        raise FileError(
            "unsafe-path",
            f"{path}: study.contract must be a file name beside the study",
            "Put the contract in the same folder.",
        )
    contract = load_toml(path.parent / study.study.contract, Contract)
    return Study(file=study, contract=contract)
