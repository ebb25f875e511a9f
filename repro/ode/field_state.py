"""What a right-hand side reads beside time and state: compared between a forward pass and its backward pass."""

import functools
import sys
import sysconfig
import types
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from repro.ode.inference import count_writes

Tokens = dict[str, object]
"""By name: a tensor with its count of writes, an array's checksum, or the value of a number, a word, a flag."""

_SIMPLE = frozenset({bool, int, float, complex, str, type(None)})
_BOOKKEEPING = frozenset(vars(nn.Module())) - {"training"}
_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def read_state(field: object) -> Tokens:
    """Read tokens of all that a field holds: parameters, buffers, tensors, arrays, numbers, words and flags.

    Of a module its parts' are read too; of a function what it closes over, its default arguments and the globals that
    it names; of a partial function its arguments; of another object its attributes; and so on for the modules,
    functions and objects among these that are not a library's. What lies in lists or dictionaries is not read.
    """
    return {
        prefix + name: _token(value)
        for prefix, holder in _visit(field)
        for name, value in _list_entries(holder)
        if type(value) in _SIMPLE or isinstance(value, Tensor | np.ndarray)
    }


def compare_states(before: Tokens, after: Tokens) -> list[str]:
    """List the names whose tokens differ."""
    return [name for name in before.keys() | after.keys() if not _equal(before.get(name), after.get(name))]


def refuse_cached_weights(field: object) -> None:
    """Refuse to evaluate without a graph where weights are cached, which would be left in the cache without one.

    Raises:
        RuntimeError: `torch.nn.utils.parametrize.cached` is on, and the field has parametrised weights.
    """
    if parametrize._cache_enabled and any(
        isinstance(holder, nn.Module) and parametrize.is_parametrized(holder) for _, holder in _visit(field)
    ):
        raise RuntimeError(
            "the field's parametrised weights are cached by torch.nn.utils.parametrize.cached, which the gradient "
            "methods that evaluate the field again cannot use: leave that block, or use gradient='backprop'"
        )


def _visit(field: object) -> Iterator[tuple[str, object]]:
    """Visit a field and all that it holds which may hold something itself, each with the prefix of its entries."""
    pending: list[tuple[str, object]] = [("", field)]
    visited: set[int] = set()
    while pending:
        prefix, holder = pending.pop()
        if id(holder) in visited:
            continue
        visited.add(id(holder))
        yield prefix, holder
        pending += [(f"{prefix}{name}.", value) for name, value in _list_entries(holder) if _may_hold(value)]


def _list_entries(holder: object) -> Iterable[tuple[str, object]]:
    """List what a module, a function, a partial function, a method or another object holds, by name."""
    if isinstance(holder, torch.jit.ScriptModule):  # holds its tensors elsewhere
        return [*holder.named_parameters(), *holder.named_buffers()]
    if isinstance(holder, nn.Module):
        return _list_entries_of_module(holder)
    if isinstance(holder, functools.partial):
        arguments = [(f"argument {i}", value) for i, value in enumerate(holder.args)]
        return [*arguments, *holder.keywords.items(), ("function", holder.func)]
    if isinstance(holder, types.MethodType):
        return [("self", holder.__self__), ("function", holder.__func__)]
    if isinstance(holder, types.FunctionType):
        return _list_entries_of_function(holder)
    return [*getattr(holder, "__dict__", {}).items(), ("call", getattr(type(holder), "__call__", None))]  # noqa: B004


def _list_entries_of_module(module: nn.Module) -> list[tuple[str, object]]:
    entries: list[tuple[str, object]] = [("forward", type(module).forward)]
    for name, value in module.__dict__.items():
        if name in ("_parameters", "_buffers", "_modules"):
            entries += value.items()
        elif name not in _BOOKKEEPING:
            entries.append((name, value))
    return entries


def _list_entries_of_function(function: types.FunctionType) -> list[tuple[str, object]]:
    code, entries = function.__code__, list[tuple[str, object]]()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            entries.append((name, cell.cell_contents))
        except ValueError:  # a name that is not bound yet
            continue
    defaults = function.__defaults__ or ()
    entries += zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True)
    entries += (function.__kwdefaults__ or {}).items()
    entries += [(name, function.__globals__[name]) for name in code.co_names if name in function.__globals__]
    return entries


def _may_hold(value: object) -> bool:
    """Check for a module, or a function or object of a user's, which may hold what a field reads."""
    if isinstance(value, nn.Module | functools.partial | types.MethodType):
        return True
    if isinstance(value, types.FunctionType):
        return _is_users(value.__module__)
    return not isinstance(value, type) and hasattr(value, "__dict__") and _is_users(type(value).__module__)


@functools.cache
def _is_users(module: str | None) -> bool:
    """Check for a module that is neither the suite's nor a library's, whose functions hold nothing that changes."""
    if module is None or module.split(".")[0] == "repro":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return module == "__main__" if file is None else not file.startswith(_LIBRARIES)


def _token(value: object) -> object:
    if isinstance(value, Tensor):
        return value, count_writes(value)
    if isinstance(value, np.ndarray):
        return value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes())
    return value


def _equal(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        same = a[0] is b[0] if isinstance(a[0], Tensor) else a[0] == b[0]
        return same and a[1] == b[1]
    return type(a) is type(b) and repr(a) == repr(b)  # so that NaN equals NaN
