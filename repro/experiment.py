"""The nouns of a reproduction: Config, Experiment, Claim, and the Context that a measurement runs in.

An experiment is one artefact of a paper (a table or a figure). Its cells are the paper's settings; a tier cuts a
cell down to what a machine can afford; `measure` turns one cell into rows. Nothing here knows of files or commands.
"""

import dataclasses
import fnmatch
import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from repro.animation import Animation
from repro.evaluation.budgets import Budget, Variants
from repro.evaluation.verdicts import Comparability
from repro.ode.errors import MaxNFEExceeded
from repro.ode.meter import Meter
from repro.results import Row
from repro.settings import MAX_EVALUATIONS, Seed, check_settings

Tier = Literal["smoke", "small", "paper"]
TIERS: tuple[Tier, ...] = ("smoke", "small", "paper")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; subclasses add fields whose defaults are the paper's values."""

    seed: Seed = 0
    """Root of every random stream of the run."""

    def __post_init__(self) -> None:
        """Check every setting against the bounds that its type declares.

        Raises:
            ValueError: One is out of range; the message names it, what was expected and what came.
        """
        check_settings(self)


C = TypeVar("C", bound=Config)


@runtime_checkable
class Progress(Protocol):
    """Something that shows how far a run is."""

    def __call__(self, done: int, total: int, values: Mapping[str, float]) -> None:
        """Show that `done` of `total` steps are over, with the latest values."""
        ...


def silent(done: int, total: int, values: Mapping[str, float]) -> None:
    """Show nothing."""


class BudgetReached(Exception):
    """The run's time is over; its state is saved, and the same command goes on from there."""


class Interrupted(Exception):
    """Somebody asked the run to stop; its state is saved, and the same command goes on from there."""


@dataclass
class Context:
    """Where and how long a measurement runs; it holds nothing that could change a number.

    Attributes:
        device: where the tensors live.
        folder: working folder, private to the run; checkpoints go here and survive a kill.
        deadline: `time.monotonic()` value at which to stop, if any.
        progress: called after each step.
        checkpoint_seconds: the longest time between two checkpoints.
        stop: set by a signal handler; the training loop then saves and leaves.
        inputs: files that the run read, with their SHA-256; goes into run.json.
        find_weights: finds the weights of a run of (experiment, its name, cell, seed) in the same tier.
    """

    device: torch.device
    folder: Path
    deadline: float | None = None
    progress: Progress = silent
    checkpoint_seconds: float = 60.0
    stop: bool = False
    inputs: dict[str, str] = field(default_factory=dict)
    find_weights: Callable[["Experiment[Any]", str, str, int], Mapping[str, Tensor]] | None = None

    @property
    def artefacts(self) -> Path:
        """Folder whose files are published beside the rows (weights, arrays)."""
        path = self.folder / "artefacts"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def check(self) -> None:
        """Leave if somebody asked for it or the time is over.

        Raises:
            Interrupted: after a signal.
            BudgetReached: after the deadline.
        """
        if self.stop:
            raise Interrupted
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise BudgetReached

    def check_solve(self, meter: Meter) -> None:
        """Leave a solve as `check` does, or because it has become endless; asked at each evaluation of the field.

        Args:
            meter: of the pass.

        Raises:
            Interrupted, BudgetReached: as `check`.
            MaxNFEExceeded: after `MAX_EVALUATIONS` evaluations, whatever the solver allows.
        """
        self.check()
        if meter.nfe >= MAX_EVALUATIONS:
            raise meter.error(MaxNFEExceeded, f"reached the {MAX_EVALUATIONS:,} evaluations that a run allows one pass")


Verdict = Literal["reproduced", "partly", "not reproduced", "inconclusive", "not attempted"]


Origin = Literal["paper", "suite"]
"""Who says it: a paper, or this suite as a question of its own."""


@dataclass(frozen=True)
class Judgement:
    """What the rows say of a claim: a verdict and the evidence in one sentence, numbers included."""

    verdict: Verdict
    evidence: str


def graded(holds: Collection[bool]) -> Verdict:
    """The verdict on a claim of several cases: all hold, some do, or none."""
    return "reproduced" if all(holds) else "partly" if any(holds) else "not reproduced"


SUITE = "a question of this suite, not a claim of the paper"
"""The source of such a question."""
NOT_ATTEMPTED = Judgement("not attempted", "no run yet")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A testable sentence of a paper, in our words, with the function that judges it from rows.

    `check` gets the rows of one level (columns of `repro.results.load`, and `source_cell`) and never computes a model.
    Its docstring is the rule, which is printed beside what it says: thresholds included, without names of the code.
    `cells` are those that it compares, for which one level must do; the experiment's main cells by default. `origin` is
    "suite" for a question that no paper answers; such questions are counted apart from the papers' claims.
    """

    id: str
    statement: str
    source: str
    check: Callable[[pd.DataFrame], Judgement]
    cells: tuple[str, ...] = ()
    origin: Origin = "paper"

    @property
    def rule(self) -> str:
        """How the verdict is found, in words."""
        return rule_of(self.check)


def rule_of(check: Callable[..., object]) -> str:
    """A check's docstring in one line."""
    return " ".join((check.__doc__ or "").split())


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A point in which paper, public code and this suite are not the same; each is a line in a generated table."""

    subject: str
    published: str
    released: str
    ours: str


@dataclass(frozen=True, kw_only=True)
class Experiment(Generic[C]):
    """One artefact of a paper.

    Attributes:
        artefact: its name in the paper, as "Neural ODE, Table 1".
        cells: the paper's settings by name.
        tiers: how `smoke` and `small` cut a cell down; `paper` is the identity.
        measure: turns a cell into rows; deterministic for a seed, device and thread count, apart from cost rows.
        main_cells: the cells that run when none is named; all by default.
        smoke_cells: the same in the smoke tier, whose processes take longer to start than to run; `main_cells` by
            default.
        evaluate: recomputes the final numbers from published weights, for `python -m repro evaluate`; lazily, and
            saves the per-point file into the context's artefacts as `measure` does.
        restore: makes the model that is judged from a config and a run's weights, for `repro.load`.
        draw: figures by name; a function of the rows of all experiments in one tier, or None where the runs hold too
            little (arrays, say) to draw anything.
        animate: animations by name, in the same way.
        tables: tables by name, in the same way; each is a frame whose cells are ready to print.
        claims: what the paper says of this artefact, and questions of the suite's own.
        remarks: sentences on what the runs show beside the claims; functions of the rows of one level, each empty where
            there is nothing to say.
        budget: training budget of the cells; None where nothing is trained.
        comparability: relation of a cell and its config to the paper's model, data and test; the paper's by default.
        deviations: where paper, public code and we differ.
        method: the row of the paper's table that our cells reproduce, where a cell has several.
        baselines: other rows of that table that every run measures too, without training -> by which metric.
        equivalents: cells -> the cell whose steps, of the same solver, the compiled engine takes; its runs stand for
            the cell where it has more seeds.
        version: raised when a fix changes numbers; part of the digest, noted in CHANGELOG.md.
    """

    artefact: str
    cells: Mapping[str, C]
    tiers: Mapping[str, Callable[[C], C]]
    measure: Callable[[C, Context], Iterator[Row]]
    main_cells: Sequence[str] | None = None
    smoke_cells: Sequence[str] | None = None
    evaluate: Callable[[C, Mapping[str, Tensor], Context], Iterator[Row]] | None = None
    restore: Callable[[C, Mapping[str, Tensor]], nn.Module] | None = None
    draw: Mapping[str, Callable[[pd.DataFrame], Figure | None]] = field(default_factory=dict)
    animate: Mapping[str, Callable[[pd.DataFrame], Animation | None]] = field(default_factory=dict)
    tables: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    remarks: tuple[Callable[[pd.DataFrame], str], ...] = ()
    budget: Budget | None = None
    comparability: Callable[[str, C], Comparability] | None = None
    deviations: tuple[Deviation, ...] = ()
    method: str | None = None
    baselines: Mapping[str, str] = field(default_factory=dict)
    equivalents: Mapping[str, str] = field(default_factory=dict)
    version: int = 1

    @property
    def variants(self) -> Variants:
        """Cells that may stand for others."""
        return Variants(multiples=self.budget.multiples if self.budget else {}, equivalents=self.equivalents)

    def config(self, cell: str, tier: Tier) -> C:
        """The settings of a cell in a tier.

        Raises:
            KeyError: for an unknown cell or tier.
        """
        return self.cells[cell] if tier == "paper" else self.tiers[tier](self.cells[cell])

    def chosen(self, pattern: str | None, tier: Tier) -> list[str]:
        """The cells whose names match a pattern, as the shell's; without one, those that run when none is named."""
        if pattern is not None:
            return fnmatch.filter(self.cells, pattern)
        smoke = self.smoke_cells if tier == "smoke" else None
        return list(smoke or self.main_cells or self.cells)

    def digest(self, config: C) -> str:
        """Eight hex digits of the settings without the seed, and of the experiment's version.

        Settings that are None are left out, so that a new optional setting does not orphan the runs made before it.
        """
        return compute_digest(settings_of(config), self.version)


def settings_of(config: Config) -> dict[str, Any]:
    """A config as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def compute_digest(settings: Mapping[str, Any], version: int) -> str:
    """Compute the digest of settings as `settings_of` gives them or run.json records them; see `Experiment.digest`.

    Args:
        settings: JSON values by name; the seed and what is None do not count.
        version: of the experiment.
    """
    counted = {name: value for name, value in settings.items() if name != "seed"}
    text = json.dumps({"version": version, **_without_none(counted)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _without_none(value: Any) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
