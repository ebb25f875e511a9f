"""Native steps of the adjoint method's system: state, adjoint and the parameters' gradients on one flat vector."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from repro.ode.kernels.layers import Carry
from repro.ode.kernels.protocol import StageTimes, StepResult, Steps
from repro.ode.tableau import Tableau

Tolerances = tuple[float, float] | None
Advance = Callable[[Tableau, StageTimes, int, list[Tensor | None], Tolerances], Float[Tensor, "stage numbers_and_zero"]]
"""Takes a step of y and a for so many rows. Of the flat vectors state, first stage, end, last stage, middle and error
it reads the first two and writes the others' y and a; it returns the product of -aᵀ and ∂f/∂(the layers' numbers)
at every stage but a given one, and a column of zeros."""


class AdjointKernel(Steps):
    """Steps of d/dt [y, a, g] = [f, −aᵀ ∂f/∂y, −aᵀ ∂f/∂θ] on [y, a, g], each in one native call.

    g enters neither y nor a, so it is a sum over the stages' integrands, made after them.

    Args:
        advance: Takes the steps of y and a.
        carry: Makes the parameters' gradients of the layers'.
        n_numbers: Of the parameters.
        n_rows: Rows of y.
        controlled: Whether the error of g is estimated; else it reads 0.
    """

    def __init__(self, advance: Advance, carry: Carry, n_numbers: int, n_rows: int, *, controlled: bool) -> None:
        self._advance, self._carry, self._n_numbers = advance, carry, n_numbers
        self._n_rows, self._controlled = n_rows, controlled
        self._sums: dict[Tableau, Float[Tensor, "sum stage"]] = {}

    def step(
        self,
        tableau: Tableau,
        at: StageTimes,
        y: Tensor,
        f: Tensor | None,
        tolerances: Tolerances,
        *,
        keep: bool = False,
    ) -> StepResult:
        """Take a step from the flat vector y; see `Steps`."""
        end, last = torch.empty_like(y), torch.empty_like(y)
        mid, error = (torch.empty_like(y), torch.empty_like(y)) if tolerances is not None else (None, None)
        flat: list[Tensor | None] = [y, f, end, last, mid, error]
        integrand = self._advance(tableau, at, self._n_rows, flat, tolerances)
        ours = y.numel() - self._n_numbers
        before, given, g_end, g_last, g_mid, g_error = (None if x is None else x[ours:] for x in flat)
        assert before is not None
        assert g_end is not None
        assert g_last is not None
        weights = self._weights(tableau, integrand)
        weights[:-1] *= at.size
        sums = self._carry(weights, integrand)
        g_last.copy_(sums[-1])
        if given is not None:
            sums.addr_(weights[:, 0], given)
        torch.add(before, sums[0], out=g_end)
        if g_mid is not None and g_error is not None and tolerances is not None:
            torch.add(before, sums[1], out=g_mid)
            if self._controlled:
                rtol, atol = tolerances
                torch.div(sums[2], torch.maximum(before.abs(), g_end.abs()).mul_(rtol).add_(atol), out=g_error)
            else:
                g_error.zero_()
        return StepResult(end, last, mid, error)

    def _weights(self, tableau: Tableau, like: Tensor) -> Float[Tensor, "sum stage"]:
        """Of the stages in the step's end, where the method has them in its middle and error, and in the last stage."""
        if tableau not in self._sums:
            rows = [row for row in (tableau.weights, tableau.mid, tableau.error) if row is not None]
            last = [0.0] * (len(tableau.alpha) - 1) + [1.0]
            self._sums[tableau] = like.new_tensor([*(rows if self._controlled else rows[:2]), last])
        return self._sums[tableau].clone()
