"""A flow of flows: several CNFs one after the other (FFJORD's models of tables have up to ten)."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from operator import add

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from repro.flows.cnf import CNF
from repro.ode import Stats


class Stack(nn.Module):
    """A flow of flows: data enter the first, the base is that of the last.

    Args:
        flows: At least one, of equal dimension.

    Raises:
        ValueError: There is none, or their dimensions differ.
    """

    def __init__(self, flows: Sequence[CNF]) -> None:
        super().__init__()
        if not flows:
            raise ValueError("flows must hold at least one CNF")
        if any(a.dim != b.dim for a, b in pairwise(flows)):
            raise ValueError(f"flows must have one dimension; got {[flow.dim for flow in flows]}")
        self.flows = nn.ModuleList(flows)
        self.dim = flows[0].dim

    @property
    def cnfs(self) -> list[CNF]:
        """The CNFs, the one that data enter first."""
        return list(self.flows)  # pyright: ignore[reportReturnType]

    @property
    def stats(self) -> Stats:
        """Cost of the last call, summed over the flows."""
        return reduce(add, [flow.stats for flow in self.cnfs])

    @property
    def penalty(self) -> dict[str, Tensor]:
        """Penalties of the last call, summed over the flows."""
        names = self.cnfs[0].penalty
        return {name: torch.stack([flow.penalty[name] for flow in self.cnfs]).sum(0) for name in names}

    def log_prob(
        self,
        x: Float[Tensor, "batch dim"],
        noise: Sequence[Tensor] | None = None,
        generator: Generator | None = None,
    ) -> Float[Tensor, " batch"]:
        """Log-density of data, in nats; `noise` holds one tensor for each flow.

        Raises:
            ValueError: `noise` is one tensor, or does not hold as many as there are flows.
        """
        if noise is not None and (isinstance(noise, Tensor) or len(noise) != len(self.flows)):
            found = "one tensor" if isinstance(noise, Tensor) else f"{len(noise)} entries"
            raise ValueError(f"noise must be a sequence of {len(self.flows)} tensors, one for each flow; got {found}")
        gain = x.new_zeros(len(x))
        for flow, probes in zip(self.cnfs, noise or [None] * len(self.flows), strict=True):
            x, more = flow.transform(x, probes, generator)
            gain = gain + more
        return self.cnfs[-1].base_log_prob(x) + gain

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n dim"]:
        """Draw from the flow."""
        z = self.cnfs[-1].sample(n, generator)
        for flow in reversed(self.cnfs[:-1]):
            z = flow.inverse(z)
        return z

    @torch.no_grad()
    def reversibility_error(self, x: Float[Tensor, "batch dim"]) -> float:
        """Largest distance, over the batch, between data and the same data carried to the base and back."""
        z = x
        for flow in self.cnfs:
            z = flow.trajectory(z, [0.0, flow.t1])[-1]
        for flow in reversed(self.cnfs):
            z = flow.inverse(z)
        return float((z - x).norm(dim=1).max())
