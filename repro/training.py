"""The one training loop: resumable at any step, bit-identical to a run that was never stopped (on a CPU).

Everything that the next step depends on is in the checkpoint: model, optimiser, step counter, the best weights so
far, every random stream, and the rows already measured.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from repro.checkpoint import load_tensors, save_tensors
from repro.experiment import BudgetReached, Context, Interrupted
from repro.ode import SolveError
from repro.results import Row

CHECKPOINT = "checkpoint.safetensors"
ELAPSED = "elapsed"


class TrainingDiverged(SolveError):
    """A training step gave a value that is not finite; the run is recorded as diverged."""

    def __init__(self, step: int, values: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        super().__init__(f"training diverged at step {step}: {shown}")


@dataclass
class Training:
    """What to train and how.

    Attributes:
        model: the module whose parameters and buffers are trained and kept.
        optimizer: its optimiser.
        steps: number of updates in all.
        update: does one update, given the step's number from 0; returns values to show and to average (NFE, loss).
        learning_rate: learning rate of a step.
        evaluate: measures the model; called after every `evaluate_every` updates and at the end.
        evaluate_every: updates between two evaluations.
        select: metric to minimise; the weights that reached its smallest value are the run's result.
        streams: every random generator that `update` or `evaluate` draws from.
        units: unit of each value that `update` returns, for its mean between two evaluations in the rows.
        watch: is told every measured row, in order; a resumed run first repeats those of its earlier sittings, so that
            what a schedule makes of them needs no place in the checkpoint.
        stop: whether to end before `steps`; asked before every update.
    """

    model: nn.Module
    optimizer: Optimizer
    steps: int
    update: Callable[[int], Mapping[str, float]]
    learning_rate: Callable[[int], float]
    evaluate: Callable[[], Sequence[Row]]
    evaluate_every: int
    select: str | None = None
    streams: Mapping[str, Generator] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    watch: Callable[[Row], None] | None = None
    stop: Callable[[], bool] | None = None


@dataclass
class _State:
    """Where a training is; together with model, optimiser and streams it is the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    best_score: float = float("inf")
    best_step: int | None = None
    rows: list[Row] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


def fit(training: Training, context: Context) -> Iterator[Row]:
    """Train, or go on training from the checkpoint in the context's folder.

    Rows come as they are measured, so that a run that diverges still has its curve; a resumed run first repeats those
    of its earlier sittings. When the last row is out, the model holds the selected weights (those of the last step if
    nothing is selected on).

    Yields:
        The curve: rows of `evaluate`, means of `update`'s values and of an update's time since the evaluation before,
        and the seconds of training that are over, by step.

    Raises:
        BudgetReached, Interrupted: when the context says so, between two updates or in the middle of a solve; what is
            saved then is the state after the last whole update.
        TrainingDiverged: if a value of an update is not finite.
    """
    path = context.folder / CHECKPOINT
    state = _restore(training, path) if path.exists() else _State()
    _tell(training, state.rows)
    yield from state.rows
    clock = _Clock(state.seconds)
    saved = time.monotonic()
    if _is_evaluation_due(training, state):  # the sitting before was stopped in it
        yield from _evaluate(training, state, clock, path)
    while state.step < training.steps and not (training.stop and training.stop()):
        with _undone_if_stopped(training, state, clock, path):
            context.check()
            _advance(training, state)
        context.progress(state.step, training.steps, {key: state.sums[key] / state.count for key in state.sums})
        if _is_evaluation_due(training, state):
            yield from _evaluate(training, state, clock, path)
        if time.monotonic() - saved >= context.checkpoint_seconds:
            _save(training, state, clock, path)
            saved = time.monotonic()
    _save(training, state, clock, path)  # what follows the loop may be stopped too, and must not train again
    if state.best_step is not None:  # None also if the metric never was a number
        training.model.load_state_dict(state.best)
    yield from _final_rows(state, clock)


class _Clock:
    """Seconds of training over all sittings."""

    def __init__(self, before: float) -> None:
        self.before, self.start = before, time.monotonic()

    def read(self) -> float:
        return self.before + time.monotonic() - self.start


@contextmanager
def _undone_if_stopped(training: Training, state: _State, clock: _Clock, path: Path) -> Iterator[None]:
    """Undo an update or an evaluation that the context stops in the middle, and save the state before it.

    What such a part changes before its end are random streams and buffers. Where it has already changed parameters,
    nothing is saved: the run goes on from its last checkpoint.
    """
    streams = {name: stream.get_state() for name, stream in training.streams.items()}
    buffers = [(buffer, buffer.clone()) for buffer in training.model.buffers()]
    versions = [parameter._version for parameter in training.model.parameters()]
    try:
        yield
    except (BudgetReached, Interrupted):
        for name, stream in training.streams.items():
            stream.set_state(streams[name])
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        if versions == [parameter._version for parameter in training.model.parameters()]:
            _save(training, state, clock, path)
        raise


def _is_evaluation_due(training: Training, state: _State) -> bool:
    return state.count > 0 and (state.step % training.evaluate_every == 0 or state.step == training.steps)


def _advance(training: Training, state: _State) -> None:
    for group in training.optimizer.param_groups:
        group["lr"] = training.learning_rate(state.step)
    values = training.update(state.step)
    if not all(math.isfinite(value) for value in values.values()):
        raise TrainingDiverged(state.step, values)
    for key, value in values.items():
        state.sums[key] = state.sums.get(key, 0.0) + value
    state.count += 1
    state.step += 1


def _evaluate(training: Training, state: _State, clock: _Clock, path: Path) -> list[Row]:
    means = [
        Row(key, total / state.count, training.units.get(key, ""), state.step) for key, total in state.sums.items()
    ]
    timed = _update_time(state, clock)
    with _undone_if_stopped(training, state, clock, path):
        measured = [Row(row.metric, row.value, row.unit, state.step) for row in training.evaluate()]
    rows = [*means, *timed, *measured, Row(ELAPSED, clock.read(), "s", state.step)]
    state.rows += rows
    state.sums, state.count = {}, 0
    _select(training, state, measured)
    _tell(training, measured)
    return rows


def _update_time(state: _State, clock: _Clock) -> list[Row]:
    """Mean time of the updates since the evaluation before, that evaluation and its like left out.

    None where that evaluation's time is not known: the checkpoint is of a version that did not record it.
    """
    from_start = 0.0 if state.count == state.step else None
    begun = next((row.value for row in reversed(state.rows) if row.metric == ELAPSED), from_start)
    if begun is None:
        return []
    return [Row("update_time", (clock.read() - begun) / state.count, "s", state.step)]


def _tell(training: Training, rows: Sequence[Row]) -> None:
    for row in rows if training.watch else ():
        training.watch(row)  # pyright: ignore[reportOptionalCall]


def _select(training: Training, state: _State, measured: Sequence[Row]) -> None:
    """Keep a copy of the weights if they are the best so far."""
    score = next((row.value for row in measured if row.metric == training.select), None)
    if score is not None and score < state.best_score:
        state.best_score, state.best_step = score, state.step
        state.best = {name: tensor.detach().clone() for name, tensor in training.model.state_dict().items()}


def _final_rows(state: _State, clock: _Clock) -> list[Row]:
    selected = [] if state.best_step is None else [Row("selected_step", state.best_step, "steps")]
    return [
        Row("steps", state.step, "steps"),
        *selected,
        Row("wall_time", clock.read(), "s"),
    ]


def _save(training: Training, state: _State, clock: _Clock, path: Path) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    tensors |= {f"stream.{name}": stream.get_state() for name, stream in training.streams.items()}
    optimizer = training.optimizer.state_dict()["state"]
    scalars: dict[str, float] = {}
    for index, slots in optimizer.items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{slot}"] = value
            else:
                scalars[f"{index}.{slot}"] = value
    values = {
        "step": state.step,
        "seconds": clock.read(),
        "best_score": None if state.best_step is None else state.best_score,
        "best_step": state.best_step,
        "rows": [[row.metric, row.value, row.unit, row.step] for row in state.rows],
        "sums": state.sums,
        "count": state.count,
        "optimizer": scalars,
    }
    save_tensors(path, tensors, values)


def _restore(training: Training, path: Path) -> _State:
    tensors, values = load_tensors(path, remedy="delete it to start this run from the beginning")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "stream": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, key = name.split(".", 1)
        parts[part][key] = tensor
    training.model.load_state_dict(parts["model"])
    for name, stream in training.streams.items():
        stream.set_state(parts["stream"][name])
    _restore_optimizer(training.optimizer, parts["optimizer"], values["optimizer"])
    device = next(training.model.parameters()).device
    return _State(
        step=values["step"],
        seconds=values["seconds"],
        best_score=float("inf") if values["best_score"] is None else values["best_score"],
        best_step=values["best_step"],
        rows=[Row(*row) for row in values["rows"]],
        sums=values["sums"],
        count=values["count"],
        best={name: tensor.to(device) for name, tensor in parts["best"].items()},
    )


def _restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, float]) -> None:
    state: dict[int, dict[str, Tensor | float]] = {}
    for name, value in [*tensors.items(), *scalars.items()]:
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value
    # the groups' settings come from the config, not from the file
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def seeded_streams(seed: int, *names: str, device: torch.device | str = "cpu") -> dict[str, Generator]:
    """Independent random streams for the named purposes, all derived from one seed.

    Two purposes never share a stream, so that, say, another augmentation doesn't change the order of the data.
    """
    streams = {}
    for name in names:
        digits = int.from_bytes(name.encode(), "little") % (2**31 - 1)
        streams[name] = Generator(device=device).manual_seed((seed * 1_000_003 + digits) % 2**63)
    return streams
