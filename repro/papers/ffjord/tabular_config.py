"""Settings of FFJORD's flows on tables."""

from dataclasses import dataclass

from repro import experiment
from repro.checks import check_name, check_positive_counts
from repro.data.tabular import SIZES
from repro.flows.divergence import DIVERGENCES
from repro.nets.fields import ACTIVATIONS, FIELDS
from repro.ode import Solver, supported
from repro.papers.ffjord.tabular_training import Objective, Schedule

_COUNTS = ("n_flows", "depth", "multiplier", "batch", "iterations", "patience", "validation_every", "check_rows")
_LIMITS = ("validation_rows", "test_rows")


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one flow on one table; defaults are POWER's."""

    data: str = "power"
    """Data set, by its name in DATASETS (paper)."""
    objective: Objective = "likelihood"
    """Maximum likelihood (paper), or flow matching for one CNF (ours)."""
    layer: str = "concatsquash"
    """Layer of the field, by its name in FIELDS (public code; `concat` in the paper's text and a third party's)."""
    n_flows: int = 5
    """CNFs one after the other (paper, Table 4)."""
    depth: int = 3
    """Hidden layers of each field (paper, Table 4)."""
    multiplier: int = 10
    """Units of each hidden layer, in multiples of the data's dimension (paper, Table 4)."""
    activation: str = "tanh"
    """Between the layers (paper, Table 4)."""
    t1: float = 1.0
    """End of each CNF's time interval (public code)."""
    divergence: str = "hutchinson"
    """Estimator of the divergence in training (paper)."""
    noise: str = "gaussian"
    """Noise of Hutchinson's estimator (public code)."""
    solver: Solver = Solver("dopri5", rtol=1e-6, atol=1e-8)
    """Solver in training and validation (paper)."""
    gradient: str = "adjoint"
    """Gradient method (paper)."""
    batch: int = 10_000
    """Rows per update (paper, Table 4)."""
    iterations: int = 1_000_000
    """Updates at most (ours; the paper states none, the public script stops by its schedule alone)."""
    learning_rate: float = 1e-3
    """Of Adam, at the start (public code)."""
    schedule: Schedule = "plateau"
    """`plateau`: drops and end by the validations (public code); `cosine`: to 0 over all updates (ours)."""
    patience: int = 10
    """Validations without improvement up to a drop, and between two; the third drop is the end (public code)."""
    validation_every: int = 200
    """Updates between two validations (public code)."""
    validation_rows: int | None = None
    """Validate on so many rows only; None is all (public code)."""
    validation_divergence: str = "hutchinson"
    """Estimator in validation (public code), with the same probes each time (ours)."""
    test_rows: int | None = None
    """Test on so many rows only; None is all (paper)."""
    test_solver: Solver = Solver("dopri5", rtol=1e-6, atol=1e-8)
    """Solver of the test, whose trace is exact (paper)."""
    check_rows: int = 1_000
    """Rows on which tolerance and probes are checked (ours)."""
    probe_draws: int = 8
    """Draws of the probes for their variance (ours)."""
    warm_start: str | None = None
    """Cell whose trained weights to start from (ours)."""
    penalty_weight: float | None = None
    """Weight of each of RNODE's penalties, kinetic energy and Jacobian, in training (ours); None is without."""
    end_time_spread: float | None = None
    """STEER: in training each interval ends at a time drawn from t1 ± so much (ours); None is without."""

    def __post_init__(self) -> None:
        check_name("data", self.data, SIZES)
        check_name("layer", self.layer, FIELDS)
        check_name("activation", self.activation, ACTIVATIONS)
        check_name("validation_divergence", self.validation_divergence, DIVERGENCES)
        check_positive_counts(**{name: getattr(self, name) for name in _COUNTS})
        check_positive_counts(**{name: 1 if (n := getattr(self, name)) is None else n for name in _LIMITS})
        if self.probe_draws < 2:
            raise ValueError(f"probe_draws must be at least 2, for a variance; got {self.probe_draws}")
        if self.batch > SIZES[self.data][1]:
            raise ValueError(f"batch must be at most the {SIZES[self.data][1]} training rows; got {self.batch}")
        if self.penalty_weight is not None and not self.penalty_weight > 0:
            raise ValueError(f"penalty_weight must be > 0; got {self.penalty_weight}")
        if self.end_time_spread is not None and not 0 < self.end_time_spread < self.t1:
            raise ValueError(f"end_time_spread must be in (0, t1 = {self.t1}); got {self.end_time_spread}")
        if self.objective == "flow_matching" and (self.penalty_weight or self.end_time_spread):
            raise ValueError("penalty_weight and end_time_spread belong to training by likelihood")
        if self.objective == "flow_matching" and self.n_flows > 1:
            raise ValueError(f"n_flows must be 1 for flow matching, which trains one CNF; got {self.n_flows}")
        if reason := supported(self.solver, self.gradient):
            raise ValueError(reason)
