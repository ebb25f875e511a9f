"""Parameters of a right-hand side: the tensors for which a gradient method computes gradients."""

import inspect
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from repro.types import VectorField


def collect_parameters(
    field: VectorField, parameters: Iterable[Tensor] | nn.Module | None, gradient: str
) -> tuple[Tensor, ...]:
    """Collect the tensors that get gradients, each once, those that need none left out.

    Args:
        field: Right-hand side; of a module the parameters are the default.
        parameters: Tensors, or a module for its parameters; None is the default.
        gradient: Gradient method, one of `GRADIENTS`.

    Raises:
        ValueError: The field is no module but plainly uses parameters, and none were given.
        TypeError: `parameters` is one tensor, a mapping, or holds what is no tensor.
    """
    if parameters is None and not isinstance(field, nn.Module):
        if gradient != "backprop" and _holds_parameters(field):
            raise ValueError(
                f"parameters must be given: the field is no module but uses parameters, and {gradient} finds none by "
                "itself; pass parameters=module.parameters(), or () to train none of them"
            )
        return ()
    source = field if parameters is None else parameters
    tensors = list(source.parameters()) if isinstance(source, nn.Module) else list_tensors(source)
    return tuple({id(tensor): tensor for tensor in tensors if tensor.requires_grad}.values())


def list_tensors(parameters: object) -> list[Tensor]:
    """List the tensors of an iterable.

    Raises:
        TypeError: It is one tensor or a mapping, is none, or holds what is no tensor.
    """
    if isinstance(parameters, Tensor):
        raise TypeError("parameters must be several tensors, as [tensor]; got one tensor, whose rows are no leaves")
    if isinstance(parameters, Mapping):
        raise TypeError("parameters must be tensors, as list(mapping.values()); got a mapping")
    if not isinstance(parameters, Iterable):
        raise TypeError(f"parameters must be tensors or a module; got {type(parameters).__name__}")
    entries = list(parameters)
    for entry in entries:
        if not isinstance(entry, Tensor):
            kind = "pairs, as of named_parameters()" if isinstance(entry, tuple) else type(entry).__name__
            raise TypeError(f"parameters must be tensors, as of module.parameters(); got {kind}")
    return entries


def _holds_parameters(field: VectorField) -> bool:
    """Check whether a function, method or callable object plainly refers to something that requires gradients."""
    function = inspect.unwrap(getattr(field, "__func__", field))
    if inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        referents = [*names.nonlocals.values(), *names.globals.values(), getattr(field, "__self__", None)]
    else:
        referents = list(getattr(field, "__dict__", {}).values())
    return any(_requires_grad(value) for value in referents)


def _requires_grad(value: object) -> bool:
    if isinstance(value, nn.Module):
        return any(p.requires_grad for p in value.parameters())
    return isinstance(value, nn.Parameter) and value.requires_grad
