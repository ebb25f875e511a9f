"""The layers that the native kernel multiplies by: where their numbers lie, and how gradients get to parameters."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from repro.ode.kernels.views import places_of

MAX_STAGES = 8
STEPS_PREPARED = 64
"""Steps whose layers are held, as functions of time, so that a replay need not make them again; memory is bounded by
them, not by the steps of a solve."""


class AffineLayer(NamedTuple):
    """A layer x ↦ W(t) x + b(t) with W(t) = g(t) W, b(t) = g(t) b + t s, g(t) = sigmoid(t g₁ + g₀).

    Attributes:
        weight: W [out in].
        bias: b [out].
        gate_weight: g₁ [out]; None for g = 1.
        gate_bias: g₀ [out]; None with `gate_weight`.
        shift: s [out]; None for 0.
    """

    weight: Tensor
    bias: Tensor
    gate_weight: Tensor | None = None
    gate_bias: Tensor | None = None
    shift: Tensor | None = None


Numbers = tuple[Tensor | None, ...]
"""A layer's numbers, or their gradients, as the kernel has them in order: `AffineLayer`, `ConvolutionLayer`."""
LayersAt = Callable[[Float[Tensor, " stage"]], Sequence[AffineLayer]]
"""Layers at several times, each number with a first axis for them."""


@runtime_checkable
class Source(Protocol):
    """Gives the kernel its layers, and takes their gradients."""

    like: Tensor
    """The first number that the first layer has, for dtype and device; of a perceptron its weight [out in]."""
    n_stages: int
    """1, or for how many stages the layers are given one by one."""
    held: list[Numbers]
    """What the kernel reads."""

    def prepare(self, times: list[float]) -> None:
        """Have the layers of these stages in `held`."""
        ...

    def into(self, thread: int) -> list[Numbers]:
        """Where a thread adds gradients, in the form of `held`."""
        ...

    def collect(self) -> None:
        """Take over what the threads have added for the stages last prepared."""
        ...

    def gradients(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """What was collected, for each parameter; the next collection starts from zero."""
        ...

    def carry(self, parameters: tuple[Tensor, ...]) -> "Carry":
        """How gradients of the layers' numbers at every stage become the parameters'."""
        ...


Carry = Callable[[Float[Tensor, "sum stage"], Float[Tensor, "stage numbers_and_zero"]], Float[Tensor, "sum parameters"]]
"""Takes the stages' weights in some sums, and for each of the stages last prepared the gradients of the layers'
numbers, one after the other, and a zero. Gives the sums' gradients of the parameters, one after the other."""


class SharedLayers:
    """Layers that all stages share, time entering by their gates and shifts alone.

    Args:
        layers: Their numbers, differentiable in the parameters.
    """

    n_stages = 1

    def __init__(self, layers: Sequence[Numbers]) -> None:
        self._layers, self.like = layers, numbers_of(layers)[0].detach()
        self.held = [_held(layer) for layer in layers]
        self._threads: list[list[Numbers]] = []

    def prepare(self, times: list[float]) -> None:
        """Nothing to do: the kernel knows gates and shifts."""

    def into(self, thread: int) -> list[Numbers]:
        """See `Source`."""
        return _of_thread(self._threads, thread, self.held)

    def collect(self) -> None:
        """Nothing to do: the threads' sums stay where they are."""

    def gradients(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """See `Source`; through the views by which layers hold parameters."""
        return _pulled(self._layers, _take(self._threads), parameters)

    def carry(self, parameters: tuple[Tensor, ...]) -> Carry:
        """See `Source`; numbers that are the parameters' are moved, others pulled back."""
        places = places_of(numbers_of(self._layers), parameters)
        if places is not None:
            return lambda weights, by_numbers: (weights @ by_numbers)[:, places]

        def carried(weights: Tensor, by_numbers: Tensor) -> Tensor:
            if not parameters:
                return by_numbers.new_zeros(len(weights), 0)
            sums = (weights @ by_numbers)[:, :-1]
            return torch.stack(
                [_flat(_pulled(self._layers, laid_out(g, self.held), parameters), parameters) for g in sums]
            )

        return carried


class MovingLayers:
    """Layers that some function of the time gives, evaluated at each step's stages.

    Args:
        at: The layers at several times; differentiable in the parameters.
        like: For dtype and device.
    """

    n_stages = MAX_STAGES

    def __init__(self, at: LayersAt, like: Tensor) -> None:
        self._at, self._times = at, like.new_zeros(0)
        with torch.no_grad():
            first = at(like.new_zeros(MAX_STAGES))
        self.like, self.held = first[0].weight[0], [_held(layer) for layer in first]
        self._threads: list[list[Numbers]] = []
        self._collected: list[tuple[Tensor, list[Numbers]]] = []
        self._prepared: OrderedDict[float, tuple[list[float], Tensor, Sequence[AffineLayer]]] = OrderedDict()

    def prepare(self, times: list[float]) -> None:
        """See `Source`; of the last `STEPS_PREPARED` steps one that is replayed has its layers as they were."""
        before, tensor, layers = self._prepared.get(times[0], ((), None, None))
        if layers is None or tensor is None or before[: len(times)] != times:
            tensor = self.like.new_tensor(times)
            with torch.no_grad():
                layers = self._at(tensor)
            self._prepared[times[0]] = times, tensor, layers
            if len(self._prepared) > STEPS_PREPARED:
                self._prepared.popitem(last=False)
        self._times = tensor[: len(times)]
        for target, layer in zip(self.held, layers, strict=True):
            for into, value in zip(target, layer, strict=True):
                if into is not None and value is not None:
                    into[: len(times)] = value[: len(times)]

    def into(self, thread: int) -> list[Numbers]:
        """See `Source`."""
        return _of_thread(self._threads, thread, self.held)

    def collect(self) -> None:
        """See `Source`."""
        n = len(self._times)
        sums = [tuple(None if x is None else x[:n].clone() for x in layer) for layer in _take(self._threads)]
        self._collected.append((self._times, sums))

    def gradients(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """See `Source`; one evaluation of the layers at the times of all steps."""
        if not self._collected:
            return (None,) * len(parameters)
        times, parts = zip(*self._collected, strict=True)
        self._collected = []
        with torch.enable_grad():
            layers = self._at(torch.cat(times))
        sums = [tuple(_joined(column) for column in zip(*layer, strict=True)) for layer in zip(*parts, strict=True)]
        return _pulled(layers, sums, parameters)

    def carry(self, parameters: tuple[Tensor, ...]) -> Carry:
        """See `Source`; one evaluation of the layers at the stages' times."""

        def carried(weights: Tensor, by_numbers: Tensor) -> Tensor:
            if not parameters:
                return by_numbers.new_zeros(len(weights), 0)
            with torch.enable_grad():
                layers = self._at(self._times)
            like = [tuple(None if x is None else x[: len(self._times)] for x in layer) for layer in self.held]
            sizes = [x[0].numel() for x in numbers_of(like)]
            rows = []
            for weight in weights:
                parts = iter((weight.unsqueeze(1) * by_numbers[:, :-1]).split(sizes, 1))
                sums = [tuple(None if x is None else next(parts).reshape(x.shape) for x in layer) for layer in like]
                rows.append(_flat(_pulled(layers, sums, parameters), parameters))
            return torch.stack(rows)

        return carried


def why_not_layers(layers: Sequence[Numbers], needed: Sequence[int]) -> str | None:
    """Why a kernel cannot read these layers; None if it can.

    Args:
        layers: Their numbers.
        needed: Places of those that each layer must have.
    """
    like = layers[0][needed[0]]
    if like is None or any(layer[place] is None for layer in layers for place in needed):
        return "a layer lacks its weight, bias, gain or offset"
    if any(x.dtype != like.dtype or x.device != like.device for x in numbers_of(layers)):
        return "its layers differ in dtype or device"
    return None


def numbers_of(layers: Sequence[Numbers]) -> list[Tensor]:
    """What of layers' numbers there is."""
    return [x for layer in layers for x in layer if x is not None]


def laid_out(flat: Float[Tensor, " numbers"], like: Sequence[Numbers]) -> list[Numbers]:
    """Views of a vector as layers' numbers, one after the other."""
    parts = iter(flat.split([x.numel() for x in numbers_of(like)]))
    return [tuple(None if x is None else next(parts).view(x.shape) for x in layer) for layer in like]


def _held(layer: Numbers) -> Numbers:
    """The layer's numbers as the kernel reads them: rows of the weight may lie apart, vectors may not."""
    return tuple(None if x is None else _in_rows(x.detach()) for x in layer)


def _in_rows(x: Tensor) -> Tensor:
    return x if x.ndim == 2 and x.stride(1) == 1 else x.contiguous()


def _of_thread(threads: list[list[Numbers]], thread: int, like: Sequence[Numbers]) -> list[Numbers]:
    """A thread's sums, which begin with zero."""
    while len(threads) <= thread:
        threads.append(_zeros(like))
    return threads[thread]


def _zeros(layers: Sequence[Numbers]) -> list[Numbers]:
    return [tuple(None if x is None else torch.zeros(x.shape, dtype=x.dtype) for x in layer) for layer in layers]


def _take(threads: Sequence[Sequence[Numbers]]) -> list[Numbers]:
    """Sum over threads, which start from zero again."""
    sums = [
        tuple(
            None if parts[0] is None else functools.reduce(torch.add, parts).clone()
            for parts in zip(*of_layer, strict=True)
        )
        for of_layer in zip(*threads, strict=True)
    ]
    for thread in threads:
        for layer in thread:
            for x in layer:
                if x is not None:
                    x.zero_()
    return sums


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    return None if parts[0] is None else torch.cat([part for part in parts if part is not None])


def _pulled(
    layers: Sequence[Numbers], grads: Sequence[Numbers], parameters: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Cotangents of the layers' numbers, pulled back to the parameters."""
    pairs = [pair for layer, sums in zip(layers, grads, strict=True) for pair in zip(layer, sums, strict=True)]
    used = [(x, g.view_as(x)) for x, g in pairs if x is not None and g is not None and x.requires_grad]
    if not used:
        return (None,) * len(parameters)
    outputs, vectors = zip(*used, strict=True)
    return torch.autograd.grad(outputs, parameters, vectors, retain_graph=True, allow_unused=True)


def _flat(grads: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Float[Tensor, " parameters"]:
    """Gradients of the parameters, one after the other, zero where there is none; there is at least one parameter."""
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(grads, parameters, strict=True)]
    )
