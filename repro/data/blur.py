"""What the toy densities share: draws by a generator alone, Gaussian blur, sums of small densities, quadrature."""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Generator, Tensor

Points = Float32[Tensor, "n dim"]

LOG_2PI = math.log(2 * math.pi)


def log_sum(terms: Float64[Tensor, " terms"], row: Int64[Tensor, " terms"], rows: int) -> Float64[Tensor, " rows"]:
    """Log of the sum of exp(term) over each row's terms; −inf where a row has none."""
    top = terms.new_full((rows,), -math.inf).scatter_reduce(0, row, terms, "amax")
    return top + terms.new_zeros(rows).index_add(0, row, (terms - top[row]).exp()).log()


def uniform(n: int, generator: Generator) -> Float32[Tensor, " n"]:
    """Draw from [0, 1)."""
    return torch.rand(n, generator=generator, dtype=torch.float32)


def choose(among: int, n: int, generator: Generator) -> Int64[Tensor, " n"]:
    """Draw one of `among` equally likely components for each point."""
    return torch.randint(among, (n,), generator=generator)


def blur(points: Float[Tensor, "n dim"], sigma: float, generator: Generator) -> Points:
    """Add N(0, sigma² I)."""
    noise = torch.randn(points.shape, generator=generator, dtype=torch.float32)
    return points.to(noise) + sigma * noise


def log_blur(
    x: Float64[Tensor, "n dim"], centres: Float64[Tensor, "m dim"], weights: Float64[Tensor, " m"], sigma: float
) -> Float64[Tensor, " n"]:
    """Log of the sum of weights times N(x; centre, sigma² I)."""
    square = sum((x[:, i : i + 1] - centres[:, i]).square() for i in range(x.shape[1]))
    terms = weights.log() - square / (2 * sigma**2)
    return terms.logsumexp(1) - x.shape[1] * (math.log(sigma) + 0.5 * LOG_2PI)


@cache
def _legendre(n: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(0.5 + 0.5 * nodes), torch.from_numpy(0.5 * weights)


def gauss_legendre(n: int, like: Float64[Tensor, "..."]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Nodes and weights of ∫ f(s) ds over [0, 1]."""
    nodes, weights = _legendre(n)
    return nodes.to(like), weights.to(like)
