"""Single Runge-Kutta steps in native or compiled code, behind one protocol."""

from repro.ode.kernels.advances import compile_seconds
from repro.ode.kernels.build import library, used
from repro.ode.kernels.convolution import ConvolutionKernel
from repro.ode.kernels.layers import AffineLayer, MovingLayers, SharedLayers, why_not_layers
from repro.ode.kernels.memory import empty_cache
from repro.ode.kernels.perceptron import PerceptronKernel
from repro.ode.kernels.plain import has_hook, hooked, read_weights, refuse_hooks, unlike
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
from repro.ode.kernels.registry import choose_kernel, register_kernel
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
    "choose_kernel",
    "compile_seconds",
    "empty_cache",
    "has_hook",
    "hooked",
    "library",
    "read_weights",
    "refuse_hooks",
    "register_kernel",
    "unlike",
    "used",
    "why_not_layers",
]
