"""Neural ODE, Table 1 (Section 3): test error, parameters, memory and time of four networks on MNIST.

Beside the paper's rows stand the ablations that its critics asked for (torchdiffeq issues 25 and 32): one residual
block, and none at all. Cells without suffix select the epoch on 10,000 validation images and train on 50,000;
`_public` cells follow the public example (all 60,000 for training, best *test* epoch); `_res` cells use its other
down-sampling; `_compiled` cells take the same solver's steps by the compiled engine, and stand for their network in a
tier where they have more seeds; `_x2` cells train for twice the epochs of their tier, to measure what a doubled budget
gains.

Deviations: optimiser, epochs and augmentation are the public example's, since the paper states none; the paper solved
with SciPy's implicit Adams code, the public example and this file with dopri5. The MLP's number in the paper is quoted
from LeCun et al. (1998); ours is trained by the same recipe without augmentation. Unlike the public example, the last
epoch is evaluated too, and evaluations do not leak into the training's counts of function evaluations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import experiment
from repro.checkpoint import load_weights, save_tensors
from repro.convergence import MAX_POINTS, drift_row, reconstruction_rows
from repro.evaluation.budgets import Budget
from repro.evaluation.verdicts import Comparability
from repro.experiment import Context, Experiment
from repro.metrics import error_percent
from repro.nets.odenet import Downsampling, OdeBlock, mlp, ode_block_of, ode_net, residual_net
from repro.ode import GRADIENTS, Solver
from repro.papers.neural_ode.claims import COMPILED, TABLE1_CLAIMS
from repro.papers.neural_ode.deviations import MNIST
from repro.papers.neural_ode.mnist_images import Images, classify, measure_error, random_crop, to_float
from repro.papers.neural_ode.tables import draw_errors, table1
from repro.per_point import save_correct
from repro.results import Row
from repro.settings import Among, Count, Momentum, OptionalSize, Positive
from repro.training import Training, fit, seeded_streams

PAPER_EPOCHS = 160
"""Epochs of the public example; the paper does not state its own."""


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one network; defaults are the public example's (examples/odenet_mnist.py)."""

    model: Literal["mlp", "resnet", "rknet", "odenet", "one_block", "no_block"] = "odenet"
    """Network: a row of Table 1, or an ablation."""
    downsampling: Downsampling = "conv"
    """How 28x28 becomes 6x6 (conv) or 7x7 (res) before the blocks."""
    gradient: Annotated[str, Among(GRADIENTS)] = "adjoint"
    """Gradient method of the ODE block; the paper's RK-Net is `backprop`."""
    solver: Solver = Solver("dopri5", rtol=1e-3, atol=1e-3)
    """Solver of the ODE block; tolerance 1e-3 as in the paper."""
    protocol: Literal["validation", "public"] = "validation"
    """`validation`: select on held-out images; `public`: train on all 60,000, select on the test set."""
    epochs: Count = PAPER_EPOCHS
    """Passes over the training images."""
    batch: Count = 128
    """Images per update; the rest of an epoch is dropped."""
    learning_rate: Positive = 0.1
    """Of SGD at batch 128; times 0.1 at 60/160, 100/160 and 140/160 of the updates."""
    momentum: Momentum = 0.9
    """Of SGD."""
    crop_padding: OptionalSize = 4
    """Random crops of the image padded by so many pixels; 0 turns augmentation off."""
    train_limit: Count | None = None
    """Use so many training images only (smoke tier)."""
    evaluation_limit: Count | None = None
    """Evaluate on so many images only (smoke tier)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_limit is not None and self.train_limit < self.batch:
            raise ValueError(f"train_limit must be at least the batch of {self.batch}, got {self.train_limit}")


def build(config: Config) -> nn.Sequential:
    """The network of a config, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        match config.model:
            case "mlp":
                return mlp()
            case "odenet" | "rknet":
                return ode_net(config.downsampling, config.solver, config.gradient)
            case _:
                n_blocks = {"resnet": 6, "one_block": 1, "no_block": 0}[config.model]
                return residual_net(config.downsampling, n_blocks)


def images_of(config: Config, context: Context) -> Images:
    """The images that a config trains, selects and is tested on."""
    limits = {"train_limit": config.train_limit, "evaluation_limit": config.evaluation_limit}
    return Images(context.device, validation=config.protocol == "validation", **limits)


def training(config: Config, model: nn.Sequential, images: Images) -> Training:
    """The public example's recipe for one network."""
    x, y = images.train
    per_epoch = len(x) // config.batch
    steps = per_epoch * config.epochs
    streams = seeded_streams(config.seed, "augmentation")
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=config.momentum)
    block = ode_block_of(model)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:  # a function of the epoch alone, so that a resumed run needs no state for it
        stream = seeded_streams(config.seed, f"order of epoch {epoch}")
        return torch.randperm(len(x), generator=next(iter(stream.values()))).to(x.device)

    def update(step: int) -> Mapping[str, float]:
        epoch, place = divmod(step, per_epoch)
        chosen = order(epoch)[place * config.batch : (place + 1) * config.batch]
        inputs = to_float(random_crop(x[chosen], config.crop_padding, streams["augmentation"]))
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(inputs), y[chosen])
        loss.backward()
        optimizer.step()
        return {"train_nll": loss.item()} | (block.costs() if block else {})

    def learning_rate(step: int) -> float:
        drops = sum(step >= steps * epoch / PAPER_EPOCHS for epoch in (60, 100, 140))
        return config.learning_rate * config.batch / 128 * 0.1**drops

    def evaluate() -> list[Row]:
        errors, nll = measure_error(model, *images.select)
        name = "validation" if config.protocol == "validation" else "test_curve"
        return [
            Row(f"{name}_error", error_percent(errors, len(images.select[1])), "%"),
            Row(f"{name}_nll", nll, "nats"),
        ]

    select = "validation_error" if config.protocol == "validation" else "test_curve_error"
    units = {"train_nll": "nats", "nfe_forward": "evaluations", "nfe_backward": "evaluations"}
    return Training(model, optimizer, steps, update, learning_rate, evaluate, per_epoch, select, streams, units)


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Train one network and measure it on the test images."""
    images = images_of(config, context)
    context.inputs.update(images.sha256)
    model = build(config).to(context.device)
    yield Row("parameters", sum(p.numel() for p in model.parameters()), "parameters")
    yield Row("budget_share", config.epochs * len(images.train[0]) / (PAPER_EPOCHS * 60_000), "of the public budget")
    yield from fit(training(config, model, images), context)
    save_tensors(context.artefacts / "model.safetensors", model.state_dict(), {"model": config.model})
    yield from final_rows(config, model, images, context)


def final_rows(config: Config, model: nn.Sequential, images: Images, context: Context) -> Iterator[Row]:
    """Measure the test error with its count, and how far the solves of an ODE-Net are from converged."""
    correct, nll = classify(model, *images.test)
    save_correct(context.artefacts, correct)
    errors, total = int((~correct).sum()), len(correct)
    yield Row("test_images", total, "images")
    yield Row("test_errors", errors, "images")
    yield Row("test_error", error_percent(errors, total), "%")
    yield Row("test_nll", nll, "nats")
    block = ode_block_of(model)
    if block is not None:
        yield from solver_rows(config, model, block, images, error_percent(errors, total))


def solver_rows(config: Config, model: nn.Sequential, block: OdeBlock, images: Images, error: float) -> Iterator[Row]:
    """Reconstruct the states that enter the ODE block, and measure the error at a ten times tighter tolerance.

    Args:
        config: Settings of the run.
        model: The network.
        block: Its ODE block, which follows the down-sampling.
        images: Of the test.
        error: Test error at the evaluation tolerance, in percent.
    """
    with torch.no_grad():
        states = model[0](to_float(images.test[0][:MAX_POINTS]))
    yield from reconstruction_rows(block, block.inverse, states)
    block.solver = config.solver.tighten()
    errors, _ = measure_error(model, *images.test)
    block.solver = config.solver
    tight = error_percent(errors, len(images.test[1]))
    yield Row("test_error_tight", tight, "% at a tenth of the tolerance")
    yield drift_row(error, lambda: tight, "%")


def evaluate(config: Config, tensors: Mapping[str, Tensor], context: Context) -> Iterator[Row]:
    """Recompute the final numbers from a run's weights."""
    model = restore(config, tensors).to(context.device)
    yield from final_rows(config, model, images_of(config, context), context)


def restore(config: Config, tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """The network that is judged, from a run's weights."""
    model = build(config)
    load_weights(model, tensors)
    return model


DOUBLED = ("resnet", *COMPILED.values())
"""Cells that have a twin of twice the epochs."""


def _cells() -> dict[str, Config]:
    mlp_cell = Config(model="mlp", crop_padding=0)
    ode = Config(model="odenet")
    networks = {
        "mlp": mlp_cell,
        "resnet": Config(model="resnet"),
        "rknet": replace(ode, model="rknet", gradient="backprop"),
        "odenet": ode,
        "one_block": Config(model="one_block"),
        "no_block": Config(model="no_block"),
    }
    public = {f"{name}_public": replace(config, protocol="public") for name, config in networks.items()}
    res = {
        f"{name}_res": replace(networks[name], downsampling="res")
        for name in ("resnet", "rknet", "odenet", "one_block", "no_block")
    }
    compiled = {
        cell: replace(networks[name], solver=replace(networks[name].solver, engine="compiled"))
        for name, cell in COMPILED.items()
    }
    doubled = {f"{name}_x2": (networks | compiled)[name] for name in DOUBLED}
    doubled = {cell: replace(config, epochs=2 * config.epochs) for cell, config in doubled.items()}
    return networks | public | res | compiled | doubled


def compare_settings(cell: str, config: Config) -> Comparability:
    """Relate a cell to Table 1: what the paper leaves open is the public example's, the MLP's error is quoted there."""
    if config.model == "mlp":
        return Comparability(test=False, reason="the paper quotes LeCun et al. (1998), whose protocol was another")
    opened = ("optimiser", "epochs", "augmentation", "down-sampling", "selection of the epoch")
    solver = (
        ("solver: dopri5 as in the public example, implicit Adams in the text",) if config.model == "odenet" else ()
    )
    return Comparability(open=(*opened, *solver))


CELLS = _cells()

EXPERIMENT = Experiment(
    artefact="Neural ODE, Table 1",
    cells=CELLS,
    tiers={
        "smoke": lambda config: replace(config, epochs=config.epochs // 80, train_limit=1280, evaluation_limit=1000),
        "small": lambda config: replace(config, epochs=config.epochs // 16),
    },
    main_cells=("mlp", "resnet", "rknet", "odenet", "one_block", "no_block"),
    measure=measure,
    evaluate=evaluate,
    restore=restore,
    draw={"table1_errors": draw_errors},
    tables={"table1_mnist": table1},
    budget=Budget(
        setting="epochs",
        unit="epochs",
        full=lambda config: float(PAPER_EPOCHS),
        multiples={cell: {2: f"{cell}_x2"} for cell in DOUBLED},
    ),
    comparability=compare_settings,
    claims=TABLE1_CLAIMS,
    deviations=MNIST,
    equivalents=COMPILED,
)
