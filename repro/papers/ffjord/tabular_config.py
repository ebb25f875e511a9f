"""Settings of FFJORD's flows on tables."""

from dataclasses import dataclass
from typing import Annotated

from repro import experiment
from repro.data.tabular import SIZES
from repro.flows import NOISES
from repro.flows.augmented import check_estimator
from repro.flows.divergence import DIVERGENCES
from repro.nets.fields import ACTIVATIONS, FIELDS
from repro.ode import GRADIENTS, Solver
from repro.papers.ffjord.tabular_training import Objective, Schedule
from repro.settings import Among, Count, Positive, SeveralCount


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one flow on one table; defaults are POWER's."""

    data: Annotated[str, Among(SIZES)] = "power"
    """Data set, by its name in DATASETS (paper)."""
    objective: Objective = "likelihood"
    """Maximum likelihood (paper), or flow matching for one CNF (ours)."""
    layer: Annotated[str, Among(FIELDS)] = "concatsquash"
    """Layer of the field, by its name in FIELDS (public code; `concat` in the paper's text and a third party's)."""
    n_flows: Count = 5
    """CNFs one after the other (paper, Table 4)."""
    depth: Count = 3
    """Hidden layers of each field (paper, Table 4)."""
    multiplier: Count = 10
    """Units of each hidden layer, in multiples of the data's dimension (paper, Table 4)."""
    activation: Annotated[str, Among(ACTIVATIONS)] = "tanh"
    """Between the layers (paper, Table 4)."""
    t1: Positive = 1.0
    """End of each CNF's time interval (public code)."""
    divergence: Annotated[str, Among(DIVERGENCES)] = "hutchinson"
    """Estimator of the divergence in training (paper)."""
    noise: Annotated[str, Among(NOISES)] = "gaussian"
    """Noise of Hutchinson's estimator (public code)."""
    solver: Solver = Solver("dopri5", rtol=1e-6, atol=1e-8)
    """Solver in training and validation (paper)."""
    gradient: Annotated[str, Among(GRADIENTS)] = "adjoint"
    """Gradient method (paper)."""
    batch: Count = 10_000
    """Rows per update (paper, Table 4)."""
    iterations: Count = 1_000_000
    """Updates at most (ours; the paper states none, the public script stops by its schedule alone)."""
    learning_rate: Positive = 1e-3
    """Of Adam, at the start (public code)."""
    schedule: Schedule = "plateau"
    """`plateau`: drops and end by the validations (public code); `cosine`: to 0 over all updates (ours)."""
    patience: Count = 10
    """Validations without improvement up to a drop, and between two; the third drop is the end (public code)."""
    validation_every: Count = 200
    """Updates between two validations (public code)."""
    validation_rows: Count | None = None
    """Validate on so many rows only; None is all (public code)."""
    validation_divergence: Annotated[str, Among(DIVERGENCES)] = "hutchinson"
    """Estimator in validation (public code), with the same probes each time (ours)."""
    test_rows: SeveralCount | None = None
    """Test on so many rows only; None is all (paper)."""
    test_solver: Solver = Solver("dopri5", rtol=1e-6, atol=1e-8)
    """Solver of the test, whose trace is exact (paper)."""
    check_rows: Count = 1_000
    """Rows on which tolerance and probes are checked (ours)."""
    probe_draws: SeveralCount = 8
    """Draws of the probes for their variance (ours)."""
    warm_start: str | None = None
    """Cell whose trained weights to start from (ours)."""
    penalty_weight: Positive | None = None
    """Weight of each of RNODE's penalties, kinetic energy and Jacobian, in training (ours); None is without."""
    end_time_spread: Positive | None = None
    """STEER: in training each interval ends at a time drawn from t1 ± so much (ours); None is without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for divergence in (self.divergence, self.validation_divergence):
            check_estimator(divergence, self.noise, 1, (), SIZES[self.data][0])
        if self.batch > SIZES[self.data][1]:
            raise ValueError(f"batch must be at most the {SIZES[self.data][1]} training rows; got {self.batch}")
        if self.end_time_spread is not None and not 0 < self.end_time_spread < self.t1:
            raise ValueError(f"end_time_spread must be in (0, t1 = {self.t1}); got {self.end_time_spread}")
        if self.objective == "flow_matching" and (self.penalty_weight or self.end_time_spread):
            raise ValueError("penalty_weight and end_time_spread belong to training by likelihood")
        if self.objective == "flow_matching" and self.n_flows > 1:
            raise ValueError(f"n_flows must be 1 for flow matching, which trains one CNF; got {self.n_flows}")
