"""Runge-Kutta steps of fields of small images (norms and 3x3 convolutions) by native code."""

import ctypes
import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from repro.ode.kernels.build import why_none
from repro.ode.kernels.layers import Numbers, SharedLayers, why_not_layers
from repro.ode.kernels.native import TYPES, Native, address, why_not_of
from repro.ode.kernels.steps import NativeKernel


class ConvolutionLayer(NamedTuple):
    """A group norm, and unless it is the field's last layer a ReLU and a convolution after it.

    Attributes:
        weight: The convolution's, at Winograd's points [25 out in], see `at_points`; None for none.
        bias: Its bias [out].
        drift: What it gives in a channel of ones [out height width], times t.
        gain: Of the norm [channel].
        offset: Of the norm [channel].
    """

    weight: Tensor | None
    bias: Tensor | None
    drift: Tensor | None
    gain: Tensor
    offset: Tensor


POINTS = ((1 / 2, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 6, -1 / 6, 1 / 6), (1 / 6, 1 / 3, 2 / 3), (0, 0, 1))
"""Of F(3x3, 3x3): the polynomial of three weights at 0, 1, -1, 2 and infinity, scaled so that what source/winograd.hpp
does to images has whole numbers."""


def _layer(norm: nn.GroupNorm, conv: nn.Conv2d, image: tuple[int, int]) -> ConvolutionLayer:
    """A norm, a ReLU, and a convolution whose first channel is full of t, for images of this height and width."""
    drift = F.conv2d(conv.weight.new_ones(1, 1, *image), conv.weight[:, :1], padding=1)[0]
    return ConvolutionLayer(at_points(conv.weight[:, 1:]), conv.bias, drift, norm.weight, norm.bias)


def _unlike(norms: Sequence[nn.GroupNorm], convolutions: Sequence[nn.Conv2d]) -> str | None:
    """What is not as `ConvolutionKernel.of` takes it; None if all is."""
    if any(norm.weight is None or norm.bias is None for norm in norms):
        return "a norm has no gain or offset"
    if norms[-1].num_channels != norms[0].num_channels:
        return "its value has other channels than its state"
    if len({(norm.num_groups, norm.eps) for norm in norms}) > 1:
        return "its norms differ in groups or eps"
    for (before, after), conv in zip(pairwise(norms), convolutions, strict=True):
        sizes = conv.in_channels, conv.out_channels
        shape = conv.kernel_size, conv.padding, conv.stride, conv.dilation, conv.groups, conv.padding_mode
        known = (3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros"
        if sizes != (before.num_channels + 1, after.num_channels) or shape != known:
            return "the kernel knows 3x3 convolutions with a border of zeros, of the time and the norm's channels"
        if conv.bias is None:
            return "a convolution has no bias"
    return None


def at_points(weight: Float[Tensor, "out in 3 3"]) -> Float[Tensor, "25 out in"]:
    """G w Gᵀ for each pair of channels (Lavin and Gray 2016, arXiv 1509.09308, eq. 8)."""
    g = weight.new_tensor(POINTS)
    return (torch.kron(g, g) @ weight.flatten(2).flatten(0, 1).T).unflatten(1, weight.shape[:2])


class ConvolutionKernel(NativeKernel):
    """Steps of dy/dt = norm(conv(relu(norm(… y)))) on images, each convolution 3x3 with a border of zeros.

    Args:
        layers: The field's, the last one a norm alone; differentiable in the parameters.
        groups: Of the norms.
        eps: Of the norms.
        image: Height and width.
    """

    def __init__(self, layers: Sequence[ConvolutionLayer], groups: int, eps: float, image: tuple[int, int]) -> None:
        source = SharedLayers(layers)
        self._layer, self._problem_type, native = _structures(source.like.dtype)
        super().__init__(source, native, native.lanes)
        self._sizes, self._eps = (groups, *image), eps

    @classmethod
    def of(
        cls, norms: Sequence[nn.GroupNorm], convolutions: Sequence[nn.Conv2d], y: Tensor
    ) -> "ConvolutionKernel | str":
        """Steps from states like y, or why there are none.

        Args:
            norms: Alike in groups and eps, with gain and offset.
            convolutions: Between them, each 3x3 with a border of zeros, a bias, and the time as its first channel.
            y: State.
        """
        last = norms[-1]
        if reason := _unlike(norms, convolutions) or cls.why_not(last.weight, last.num_channels, y):
            return reason
        image = (y.shape[2], y.shape[3])
        with torch.enable_grad():
            layers = [_layer(norm, conv, image) for norm, conv in zip(norms[:-1], convolutions, strict=True)]
        layers.append(ConvolutionLayer(None, None, None, last.weight, last.bias))
        return why_not_layers(layers, (3, 4)) or cls(layers, last.num_groups, last.eps, image)

    @staticmethod
    def why_not(like: Tensor, channels: int, y: Tensor) -> str | None:
        """Why there is no kernel for steps from y [batch channel height width]; None if there is.

        Args:
            like: One of the field's parameters.
            channels: Of the state.
            y: State.
        """
        if y.ndim != 4 or y.shape[1] != channels or y.dtype != like.dtype:
            return f"it takes {like.dtype} images of {channels} channels, not {y.dtype} {tuple(y.shape)}"
        return why_not_of(like) or why_none()

    def _parts(self, rows: int) -> int:
        return max(1, min(torch.get_num_threads(), -(-rows // self._grain)))

    def _worth_keeping(self) -> bool:
        return len(self._source.held) > 1  # the last layer has no convolution

    def _described(
        self, held: Sequence[Sequence[Numbers]], into: Sequence[Sequence[Numbers]], rows: int, apart: int = 0
    ) -> Any:  # noqa: ANN401
        entries = [self._entry(*pair) for pair in zip(held[0], into[0], strict=True)]
        array = (self._layer * len(entries))(*entries)
        return self._problem_type(array, len(entries), *self._sizes, rows, apart, self._eps)

    def _entry(self, held: Numbers, into: Numbers) -> Any:  # noqa: ANN401
        weight, gain = held[0], held[3]
        assert gain is not None
        n_out = 0 if weight is None else weight.shape[1]
        return self._layer(*map(address, (*held, *into)), len(gain), n_out)


@functools.cache
def _structures(dtype: torch.dtype) -> tuple[type[ctypes.Structure], type[ctypes.Structure], Native]:
    """Layer and Problem of source/convolution.hpp, and the functions that read them."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64

    class Layer(ctypes.Structure):
        _fields_ = [*[(f"pointer{i}", pointer) for i in range(10)], ("n_in", size), ("n_out", size)]

    class Problem(ctypes.Structure):
        _fields_ = [
            ("layers", ctypes.POINTER(Layer)),
            *[(n, size) for n in ("n_layers", "groups", "height", "across", "rows", "apart")],
            ("eps", TYPES[dtype][0]),
        ]

    return Layer, Problem, Native("convolution", Problem, dtype)
