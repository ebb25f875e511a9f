"""Affine layers that see the time, of which the fields' perceptrons are made (FFJORD, Section 4)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repro.ode.kernels import AffineLayer, read_weights

Affine = tuple[Tensor, Tensor | None]
"""Weight [out in] and bias [out], if there is one, of a layer at one time."""
Times = Float[Tensor, "batch 1"]
Rows = Float[Tensor, "batch _"]


class ConcatSquash(nn.Module):
    """(W x + b) * sigmoid(g t + g0) + s t: in * out + 4 out parameters."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.gate = nn.Linear(1, n_out)
        self.shift = nn.Linear(1, n_out, bias=False)

    def affine(self) -> AffineLayer:
        """The layer's numbers, as a kernel reads them."""
        linear, gate, shift = map(read_weights, (self.linear, self.gate, self.shift))
        return AffineLayer(linear.weight, linear.bias, gate.weight.view(-1), gate.bias, shift.weight.view(-1))

    def at(self, t: Float[Tensor, ""]) -> Affine:
        """The layer's affine map at time t."""
        linear, gates, shift = map(read_weights, (self.linear, self.gate, self.shift))
        gate = torch.sigmoid(torch.addcmul(gates.bias, gates.weight.view(-1), t))
        return linear.weight * gate.unsqueeze(1), torch.addcmul(linear.bias * gate, shift.weight.view(-1), t)

    def forward(self, t: Times, x: Rows) -> Rows:
        """The layer's value where every row has a time of its own."""
        return self.linear(x) * torch.sigmoid(self.gate(t)) + self.shift(t)


class Concat(nn.Module):
    """W [t, x] + b: (in + 1) * out + out parameters."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in + 1, n_out)

    def affine(self) -> AffineLayer:
        """The layer's numbers, as a kernel reads them."""
        weight, bias = read_weights(self.linear)
        return AffineLayer(weight[:, 1:], bias, shift=weight[:, 0])

    def at(self, t: Float[Tensor, ""]) -> Affine:
        """The layer's affine map at time t."""
        weight, bias = read_weights(self.linear)
        return weight[:, 1:], torch.addcmul(bias, weight[:, 0], t)

    def forward(self, t: Times, x: Rows) -> Rows:
        """The layer's value where every row has a time of its own."""
        return self.linear(torch.cat([t, x], 1))


class Ignore(nn.Module):
    """W x + b: the layer does not see the time; in * out + out parameters."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)

    def affine(self) -> AffineLayer:
        """The layer's numbers, as a kernel reads them."""
        return AffineLayer(*read_weights(self.linear))

    def at(self, t: Float[Tensor, ""]) -> Affine:
        """The layer's affine map, the same at all times."""
        return read_weights(self.linear)

    def forward(self, t: Times, x: Rows) -> Rows:
        """The layer's value, the same at all times."""
        return self.linear(x)
