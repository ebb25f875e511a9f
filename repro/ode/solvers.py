"""Choose how an initial value problem is solved."""

from dataclasses import KW_ONLY, dataclass, replace

from repro.checks import check_name
from repro.ode.runge_kutta import RUNGE_KUTTA

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
_COARSELY_INTERPOLATED = ("dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""Adaptive methods whose state at half a step, as torchdiffeq has it, is less exact than the one at its end: an output
inside a step of dopri8 misses a tolerance of 1e-12 by 24,000 times."""
FIXED_RUNGE_KUTTA = ("euler", "midpoint", "heun2", "heun3", "rk4")
FIXED_ADAMS = ("explicit_adams", "implicit_adams")
OWN_ADAPTIVE = tuple(name for name, method in RUNGE_KUTTA.items() if method.is_adaptive)
OWN_FIXED = tuple(name for name, method in RUNGE_KUTTA.items() if not method.is_adaptive)

METHODS = {
    "torchdiffeq": (*ADAPTIVE, *FIXED_RUNGE_KUTTA, *FIXED_ADAMS),
    "scipy": ("adams",),
    "compiled": ("dopri5", "bosh3", *FIXED_RUNGE_KUTTA, *RUNGE_KUTTA),
}
"""Methods that each engine offers."""

ORDERS = {
    "dopri5": 5,
    "dopri8": 8,
    "bosh3": 3,
    "fehlberg2": 2,
    "adaptive_heun": 2,
    "euler": 1,
    "midpoint": 2,
    "heun2": 2,
    "heun3": 3,
    "rk4": 4,
    "explicit_adams": 4,
    "implicit_adams": 4,
    "adams": None,
    **{name: method.order for name, method in RUNGE_KUTTA.items()},
}
"""Order p of each method: the global error at the steps' ends is O(dt^p).

The torchdiffeq Adams methods start with Runge-Kutta steps of order 4, which limits implicit_adams whatever order its
later steps reach; explicit_adams is held at order 4, because at torchdiffeq's default, order 11, it is unstable at any
useful step. fehlberg2 begins a step with the last stage of the one before, as torchdiffeq has it, though that is not
the field at the step's start: its error is some hundred times the tolerance. None: VODE varies its order from 1
to 12.
"""


@dataclass(frozen=True)
class Solver:
    """A numerical method and its settings.

    Args:
        method: One of `METHODS[engine]`, in torchdiffeq's spelling; `RUNGE_KUTTA` has those that it lacks.
        rtol: Relative tolerance; used by adaptive methods, by "adams" and by implicit_adams' corrector.
        atol: Absolute tolerance. A step is kept when RMS(error / (atol + rtol·|y|)) ≤ 1.
        engine: "torchdiffeq"; "compiled" for the same steps with less overhead, native ones where the field offers a
            kernel; or "scipy" for VODE's implicit Adams, the kind of solver that the Neural ODE paper used.
        step_size: Step of a fixed-step method; None makes one step per output interval. States at output times between
            two steps' ends, and so at all of several output times within one step, are interpolated linearly, to order
            2 whatever the method's order: let output times be multiples of the step, or the steps be the intervals.
        first_step: First step of an adaptive method; None spends one evaluation to estimate it.
        max_step: Longest step of an adaptive method; None is no limit. Without it a forcing that lasts for a short time
            may lie between two stages, unseen: make it shorter than such a pulse, or solve up to the pulse's start,
            through it and on, so that steps end where the field jumps.
        max_nfe: Most evaluations of the field in one pass (forward, or backward); None is no limit.
        adjoint_rtol: Relative tolerance of the backward solve; None takes `rtol`.
        adjoint_atol: Absolute tolerance of the backward solve; None takes `atol`.
        max_backward_drift: Largest drift of the adjoint method's backward solve, in units of its tolerances, beyond
            which it raises `BackwardDrift`; None only warns, see `repro.ode.adjoint.adjoint`.

    Raises:
        ValueError: A setting is out of range or has no meaning for the method; the message names it.
    """

    method: str = "dopri5"
    _: KW_ONLY
    rtol: float = 1e-5
    atol: float = 1e-5
    engine: str = "torchdiffeq"
    step_size: float | None = None
    first_step: float | None = None
    max_step: float | None = None
    max_nfe: int | None = None
    adjoint_rtol: float | None = None
    adjoint_atol: float | None = None
    max_backward_drift: float | None = None

    def __post_init__(self) -> None:
        check_name("engine", self.engine, METHODS)
        check_name(f"method (engine {self.engine!r})", self.method, METHODS[self.engine])
        for name in ("rtol", "atol", *_OPTIONAL):
            _check_positive(name, getattr(self, name), optional=name in _OPTIONAL)
        if self.max_nfe is not None and not isinstance(self.max_nfe, int):
            raise ValueError(f"max_nfe must be a whole number; got {self.max_nfe}")
        if self.step_size is not None and not self.is_fixed_step:
            raise ValueError(f"step_size has no meaning for {self.method!r}; allowed for: {_listed(_FIXED)}")
        for name in ("first_step", "max_step"):
            if getattr(self, name) is not None and self.is_fixed_step:
                raise ValueError(f"{name} has no meaning for {self.method!r}; allowed for: {_listed(_VARIABLE)}")

    def tighten(self, factor: float = 10.0) -> "Solver":
        """Divide both tolerances by a factor, or the step size where the steps are fixed."""
        if self.step_size is not None:
            return replace(self, step_size=self.step_size / factor)
        return replace(self, rtol=self.rtol / factor, atol=self.atol / factor)

    @property
    def is_fixed_step(self) -> bool:
        """Whether the steps follow `step_size` instead of the tolerances."""
        return self.method in _FIXED

    @property
    def is_adaptive(self) -> bool:
        """Whether the steps follow the tolerances."""
        return not self.is_fixed_step

    @property
    def ends_steps_on_outputs(self) -> bool:
        """Whether steps are cut short to end on output times, since the method's interpolant is of lower order."""
        return self.method in _COARSELY_INTERPOLATED

    @property
    def is_explicit_runge_kutta(self) -> bool:
        """Whether each step is an explicit Runge-Kutta step, which can be replayed from its start alone."""
        return self.method in (*ADAPTIVE, *FIXED_RUNGE_KUTTA, *RUNGE_KUTTA)

    @property
    def order(self) -> int | None:
        """Order of convergence; None for VODE, which varies it."""
        return ORDERS[self.method]


_FIXED = (*FIXED_RUNGE_KUTTA, *FIXED_ADAMS, *OWN_FIXED)
_VARIABLE = (*ADAPTIVE, *METHODS["scipy"], *OWN_ADAPTIVE)
_OPTIONAL = ("step_size", "first_step", "max_step", "max_nfe", "adjoint_rtol", "adjoint_atol", "max_backward_drift")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _check_positive(argument: str, value: object, *, optional: bool) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{argument} must be a number; got {type(value).__name__}")
    if not 0 < value < float("inf"):  # also catches NaN
        raise ValueError(f"{argument} must be finite and > 0; got {value}")


SOLVERS = {
    "dopri5": Solver("dopri5"),
    "dopri8": Solver("dopri8"),
    "bosh3": Solver("bosh3"),
    "fehlberg2": Solver("fehlberg2"),
    "adaptive_heun": Solver("adaptive_heun"),
    "euler": Solver("euler", step_size=0.05),
    "midpoint": Solver("midpoint", step_size=0.05),
    "heun2": Solver("heun2", step_size=0.05),
    "heun3": Solver("heun3", step_size=0.05),
    "rk4": Solver("rk4", step_size=0.05),
    "explicit_adams": Solver("explicit_adams", step_size=0.05),
    "implicit_adams": Solver("implicit_adams", step_size=0.05),
    "vode_adams": Solver("adams", engine="scipy"),
    "dopri5_compiled": Solver("dopri5", engine="compiled"),
    "bosh3_compiled": Solver("bosh3", engine="compiled"),
    "heun2_compiled": Solver("heun2", engine="compiled", step_size=0.05),
    "heun3_compiled": Solver("heun3", engine="compiled", step_size=0.05),
    "euler_compiled": Solver("euler", engine="compiled", step_size=0.05),
    "midpoint_compiled": Solver("midpoint", engine="compiled", step_size=0.05),
    "rk4_compiled": Solver("rk4", engine="compiled", step_size=0.05),
    **{
        name: Solver(name, engine="compiled", step_size=None if method.is_adaptive else 0.05)
        for name, method in RUNGE_KUTTA.items()
    },
}
"""A solver of every method by name, in the engines that offer it; fixed steps are of 0.05."""
