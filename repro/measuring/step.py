"""A training step as a thing to measure: a loss, what it is differentiated for, and what its solve cost."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from repro.flows import CNF
from repro.nets.odenet import ode_block_of
from repro.ode import Solver, Stats, solve
from repro.ode.parameters import collect_parameters
from repro.types import State, Times, Trajectory, VectorField

Loss = Callable[[Trajectory], Float[Tensor, ""]]


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        loss: Evaluates the loss with its graph.
        leaves: What the loss is differentiated for: initial state, parameters.
        stats: Cost of the last loss, its backward part included once there was one; None where nothing is solved.
        warm: Takes a step of one evaluation by the same engine and gradient method, so that thread pools and libraries
            are set up, and little more: the memory that it leaves behind is not to hide the step's.
    """

    loss: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]
    stats: Callable[[], Stats | None] = lambda: None
    warm: Callable[[], object] | None = None

    def take(self) -> Tensor:
        """Clear the gradients, evaluate, differentiate; return the loss's value."""
        self.clear()
        loss = self.loss()
        loss.backward()
        return loss.detach()

    def clear(self) -> None:
        """Forget the gradients."""
        for leaf in self.leaves:
            leaf.grad = None

    def gradient(self) -> Float[Tensor, " n"]:
        """The last step's gradient over all leaves, flat, in float64 on the CPU; zero where there is none."""
        parts = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.leaves]
        return torch.cat([part.detach().flatten().double().cpu() for part in parts])


def mean_energy(y: Trajectory) -> Float[Tensor, ""]:
    """Half the mean square of the last state: a loss of the size of the state, whatever the batch."""
    return 0.5 * y[-1].square().mean()


def solve_step(
    field: VectorField,
    y0: State,
    t: Times,
    solver: Solver,
    gradient: str,
    loss: Loss = mean_energy,
    parameters: Iterable[Tensor] | nn.Module | None = None,
) -> Step:
    """Make a step of any field: solve, apply a loss to the trajectory, differentiate for y0 and the parameters.

    Args:
        field: Right-hand side; nothing of it is changed but its gradients.
        y0: Initial state.
        t: Output times.
        solver: Method, tolerances, engine.
        gradient: One of `repro.ode.GRADIENTS`.
        loss: Of the trajectory [time, *state].
        parameters: As for `repro.ode.solve`; None takes those of a module.
    """
    start = y0.detach().clone().requires_grad_()
    leaves = collect_parameters(field, start, t, parameters)
    found: list[Stats] = []

    def evaluate() -> Tensor:
        solution = solve(field, start, t, solver, gradient, parameters=leaves)
        found[:] = [solution.stats]
        return loss(solution.y)

    def warm() -> None:  # by a loss that takes any number of output times
        ends = t[[0, -1]]
        once = one_step(solver, float((ends[1] - ends[0]).abs()))
        mean_energy(solve(field, start, ends, once, gradient, parameters=leaves).y).backward()

    return Step(evaluate, (start, *leaves), lambda: found[0] if found else None, warm)


def flow_step(flow: CNF, x: Float[Tensor, "batch dim"], noise: Tensor | None = None) -> Step:
    """Make a step of a flow by the mean negative log-density of data.

    Args:
        flow: Of which the parameters' gradients change, nothing else.
        x: Data.
        noise: Probes [probe batch dim], where the flow estimates its trace.
    """

    def loss() -> Tensor:
        return -flow.log_prob(x, noise=noise).mean()

    def warm() -> None:
        once = copy.copy(flow)
        once.solver = one_step(flow.solver, flow.t1)
        (-once.log_prob(x, noise=noise).mean()).backward()

    return Step(loss, tuple(p for p in flow.parameters() if p.requires_grad), lambda: flow.stats, warm)


def classifier_step(net: nn.Module, images: Float[Tensor, "batch ..."], labels: Int[Tensor, " batch"]) -> Step:
    """Make a step of a classifier, with an ODE block or without, by its mean cross-entropy."""

    def loss() -> Tensor:
        return F.cross_entropy(net(images), labels)

    def warm() -> None:
        block = ode_block_of(net)
        if block is None:
            loss().backward()
            return
        solver, block.solver = block.solver, one_step(block.solver, 1.0)
        loss().backward()
        block.solver = solver

    block = ode_block_of(net)
    return Step(loss, tuple(net.parameters()), lambda: block.stats if block else None, warm)


def one_step(solver: Solver, size: float) -> Solver:
    """A solver that needs the same code as `solver` but takes a single step.

    The compiled engine makes code for each method, so that it keeps its own; of the others one Euler step is enough.
    VODE leaves its own code out of the warm-up.
    """
    if solver.engine != "compiled":
        return Solver("euler", step_size=size)
    if solver.is_fixed_step:
        return replace(solver, step_size=size)
    return replace(solver, rtol=1e9, atol=1e9, first_step=size)
