"""Fields for continuous normalizing flows: multilayer perceptrons whose layers see the time (FFJORD, Section 4).

At a given time every such layer is an affine map, y = W(t) x + b(t). A field therefore evaluates as a plain network
with weights W(t), b(t), formed once per evaluation, and pushes tangents through itself and sums its Jacobian's trace by
the same code whatever its layers are.
"""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from repro.checks import check_name, check_positive_counts
from repro.flows.products import unit_vectors
from repro.nets.layers import Affine, Concat, ConcatSquash, Ignore, Times
from repro.ode.kernels import PerceptronKernel, SharedLayers, refuse_hooks, register_kernel, unlike, why_not_layers

Layer = Callable[[int, int], nn.Module]
Slope = Callable[[Tensor, Tensor], Tensor]


def _tanh_slope(x: Tensor, h: Tensor) -> Tensor:
    return torch.addcmul(h.new_ones(()), h, h, value=-1)


def _softplus_slope(x: Tensor, h: Tensor) -> Tensor:
    return torch.sigmoid(x)


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Slope]] = {
    "tanh": (torch.tanh, _tanh_slope),
    "softplus": (F.softplus, _softplus_slope),
}
"""Activation h(x) and its derivative as a function of x and h."""


@register_kernel
class PerceptronField(nn.Module):
    """f(t, y): `depth` hidden layers of `width` units, no activation after the last layer.

    Args:
        layer: Makes a layer from its number of inputs and outputs.
        dim: Dimension of the state.
        width: Units of each hidden layer.
        depth: Hidden layers, at least one.
        activation: One of `ACTIVATIONS`, smooth, because solver and adjoint need derivatives.

    Raises:
        ValueError: A size is below 1, or the activation is not known; the message names the argument.
    """

    def __init__(self, layer: Layer, dim: int, width: int, depth: int, activation: str) -> None:
        super().__init__()
        check_positive_counts(dim=dim, width=width, depth=depth)
        check_name("activation", activation, ACTIVATIONS)
        sizes = [dim, *[width] * depth, dim]
        self.dim, self.width, self.depth = dim, width, depth
        self.layers = nn.ModuleList([layer(a, b) for a, b in itertools.pairwise(sizes)])
        self.activation = activation
        self._act, self._slope = ACTIVATIONS[activation]

    @property
    def bottleneck(self) -> int:
        """Numbers between `encode` and `decode`, per row: the width."""
        return self.width

    @property
    def _middle(self) -> int:
        """Layers of the encoder: half of them, rounded down."""
        return (self.depth + 1) // 2

    def _maps(self, t: Tensor, layers: slice = slice(None)) -> list[Affine]:
        chosen = self.layers[layers]
        for layer in chosen:
            refuse_hooks(layer)
        return [layer.at(t) for layer in chosen]  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]

    def forward(self, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """dy/dt at time t."""
        return self.decode(t, self.encode(t, y))

    def encode(self, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch width"]:
        """The first half of the layers, up to the next activation."""
        (weight, bias), *rest = self._maps(t, slice(self._middle))
        x = F.linear(y, weight, bias)
        for weight, bias in rest:
            x = F.linear(self._act(x), weight, bias)
        return x

    def decode(self, t: Float[Tensor, ""], h: Float[Tensor, "batch width"]) -> Float[Tensor, "batch dim"]:
        """The activation and the other half of the layers."""
        for weight, bias in self._maps(t, slice(self._middle, None)):
            h = F.linear(self._act(h), weight, bias)
        return h

    def at_times(self, t: Times, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """dy/dt where every row has a time of its own, as a regression of the field has it; a solve has one time."""
        first, *rest = self.layers
        x = first(t, y)
        for layer in rest:
            x = layer(t, self._act(x))
        return x

    def push(
        self, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], v: Float[Tensor, "probe batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "probe batch dim"]]:
        """f(t, y) and (∂f/∂y) v; a tangent costs one evaluation of the field."""
        (weight, bias), *rest = self._maps(t)
        x, v = F.linear(y, weight, bias), F.linear(v, weight)
        for weight, bias in rest:
            h = self._act(x)
            v = F.linear(v * self._slope(x, h), weight)
            x = F.linear(h, weight, bias)
        return x, v

    def divergence(
        self, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """f(t, y) and tr ∂f/∂y: exact, without variance and without a graph of its own.

        With D_l the diagonal of the l-th activation's slopes, tr(W3 D2 W2 D1 W1) = d2ᵀ [W2 ∘ (W1 W3)ᵀ] d1: one product
        of the batch with a [width width] matrix. One hidden layer needs a dot product, three need `width` times as
        much as two. With four or more, and wherever it is cheaper, the unit vectors are pushed through the field; this
        costs `dim` evaluations.
        """
        maps = self._maps(t)
        x = F.linear(y, *maps[0])
        slopes = []
        for weight, bias in maps[1:]:
            h = self._act(x)
            slopes.append(self._slope(x, h))
            x = F.linear(h, weight, bias)
        weights = [weight for weight, _ in maps]
        return x, (_folded_trace if self.folds else _pushed_trace)(weights, slopes)

    @property
    def folds(self) -> bool:
        """Whether `divergence` folds the first and last weights; else it pushes the unit vectors."""
        return self.depth < 3 or (self.depth == 3 and self.width < 2 * self.dim)

    def step_kernel(
        self,
        y: Float[Tensor, "batch columns"],
        probes: Float[Tensor, "probe batch dim"] | None = None,
        scale: float = 1.0,
        *,
        closed_form: bool = False,
    ) -> PerceptronKernel | str:
        """Native steps of the field, or why there are none.

        Args:
            y: State.
            probes: With them, of scale · Σ probeᵀ (∂f/∂y) probe too.
            scale: Of that sum.
            closed_form: Of the exact trace, where `divergence` pushes the unit vectors, as the kernel does.
        """
        if closed_form and self.folds and self.dim > 2:
            return "the kernel does not fold weights for the trace of this field"
        if closed_form:
            probes = unit_vectors(self.dim, y)
        if reason := self._unknown():
            return reason
        with torch.enable_grad():
            layers = [layer.affine() for layer in self.layers]  # pyright: ignore[reportCallIssue]
        reason = why_not_layers(layers, (0, 1))
        reason = reason or PerceptronKernel.why_not(layers[0].weight, self.activation, y, probes)
        return reason or PerceptronKernel(SharedLayers(layers), self.activation, probes, scale)

    def _unknown(self) -> str | None:
        """What of the field was replaced by something that a kernel does not know; None if nothing was."""
        if (self._act, self._slope) != ACTIVATIONS[self.activation]:
            return f"its activation is no longer {self.activation}"
        for layer in self.layers:
            if type(layer) not in (ConcatSquash, Concat, Ignore):
                return f"the kernel does not know {type(layer).__name__}"
            if any(unlike(part, nn.Linear) for part in layer.children()):
                return f"a part of {type(layer).__name__} is no linear layer"
        return None


def _folded_trace(weights: list[Tensor], slopes: list[Tensor]) -> Float[Tensor, " batch"]:
    """tr(W_L D_{L-1} … D_1 W_1) by way of W_1 W_L, for one, two or three diagonals."""
    first, *between, last = weights
    if not between:
        return slopes[0] @ (first * last.T).sum(1)
    folded = first @ last
    if len(between) == 1:
        return (F.linear(slopes[0], between[0] * folded.T) * slopes[1]).sum(1)
    # Σ_ijk d3_i W3_ij d2_j W2_jk d1_k F_ki
    inner = torch.matmul(between[0] * slopes[0].unsqueeze(1), folded)
    outer = torch.bmm(inner * between[1].T, slopes[2].unsqueeze(2)).squeeze(2)
    return (outer * slopes[1]).sum(1)


def _pushed_trace(weights: list[Tensor], slopes: list[Tensor]) -> Float[Tensor, " batch"]:
    """tr(W_L D_{L-1} … D_1 W_1) by pushing the unit vectors, whose images under W_1 are its columns."""
    first, *between, last = weights
    v = first.T.unsqueeze(1) * slopes[0]
    for weight, slope in zip(between, slopes[1:], strict=True):
        v = F.linear(v, weight) * slope
    return (v * last.unsqueeze(1)).sum((0, 2))


@register_kernel
class ConcatSquashField(PerceptronField):
    """Perceptron of `ConcatSquash` layers: the default of FFJORD's public scripts for toys and tables.

    The paper's text says that the time is concatenated in all experiments (see `ConcatField`). 9,224 parameters for
    dim 2, width 64, depth 3: the public model's 9,225 less its end time, which gets no gradient there.

    References:
        FFJORD's public code at 994864a, lib/layers/diffeq_layers and train_toy.py.
    """

    def __init__(self, dim: int, width: int = 64, depth: int = 3, activation: str = "tanh") -> None:
        super().__init__(ConcatSquash, dim, width, depth, activation)


@register_kernel
class ConcatField(PerceptronField):
    """Perceptron of `Concat` layers: time as one more input of every layer, as FFJORD's text says (Section 4)."""

    def __init__(self, dim: int, width: int = 64, depth: int = 3, activation: str = "tanh") -> None:
        super().__init__(Concat, dim, width, depth, activation)


@register_kernel
class IgnoreField(PerceptronField):
    """Perceptron of `Ignore` layers: an autonomous field."""

    def __init__(self, dim: int, width: int = 64, depth: int = 3, activation: str = "tanh") -> None:
        super().__init__(Ignore, dim, width, depth, activation)


FIELDS: dict[str, Callable[..., PerceptronField]] = {
    "concatsquash": ConcatSquashField,
    "concat": ConcatField,
    "ignore": IgnoreField,
}
"""Perceptron fields by the kind of their layers."""
