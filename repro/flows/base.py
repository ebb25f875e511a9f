"""Base distributions: the standard normal, on whatever device and dtype it is asked, and any of torch's own."""

import copy
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution


def log_prob(base: Distribution | None, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
    """Return the log-density of the base, in nats, −∞ outside of its support; None is N(0, I).

    Raises:
        ValueError: The distribution lies on another device, or gives something other than one number a row.
    """
    if base is None:
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))
    if others := {tensor.device for tensor in _tensors(base)} - {z.device}:
        raise ValueError(
            f"base must lie on the device of the data, {z.device}; its tensors lie on {others.pop()}. Build it there: "
            "torch's distributions do not move with a module"
        )
    inside = _check_support(base, z)
    values = base.log_prob(z) if inside is None else _without_validation(base).log_prob(z).where(inside, -math.inf)
    if values.shape != z.shape[:1]:
        raise ValueError(
            f"base must give one log-density for each row of [batch dim]; it gave shape {tuple(values.shape)} for "
            f"{tuple(z.shape)}; wrap it into torch.distributions.Independent"
        )
    return values


def sample(
    base: Distribution | None, n: int, dim: int, generator: Generator | None, like: Tensor
) -> Float[Tensor, "n dim"]:
    """Draw from the base, in the dtype and on the device of `like`.

    torch's distributions take no generator: they draw from the global stream, which is seeded by `generator` for the
    time of the call.
    """
    if base is None:
        device = generator.device if generator else like.device
        return torch.randn(n, dim, generator=generator, dtype=like.dtype, device=device).to(like)
    if generator is None:
        return base.sample(torch.Size([n])).to(like)
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        torch.manual_seed(seed)
        return base.sample(torch.Size([n])).to(like)


def _check_support(base: Distribution, z: Tensor) -> Tensor | None:
    """Check which rows lie in a distribution's support; None where all do, or where it does not say."""
    try:
        inside = base.support.check(z)  # pyright: ignore[reportOptionalMemberAccess]
    except (AttributeError, NotImplementedError):
        return None
    return None if bool(inside.all()) or inside.shape != z.shape[:1] else inside


def _without_validation(base: Distribution) -> Distribution:
    """Copy a distribution, those within it included, without the checks that refuse values outside of its support."""
    copied = copy.copy(base)
    copied._validate_args = False
    for name, value in vars(base).items():
        if isinstance(value, Distribution):
            setattr(copied, name, _without_validation(value))
    return copied


def _tensors(base: Distribution) -> Iterator[Tensor]:
    """The tensors that a distribution is made of, those of the distributions within it included."""
    for value in vars(base).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Distribution):
            yield from _tensors(value)
