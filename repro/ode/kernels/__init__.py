"""Single Runge-Kutta steps in native or compiled code, behind one protocol."""

from repro.ode.kernels.advances import compile_seconds
from repro.ode.kernels.build import library, used
from repro.ode.kernels.convolution import ConvolutionKernel
from repro.ode.kernels.layers import AffineLayer, MovingLayers, SharedLayers, why_not_layers
from repro.ode.kernels.memory import empty_cache
from repro.ode.kernels.perceptron import PerceptronKernel
from repro.ode.kernels.plain import overridden, unlike
from repro.ode.kernels.protocol import (
    Cotangents,
    HoldsNoise,
    Kept,
    OffersAdjoint,
    StageTimes,
    StepKernel,
    StepResult,
    Steps,
)
from repro.ode.kernels.traced import TracedKernel

__all__ = [
    "AffineLayer",
    "ConvolutionKernel",
    "Cotangents",
    "HoldsNoise",
    "Kept",
    "MovingLayers",
    "OffersAdjoint",
    "PerceptronKernel",
    "SharedLayers",
    "StageTimes",
    "StepKernel",
    "StepResult",
    "Steps",
    "TracedKernel",
    "compile_seconds",
    "empty_cache",
    "library",
    "overridden",
    "unlike",
    "used",
    "why_not_layers",
]
