"""Bounds of settings, declared beside the fields of a config and checked in one place before anything runs.

A field says what it takes by its type: `iterations: Count = 10_000`. To the command line, to JSON and to the digest
the types are `int`, `float` and `str`.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_type_hints

from repro.ode import Solver, supported
from repro.ode.solvers import METHODS

LARGEST_INTEGER = 2**31 - 1
LARGEST_FLOAT32 = 3.4028234663852886e38
MAX_EVALUATIONS = 200_000
"""Of a field in one pass of a run; published runs take at most some thousands."""


@dataclass(frozen=True)
class Range:
    """An interval of numbers; of floats the lower end is left out where `above` says so."""

    least: float | int
    largest: float | int
    above: bool = False

    def describe_problem(self, value: Any) -> str | None:  # noqa: ANN401 (whatever came)
        """Say what was expected of a value outside; None for one inside."""
        if math.isnan(value):
            return "must be a number"
        if value < self.least or (self.above and value == self.least):
            return f"must be {'>' if self.above else 'at least'} {self.least}"
        return f"must be at most {self.largest:.10g}" if value > self.largest else None


@dataclass(frozen=True, eq=False)
class Among:
    """Names to choose from; a registry of them is not hashable, but a type must be."""

    names: Collection[str]

    def describe_problem(self, value: object) -> str | None:
        """Say what was expected of a name that is none of them; None for one that is."""
        return None if value in self.names else f"must be one of: {', '.join(self.names)}"


Seed = Annotated[int, Range(0, 2**63 - 1)]
Count = Annotated[int, Range(1, LARGEST_INTEGER)]
SeveralCount = Annotated[int, Range(2, LARGEST_INTEGER)]
OptionalSize = Annotated[int, Range(0, LARGEST_INTEGER)]
Positive = Annotated[float, Range(0, LARGEST_FLOAT32, above=True)]
NonNegative = Annotated[float, Range(0, LARGEST_FLOAT32)]
Momentum = Annotated[float, Range(0, 1)]
Tolerance = Annotated[float, Range(0, 1, above=True)]

_TOLERANCE = Range(0, 1, above=True)
SOLVER_RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "rtol": _TOLERANCE,
        "atol": _TOLERANCE,
        "adjoint_rtol": _TOLERANCE,
        "adjoint_atol": _TOLERANCE,
        "step_size": Range(0, LARGEST_FLOAT32, above=True),
        "first_step": Range(0, LARGEST_FLOAT32, above=True),
        "max_nfe": Range(1, LARGEST_INTEGER),
    }
)
"""What a run takes of a solver, beyond what the solver itself refuses."""


def check_settings(config: object) -> None:
    """Check every field of a config against what its type declares, its solvers, and solver with gradient.

    Args:
        config: a dataclass; a field without bounds must at least be finite.

    Raises:
        ValueError: A setting is out of range; the message names it, what was expected and what came.
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        _check(name, getattr(config, name), hint)
        if isinstance(value := getattr(config, name), Solver):
            _check_step_size(name, value, getattr(config, "t1", 1.0))
    solver, gradient = getattr(config, "solver", None), getattr(config, "gradient", None)
    if isinstance(solver, Solver) and gradient is not None and (reason := supported(solver, gradient)):
        raise ValueError(f"gradient {gradient!r} does not go with this solver: {reason}")


def _check(name: str, value: Any, hint: Any) -> None:  # noqa: ANN401 (any setting and any type)
    if value is None:
        return
    if isinstance(value, Solver):
        _check_solver(name, value)
    elif isinstance(value, tuple | list):
        if not value:
            raise ValueError(f"{name} must hold at least one value; got none")
        for entry in value:
            _check(name, entry, hint)
    elif not is_dataclass(value):
        for rule in _find_rules(hint):
            if problem := rule.describe_problem(value):
                raise ValueError(f"{name} {problem}; got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be finite; got {value!r}")


def _check_solver(name: str, solver: Solver) -> None:
    for entry in fields(solver):
        value, limits = getattr(solver, entry.name), SOLVER_RANGES.get(entry.name)
        if value is not None and limits is not None and (problem := limits.describe_problem(value)):
            raise ValueError(f"{name}.{entry.name} {problem}; got {value!r}")


def _check_step_size(name: str, solver: Solver, t1: float) -> None:
    """Check that the steps of a pass can be listed and taken."""
    least = t1 / MAX_EVALUATIONS
    if solver.step_size is not None and solver.step_size < least:
        raise ValueError(
            f"{name}.step_size must be at least t1 / {MAX_EVALUATIONS:,} = {least:g}; got {solver.step_size!r}"
        )


def _find_rules(hint: Any) -> list[Range | Among]:  # noqa: ANN401 (any type)
    """Collect what a type declares, through optional and tuple types."""
    rules = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Range | Among)]
    for part in get_args(hint):
        rules += _find_rules(part)
    return rules


ADAPTIVE_METHODS = tuple(method for method in METHODS["torchdiffeq"] if Solver(method).is_adaptive)
"""Methods of the reference engine that follow tolerances."""
