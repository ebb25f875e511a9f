"""The workloads' fields as users of the other libraries write them, on copies of the same weights.

Each counts its evaluations in `nfe`, as the public examples do, and takes a time for the batch or one a sample.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from repro.flows.planar_field import PlanarField
from repro.nets.fields import ConcatSquash, PerceptronField
from repro.nets.odenet import ConvField, TimeConv2d

ACTIVATIONS = {"tanh": torch.tanh, "softplus": F.softplus}


class Gated(nn.Module):
    """A linear layer whose outputs are gated and shifted by functions of time; its signature can be scripted."""

    def __init__(self, layer: ConcatSquash):
        super().__init__()
        self.linear, self.gate, self.shift = map(copy.deepcopy, (layer.linear, layer.gate, layer.shift))

    def forward(self, t, x):
        """The layer's value."""
        return self.linear(x) * torch.sigmoid(self.gate(t)) + self.shift(t)


class GatedNet(nn.Module):
    """The layers of FFJORD's public code."""

    def __init__(self, field: PerceptronField):
        super().__init__()
        self.layers, self.activation = nn.ModuleList(map(Gated, field.layers)), ACTIVATIONS[field.activation]
        self.nfe = 0

    def forward(self, t, y):
        """dy/dt."""
        self.nfe += 1
        time = t.reshape(-1, 1)
        for index, layer in enumerate(self.layers):
            y = y if index == 0 else self.activation(y)
            y = layer(time, y)
        return y


class HyperPlanar(nn.Module):
    """The planar flow as in torchdiffeq's example: its base at time 0, the data at t1, the mean over its units.

    It is -f(t1 - t, y) for the field f here, by the weights alone: the hypernetwork's first layer is mirrored in time
    and the outputs for u change their sign. `restored` takes gradients back.
    """

    def __init__(self, field: PlanarField, t1: float):
        super().__init__()
        self.time_in, self.time_hidden, self.time_out = map(
            copy.deepcopy, (field.time_in, field.time_hidden, field.time_out)
        )
        self.sizes, self.width, self.dim, self.t1, self.nfe = field.sizes, field.width, field.dim, t1, 0
        with torch.no_grad():
            self.time_in.bias += t1 * self.time_in.weight.squeeze(1)
            self.time_in.weight.neg_()
            for part in (self.time_out.weight, self.time_out.bias):
                part.split(self.sizes)[1].neg_()

    def forward(self, t, y):
        """dy/dt."""
        self.nfe += 1
        h = torch.tanh(self.time_hidden(torch.tanh(self.time_in(t.reshape(-1, 1)))))
        w, u, gates, b = self.time_out(h).split(self.sizes, 1)
        shape = -1, self.width, self.dim
        w, u = w.reshape(shape), u.reshape(shape) * torch.sigmoid(gates.reshape(shape))
        if len(w) == 1:
            return self._unit_by_unit(y, w.squeeze(0), u.squeeze(0), b)
        active = torch.tanh((y.unsqueeze(1) * w).sum(2) + b)
        return (active.unsqueeze(2) * u).mean(1)

    def _unit_by_unit(self, y, w, u, b):
        """At one time for all: a small product a unit on a copy of the batch, which is how the example has it."""
        copies = y.unsqueeze(0).repeat(self.width, 1, 1)
        return (torch.tanh(copies @ w.unsqueeze(2) + b.reshape(-1, 1, 1)) @ u.unsqueeze(1)).mean(0)

    def restored(self, gradient):
        """The gradient by the weights of f, from that by the weights here."""
        weight, bias, hidden_weight, hidden_bias, out_weight, out_bias = (part.clone() for part in gradient)
        for part in (out_weight, out_bias):
            part.split(self.sizes)[1].neg_()
        return self.t1 * bias.unsqueeze(1) - weight, bias, hidden_weight, hidden_bias, out_weight, out_bias


class ConcatConv(nn.Module):
    """A convolution that sees the time as one more channel, copied in front of the others."""

    def __init__(self, conv: TimeConv2d):
        super().__init__()
        self.weight, self.bias = nn.Parameter(conv.weight.detach().clone()), nn.Parameter(conv.bias.detach().clone())

    def forward(self, t, x):
        """Concatenate, then convolve."""
        channel = torch.ones_like(x[:, :1]) * t.reshape(-1, 1, 1, 1)
        return F.conv2d(torch.cat([channel, x], 1), self.weight, self.bias, padding=1)


class ConvNet(nn.Module):
    """Right-hand side of the ODE-Net."""

    def __init__(self, field: ConvField):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = map(copy.deepcopy, (field.norm1, field.norm2, field.norm3))
        self.conv1, self.conv2, self.nfe = ConcatConv(field.conv1), ConcatConv(field.conv2), 0

    def forward(self, t, y):
        """dy/dt."""
        self.nfe += 1
        hidden = self.conv1(t, F.relu(self.norm1(y)))
        return self.norm3(self.conv2(t, F.relu(self.norm2(hidden))))


class Traced(nn.Module):
    """A field with its log-density as a user writes it: the trace by backward passes.

    Without noise it takes one pass a dimension, with noise one for the estimate.
    """

    def __init__(self, field, noise=None):
        super().__init__()
        self.field, self.noise = field, noise

    def forward(self, t, state):
        """Derivative of (y, log-density)."""
        y = state[0]
        with torch.enable_grad():
            y = y.requires_grad_(True)
            dy = self.field(t, y)
            if self.noise is not None:
                (product,) = torch.autograd.grad(dy, y, self.noise, create_graph=True)
                return dy, (product * self.noise).sum(1)
            trace = sum(torch.autograd.grad(dy[:, i].sum(), y, create_graph=True)[0][:, i] for i in range(y.shape[1]))
        return dy, trace
