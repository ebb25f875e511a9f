"""Planar continuous normalizing flow: the field, and the trace of its Jacobian in closed form.

References:
    Chen et al., "Neural Ordinary Differential Equations" (2018), https://arxiv.org/abs/1806.07366: Section 4 (hidden
    units, gates, hypernetwork), eq. 9, eq. 10, Appendix A.1. As printed, eq. 10 lacks a sign: by eq. 8 the log-density
    changes at the rate *minus* the sum of the traces.

    The authors' public example (torchdiffeq, examples/cnf.py) departs from the paper in two points, both settings
    here: its gates are one per unit and coordinate instead of one per unit, and it takes the mean over the units
    instead of their sum. It also keeps its base density at t = 0 and the data at t1, while a flow here runs from the
    data at 0 to the base at t1. Hence a field f_example fitted there is f(t, y) = −f_example(t1 − t, y) here.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repro.checks import check_name, check_positive_counts
from repro.ode.kernels import AffineLayer, MovingLayers, PerceptronKernel, read_weights, register_kernel, unlike

GATES = ("unit", "coordinate")
REDUCTIONS = ("sum", "mean")


@register_kernel
class PlanarField(nn.Module):
    """Right-hand side of the planar flow: dy/dt = Σ_n σ_n(t) u_n(t) tanh(w_n(t)ᵀ y + b_n(t)).

    A hypernetwork with two hidden layers of tanh units gives w, u, b and the gates' logits as functions of time; its
    outputs are ordered W [width dim], U [width dim], gates, B [width].

    Args:
        dim: Numbers in the state.
        width: Hidden units M of the flow.
        hyper_width: Units in either hidden layer of the hypernetwork.
        gate: "unit", one gate in (0, 1) per hidden unit, as in the paper; "coordinate", one per hidden unit and
            coordinate, as in the public example.
        reduction: "sum" over the units, as in the paper, or their "mean", as in the public example.

    Raises:
        ValueError: An argument is out of range; the message names it.
    """

    def __init__(
        self, dim: int = 2, width: int = 64, hyper_width: int = 32, gate: str = "unit", reduction: str = "sum"
    ) -> None:
        super().__init__()
        check_positive_counts(dim=dim, width=width, hyper_width=hyper_width)
        check_name("gate", gate, GATES)
        check_name("reduction", reduction, REDUCTIONS)
        self.dim, self.width, self.gate, self.reduction = dim, width, gate, reduction
        self.sizes = (width * dim, width * dim, width if gate == "unit" else width * dim, width)
        self.time_in = nn.Linear(1, hyper_width)
        self.time_hidden = nn.Linear(hyper_width, hyper_width)
        self.time_out = nn.Linear(hyper_width, sum(self.sizes))

    def forward(self, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return dy/dt.

        Raises:
            ValueError: `y` has another dimension than the field.
        """
        w, v, b = (x.squeeze(0) for x in self._at(t.reshape(1)))
        return self._activate(y, w, b) @ v

    def divergence(
        self, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Return dy/dt and tr ∂f/∂y = Σ_n (1 − tanh²(·)) σ_n u_nᵀ w_n, at a cost linear in width and dimension.

        Raises:
            ValueError: `y` has another dimension than the field.
        """
        w, v, b = (x.squeeze(0) for x in self._at(t.reshape(1)))
        a = self._activate(y, w, b)
        traces = (v * w).sum(1)
        return a @ v, torch.addmv(traces.sum(), a * a, traces, alpha=-1)

    def _activate(self, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
        if y.ndim != 2 or y.shape[1] != self.dim:
            raise ValueError(f"y must have shape [batch, {self.dim}]; got {tuple(y.shape)}")
        return torch.tanh(torch.addmm(b, y, w.t()))

    def step_kernel(
        self,
        y: Float[Tensor, "batch columns"],
        probes: Float[Tensor, "probe batch dim"] | None = None,
        scale: float = 1.0,
        *,
        closed_form: bool = False,
    ) -> PerceptronKernel | str:
        """Native steps: at any time the field is a perceptron with one hidden layer; or why there are none."""
        hyper = (self.time_in, self.time_hidden, self.time_out)
        if any(unlike(part, nn.Linear) or part.bias is None for part in hyper):
            return "a part of its hypernetwork is no linear layer with a bias"
        like = self.time_in.weight.new_empty(self.width, self.dim)
        reason = PerceptronKernel.why_not(like, "tanh", y, probes, traced=closed_form)
        return reason or PerceptronKernel(MovingLayers(self._layers, y), "tanh", probes, scale, folded=closed_form)

    def _layers(self, times: Float[Tensor, " stage"]) -> list[AffineLayer]:
        w, v, b = self._at(times)
        return [AffineLayer(w, b), AffineLayer(v.mT, b.new_zeros(len(times), self.dim))]

    def _at(self, times: Float[Tensor, " stage"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return w, [stage width dim], gated and reduced u, [stage width dim], and b, [stage width]."""
        # One call for a matrix product and a bias; at these sizes a call costs more than its arithmetic.
        inner, middle, outer = map(read_weights, (self.time_in, self.time_hidden, self.time_out))
        h = torch.tanh(torch.addmm(inner.bias, times.unsqueeze(1), inner.weight.T))
        h = torch.tanh(torch.addmm(middle.bias, h, middle.weight.T))
        w, u, gates, b = torch.addmm(outer.bias, h, outer.weight.T).split(self.sizes, 1)
        shape = len(times), self.width, self.dim
        v = u.view(shape) * torch.sigmoid(gates).view(len(times), self.width, -1)
        return w.view(shape), v / self.width if self.reduction == "mean" else v, b
