"""Products of a field's Jacobian with vectors: what every estimator of a trace is made of."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repro.ode.kernels import has_hook
from repro.types import VectorField

FieldAndTrace = tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]
Noise = Float[Tensor, "probe batch dim"]


def unit_vectors(dim: int, like: Float[Tensor, "batch columns"]) -> Noise:
    """The unit vectors as tangents of every row, without copies: what the exact trace pushes through a field."""
    return torch.eye(dim, dtype=like.dtype, device=like.device).unsqueeze(1).expand(dim, len(like), dim)


def jacobian_products(
    field: VectorField, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], v: Noise
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "probe batch dim"]]:
    """Return f(t, y) and a product of the Jacobian with each probe.

    J v where the field pushes tangents or a compiler reads along, else vᵀ J: a form vᵀ J v does not tell them apart.
    """
    if offered(field, "push") or torch.compiler.is_compiling():
        return tangents(field, t, y, v)
    dy, y, differentiable = evaluate(field, t, y)
    return finish(dy, torch.stack([vjp(dy, y, probe, keep=True) for probe in v]), differentiable)


def tangents(
    field: VectorField, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], v: Noise
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "probe batch dim"]]:
    """Return f(t, y) and J v for each vector, never vᵀ J: by the field's `push`, else in forward mode.

    Forward mode leaves a graph without a reverse pass in it, which is what can be compiled.
    """
    if push := offered(field, "push"):
        return push(t, y, v)

    def product(tangent: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(lambda y: field(t, y), (y,), (tangent,))  # pyright: ignore[reportReturnType]

    try:
        return torch.func.vmap(product, out_dims=(None, 0))(v)  # pyright: ignore[reportArgumentType, reportReturnType]
    except (RuntimeError, NotImplementedError):
        if torch.compiler.is_compiling():
            raise
        return _tangents_in_reverse_mode(field, t, y, v)


def _tangents_in_reverse_mode(field: VectorField, t: Tensor, y: Tensor, v: Noise) -> tuple[Tensor, Tensor]:
    """J v by reverse mode twice, for a field that forward mode does not go through: J v = ∂(wᵀ J v)/∂w for any w.

    One that calls torch.autograd, as the gradient of a potential, is such a field.
    """
    dy, y, differentiable = evaluate(field, t, y)
    if not dy.requires_grad:
        return finish(dy, torch.zeros_like(v), differentiable)
    with torch.enable_grad():
        w = torch.zeros_like(dy, requires_grad=True)
        (row,) = torch.autograd.grad(dy, y, w, create_graph=True, allow_unused=True)
        if row is None:
            return finish(dy, torch.zeros_like(v), differentiable)
    columns = [
        torch.autograd.grad(row, w, tangent, retain_graph=True, create_graph=differentiable, allow_unused=True)[0]
        for tangent in v
    ]
    return finish(dy, torch.stack([torch.zeros_like(y) if x is None else x for x in columns]), differentiable)


def evaluate(field: VectorField, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Evaluate with a graph from y to f, also where the caller wants none; say whether the caller does."""
    refuse_inference_mode()
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        y = start_of_graph(y, differentiable)
        return field(t, y), y, differentiable


def refuse_inference_mode() -> None:
    """Refuse to differentiate in inference mode, which builds no graph: every derivative would come out as zero.

    `CNF` leaves it by itself.

    Raises:
        RuntimeError: Inference mode is on.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a divergence takes derivatives, which torch.inference_mode() rules out: use torch.no_grad()"
        )


def start_of_graph(y: Tensor, differentiable: bool) -> Tensor:
    """Give y, or a copy that requires grad, as what a trace may be differentiated with respect to.

    A slice that was taken without gradients of a state that has them says that it requires grad, but no graph begins
    at it: its derivatives would come out as zero.
    """
    return y if differentiable and y.requires_grad else y.detach().requires_grad_()


def vjp(output: Tensor, of: Tensor, v: Tensor, *, keep: bool) -> Tensor:
    """vᵀ ∂output/∂of; zero where there is no path."""
    if not output.requires_grad:
        return torch.zeros_like(of)
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(output, of, v, retain_graph=keep, create_graph=create, allow_unused=True)
    return torch.zeros_like(of) if grad is None else grad


def finish(dy: Tensor, derived: Tensor, differentiable: bool) -> tuple[Tensor, Tensor]:
    """Give f and what was derived from it, without the graph that only the derivation needed."""
    return (dy, derived) if differentiable else (dy.detach(), derived.detach())


def needed(noise: Tensor | None, name: str) -> Tensor:
    """Give the noise of an estimator that cannot do without.

    Raises:
        ValueError: There is none.
    """
    if noise is None:
        raise ValueError(f"noise must be given for divergence {name!r}")
    return noise


def offered(field: VectorField, method: str) -> Callable[..., Any] | None:
    """Give a method of one of the protocols in `repro.types`, where it belongs to what the field computes when called.

    It does not where a subclass changes something beneath the class that has the method, where an object has a
    `forward` or a hook of its own, and where it comes from another object. Then the field counts as one that has no
    such method. It is asked at every evaluation, of which some take 100 microseconds; isinstance would cost some.
    """
    if type(field).__name__ == "OptimizedModule":  # of torch.compile, whose import takes a second
        field = field._orig_mod  # pyright: ignore[reportAttributeAccessIssue]
    offer = getattr(field, method, None)
    if offer is None or overrides_beneath(type(field), method):
        return None
    if isinstance(field, nn.Module) and ("forward" in vars(field) or has_hook(field)):
        return None
    return offer


@functools.cache
def overrides_beneath(kind: type, method: str) -> bool:
    """Check whether a class changes what one of its methods is about, beneath the class that has the method.

    Also where no class has it, as where `__getattr__` takes it from another object.
    """
    classes = kind.__mro__
    owner = next((n for n, cls in enumerate(classes) if method in vars(cls)), None)
    if owner is None:
        return True
    bases = [cls for cls in classes[owner:] if cls not in (nn.Module, object)]
    names = {name for cls in bases for name in vars(cls) if not name.startswith("__")} | {"forward", "__call__"}
    return any(name in names for cls in classes[:owner] for name in vars(cls))
