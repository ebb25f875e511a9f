"""What a right-hand side reads beside time and state: compared between a forward pass and its backward pass."""

import functools
import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from repro.ode.inference import count_writes
from repro.types import VectorField

Tokens = dict[str, object]
"""By name: a tensor with its count of writes, or the value of a number, a word, a flag."""

_SIMPLE = frozenset({bool, int, float, complex, str, type(None)})
_BOOKKEEPING = frozenset(vars(nn.Module())) - {"training"}


def read_state(field: VectorField) -> Tokens:
    """Read tokens of all that a field holds: parameters, buffers, tensors, numbers, words and flags.

    Of a module its parts' are read too, of a function what it closes over and its default arguments, of a partial
    function its arguments. What lies deeper, in lists or dictionaries, is not read.
    """
    if isinstance(field, nn.Module):
        return _read_module(field)
    tokens: Tokens = {}
    for name, value in list_referents(field):
        if isinstance(value, nn.Module):
            tokens |= {f"{name}.{key}": token for key, token in _read_module(value).items()}
        elif type(value) in _SIMPLE or isinstance(value, Tensor):
            tokens[name] = _token(value)
    return tokens


def _read_module(module: nn.Module) -> Tokens:
    """Read a module's and its parts' state off their dictionaries, since it is asked some times a solve."""
    tokens: Tokens = {}
    pending, visited = [("", module)], set()
    while pending:
        prefix, part = pending.pop()
        if id(part) in visited:
            continue
        visited.add(id(part))
        if isinstance(part, torch.jit.ScriptModule):  # holds its tensors elsewhere
            tensors = (*part.named_parameters(), *part.named_buffers())
            tokens |= {prefix + name: _token(tensor) for name, tensor in tensors}
            continue
        for name, value in vars(part).items():
            if name in ("_parameters", "_buffers"):
                tokens |= {prefix + key: _token(tensor) for key, tensor in value.items() if tensor is not None}
            elif name == "_modules":
                pending += [(f"{prefix}{key}.", child) for key, child in value.items() if child is not None]
            elif (type(value) in _SIMPLE or isinstance(value, Tensor)) and name not in _BOOKKEEPING:
                tokens[prefix + name] = _token(value)
    return tokens


def list_referents(field: object) -> Iterator[tuple[str, object]]:
    """List what a function, a partial function, a method or another object holds directly, by name."""
    if isinstance(field, functools.partial):
        yield from enumerate_arguments(field)
        yield from list_referents(field.func)
        return
    function = getattr(field, "__func__", field)
    if not inspect.isfunction(function):
        yield from getattr(field, "__dict__", {}).items()
        return
    if function is not field:
        yield "self", getattr(field, "__self__", None)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            yield name, parameter.default


def enumerate_arguments(function: functools.partial) -> Iterator[tuple[str, object]]:
    """List the arguments that a partial function holds."""
    yield from ((f"argument {i}", value) for i, value in enumerate(function.args))
    yield from function.keywords.items()


def list_tensors_held(field: VectorField) -> list[Tensor]:
    """List the tensors that a field, or a module that it refers to, holds directly and that are no parameters."""
    holders = [field, *(value for _, value in list_referents(field))]
    modules = [part for holder in holders if isinstance(holder, nn.Module) for part in holder.modules()]
    values = [value for part in modules for value in vars(part).values()]
    return [value for value in (*values, *(v for _, v in list_referents(field))) if isinstance(value, Tensor)]


def compare_states(before: Tokens, after: Tokens) -> list[str]:
    """List the names whose tokens differ."""
    return [name for name in before.keys() | after.keys() if not _equal(before.get(name), after.get(name))]


def refuse_cached_weights(field: VectorField) -> None:
    """Refuse to evaluate without a graph where weights are cached, which would be left in the cache without one.

    Raises:
        RuntimeError: `torch.nn.utils.parametrize.cached` is on, and the field has parametrised weights.
    """
    modules = [field, *(value for _, value in list_referents(field))]
    if parametrize._cache_enabled and any(
        parametrize.is_parametrized(part)
        for module in modules
        if isinstance(module, nn.Module)
        for part in module.modules()
    ):
        raise RuntimeError(
            "the field's parametrised weights are cached by torch.nn.utils.parametrize.cached, which the gradient "
            "methods that evaluate the field again cannot use: leave that block, or use gradient='backprop'"
        )


def _token(value: object) -> object:
    return (value, count_writes(value)) if isinstance(value, Tensor) else value


def _equal(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a[0] is b[0] and a[1] == b[1]
    return type(a) is type(b) and repr(a) == repr(b)  # so that NaN equals NaN
