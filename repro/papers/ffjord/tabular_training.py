"""How a flow is trained on a table: by maximum likelihood or by flow matching, with the public script's schedule."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from repro.data import Table
from repro.flows import CNF, Stack
from repro.likelihood import costs
from repro.results import Row
from repro.training import Training, seeded_streams

Schedule = Literal["plateau", "cosine"]
Objective = Literal["likelihood", "flow_matching"]

SELECT = "validation_nll"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a flow is trained.

    Attributes:
        objective: `likelihood`, or `flow_matching` for one CNF.
        iterations: updates, at most.
        batch: rows per update.
        learning_rate: of Adam, at the start.
        schedule: `plateau` is the public script's; `cosine` goes to 0 over all iterations.
        patience: validations without improvement before the rate drops, see `Plateau`.
        validation_every: updates between two validations.
        penalty_weight: of each of the flow's penalties, whose mean over the batch is added to the loss.
        end_time_spread: half-width of the interval about t1 from which each CNF's end time is drawn at every update.
    """

    objective: Objective
    iterations: int
    batch: int
    learning_rate: float
    schedule: Schedule
    patience: int
    validation_every: int
    penalty_weight: float = 0.0
    end_time_spread: float = 0.0


class Plateau:
    """The public script's schedule: two drops of the learning rate by 10, then the end.

    Validations without improvement are counted. Above `patience` the rate drops, above twice as many it drops again,
    above three times as many the training ends. An improvement sets the count to 0; a drop is never taken back.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best, self.without, self.drops = math.inf, 0, 0

    def watch(self, row: Row) -> None:
        """Count a validation."""
        if row.metric != SELECT:
            return
        improved = row.value < self.best
        self.best, self.without = min(self.best, row.value), 0 if improved else self.without + 1
        self.drops = max(self.drops, min(2, self._passed()))

    def _passed(self) -> int:
        """How many times the patience is used up."""
        return max(0, self.without - 1) // self.patience

    @property
    def factor(self) -> float:
        """By what the learning rate is multiplied now."""
        return 0.1**self.drops

    def finished(self) -> bool:
        """Whether the training ends."""
        return self._passed() >= 3


def training_of(
    flow: Stack, table: Table, recipe: Recipe, validate: Callable[[], float], seed: int, device: torch.device
) -> Training:
    """The training of a flow on a table; the weights with the smallest validation NLL are its result.

    Args:
        flow: has one CNF if it is trained by flow matching.
        table: training rows.
        recipe: how.
        validate: validation NLL in nats, the same for the same weights.
        seed: of all streams.
        device: where the flow is.
    """
    optimizer = torch.optim.Adam(flow.parameters(), recipe.learning_rate, fused=True)
    random_end = ("end time",) if recipe.end_time_spread else ()
    streams = seeded_streams(seed, "trace noise", "path", *random_end)
    plateau, matching = Plateau(recipe.patience), recipe.objective == "flow_matching"
    batch_of = batches(table, recipe.batch, seed)

    def update(step: int) -> Mapping[str, float]:
        optimizer.zero_grad(set_to_none=True)
        x = batch_of(step).to(device)
        loss, values = _matched(flow, x, streams) if matching else _likely(flow, x, streams, recipe)
        loss.backward()
        optimizer.step()
        return {name: value.item() for name, value in values.items()} | ({} if matching else costs(flow))

    def learning_rate(step: int) -> float:
        if recipe.schedule == "plateau":
            return recipe.learning_rate * plateau.factor
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / recipe.iterations))

    return Training(
        flow,
        optimizer,
        recipe.iterations,
        update,
        learning_rate,
        lambda: [Row(SELECT, validate(), "nats")],
        recipe.validation_every,
        SELECT,
        streams,
        {
            "train_nll": "nats",
            "train_loss": "mean square",
            "penalty": "sum of the penalties, without their weight",
            "nfe_forward": "evaluations",
            "nfe_backward": "evaluations",
        },
        watch=plateau.watch,
        stop=plateau.finished if recipe.schedule == "plateau" else None,
    )


def batches(table: Table, batch: int, seed: int) -> Callable[[int], Table]:
    """The rows of every update: a fresh permutation each epoch, what does not fill a batch left out.

    A permutation is a function of seed and epoch alone, so that a resumed training needs no state for it.
    """
    per_epoch = len(table) // batch

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        (stream,) = seeded_streams(seed, f"order of epoch {epoch}").values()
        return torch.randperm(len(table), generator=stream)

    def batch_of(step: int) -> Table:
        epoch, place = divmod(step, per_epoch)
        return table[order(epoch)[place * batch : (place + 1) * batch]]

    return batch_of


Values = dict[str, Tensor]
"""What goes into the curve, by its metric."""


def _likely(flow: Stack, x: Table, streams: Mapping[str, Generator], recipe: Recipe) -> tuple[Tensor, Values]:
    """Negative log-likelihood, with the flow's penalties."""
    with random_ends(flow, recipe.end_time_spread, streams.get("end time")):
        nll = -flow.log_prob(x, generator=streams["trace noise"]).mean()
    values = {"train_nll": nll.detach()}
    if not recipe.penalty_weight:
        return nll, values
    penalty = torch.stack([rate.mean() for rate in flow.penalty.values()]).sum()
    return nll + recipe.penalty_weight * penalty, values | {"penalty": penalty.detach()}


@contextmanager
def random_ends(flow: Stack, spread: float, stream: Generator | None) -> Iterator[None]:
    """End the CNFs' intervals at times of their own, uniform in t1 ± spread, and give them their t1 back.

    References:
        STEER: Ghosh et al. 2020 (arXiv 2006.10711), eq. 4; it too draws anew for every solve.
    """
    before = [cnf.t1 for cnf in flow.cnfs]
    if stream is not None:
        shifts = (spread * (2 * torch.rand(len(before), generator=stream) - 1)).tolist()
        for cnf, end, shift in zip(flow.cnfs, before, shifts, strict=True):
            cnf.t1 = end + shift
    try:
        yield
    finally:
        for cnf, end in zip(flow.cnfs, before, strict=True):
            cnf.t1 = end


def _matched(flow: Stack, x: Table, streams: Mapping[str, Generator]) -> tuple[Tensor, Values]:
    (cnf,) = flow.cnfs
    z = torch.randn(x.shape, generator=streams["path"]).to(x)
    shift = torch.rand((), generator=streams["path"]).to(x)
    loss = matching_loss(cnf, x, z, shift)
    return loss, {"train_loss": loss.detach()}


@runtime_checkable
class TimedField(Protocol):
    """A field that can be asked at a time of its own for every row."""

    def at_times(self, t: Float[Tensor, "batch 1"], y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """dy/dt of each row at its time."""
        ...


def matching_loss(cnf: CNF, x: Table, z: Table, shift: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Flow matching with straight paths, in the CNF's time: from x at t = 0 to z at t1, dy/dt = (z − x) / t1.

    The field is regressed on the paths' velocities; at the minimum it is their mean at each point and time, and carries
    the data's distribution to the base's. No solve is needed.

    Args:
        cnf: its field takes a time for each row.
        x: data.
        z: base sample, paired with x at random.
        shift: in [0, 1); the rows' times are an even grid over [0, t1), shifted by it, which lowers the variance.

    References:
        Lipman et al. 2023 (arXiv 2210.02747), eq. 23 with no noise left at the data; there time runs the other way.
    """
    field = cnf.field
    assert isinstance(field, TimedField)
    grid = torch.arange(len(x), device=x.device, dtype=x.dtype) / len(x)
    share = ((grid + shift) % 1).unsqueeze(1)
    y = torch.lerp(x, z, share)
    return (field.at_times(share * cnf.t1, y) - (z - x) / cnf.t1).square().mean()
