"""Native code for single Runge-Kutta steps, behind one protocol."""

from repro.ode.kernels.build import library, used
from repro.ode.kernels.layers import AffineLayer, MovingLayers, SharedLayers
from repro.ode.kernels.perceptron import PerceptronKernel
from repro.ode.kernels.protocol import Cotangents, StageTimes, StepKernel, StepResult

__all__ = [
    "AffineLayer",
    "Cotangents",
    "MovingLayers",
    "PerceptronKernel",
    "SharedLayers",
    "StageTimes",
    "StepKernel",
    "StepResult",
    "library",
    "used",
]
