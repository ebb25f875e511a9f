"""Initial value problems: what a solve is asked for, checked and completed once, and carried through it."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repro.ode.field_state import Tokens, read_state
from repro.ode.guard import GuardedField
from repro.ode.kernels import Steps, choose_kernel
from repro.ode.parameters import Parameters, collect_parameters, list_parameters, read_once, select_parameters
from repro.ode.solvers import Solver
from repro.types import Norm, State, Times, VectorField


@dataclass(frozen=True, eq=False)
class InitialValueProblem:
    """Hold dy/dt = f(t, y), y(t[0]) = y0, and what of it gets gradients.

    Attributes:
        field: Right-hand side, time first; kernels read its type and its parts.
        y0: State at t[0].
        t: Output times.
        norm: Size of an error in units of the tolerances; None is the RMS over all elements.
        parameters: Tensors beside y0 and t that get gradients, each once.
        evaluate: The field as everything but a kernel evaluates it, guarded where it is a user's.
        state: Tokens of the field's state before the solve; None where nothing evaluates the field after it.
    """

    field: VectorField
    y0: State
    t: Times
    norm: Norm | None
    parameters: tuple[Tensor, ...]
    evaluate: VectorField
    state: Tokens | None = None

    @functools.cached_property
    def kernel(self) -> Steps | str:
        """The kernel that takes the field's steps, or why there is none; chosen once per solve."""
        return choose_kernel(self.field, self.y0)

    def replace(self, **changes: Any) -> "InitialValueProblem":  # noqa: ANN401
        """Return the problem with other attributes, and with the kernel that was chosen for it."""
        other = dataclasses.replace(self, **changes)
        if "kernel" in vars(self):
            vars(other)["kernel"] = self.kernel
        return other


def make_problem(
    field: VectorField,
    y0: State,
    t: Times,
    solver: Solver,
    *,
    norm: Norm | None,
    parameters: Parameters,
    evaluates_again: bool,
) -> InitialValueProblem:
    """Guard a field and collect the tensors that get gradients.

    Args:
        field: Right-hand side.
        y0: State at t[0].
        t: Output times.
        solver: Method and engine.
        norm: Size of an error; None is the RMS.
        parameters: As for `solve`.
        evaluates_again: Whether the gradient method evaluates the field again in `backward()` and so must be given
            what it differentiates with respect to; backprop leaves that to autograd.

    Raises:
        ValueError: The field's value is no derivative of y0, or `parameters` leaves out what the field learns.
        TypeError: The field's value or `parameters` has the wrong type.
    """
    guard = GuardedField(field)
    parameters = read_once(parameters)
    named = list_parameters(field, parameters)
    problem = InitialValueProblem(field, y0, t, norm, named, guard)
    if not torch.is_grad_enabled():
        return problem
    native = solver.engine == "compiled" and not isinstance(problem.kernel, str)
    if not (native or evaluates_again):
        return problem
    state = read_state(field)
    if native:  # a kernel is for types that learn their parameters alone
        used = list_parameters(field, None)
        learners = select_parameters(named, used, parameters) if evaluates_again else used
    else:
        learners = collect_parameters(field, y0, t, parameters, guard)
    return problem.replace(parameters=learners, state=state)
