"""Whether an object computes what its class does: a kernel knows the class, not what was hung on one of its objects."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules
from torch.utils import module_tracker

from repro.ode.transforms import is_transformed


def changed(module: nn.Module) -> str | None:
    """What of a module or its parts is not its class's or not registered; None if all is.

    It looks into the objects' dictionaries, since it is asked at every solve, of which some take milliseconds.
    """
    if _everywhere():
        return "all modules have a hook"
    for part in module.modules():
        if what := _unlike_its_class(vars(part)):
            return f"{type(part).__name__} {what}"
    return None


def _unlike_its_class(known: Mapping[str, Any]) -> str | None:
    """The same of one part, by its dictionary."""
    if _has_hook(known):
        return "has a hook"
    if "forward" in known:
        return "has a forward of its own"
    tensors = [*known.values(), *known.get("_buffers", {}).values()]
    if [x for x in tensors if type(x) is Tensor and x.requires_grad]:
        return "has a tensor that gets a gradient and is no parameter"
    parameters = [x for x in known.get("_parameters", {}).values() if x is not None]
    if [x for x in parameters if not isinstance(x, nn.Parameter)]:
        return "has something else in a parameter's place"
    return "has a parameter with a hook" if [x for x in parameters if x._backward_hooks] else None


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where a module keeps its hooks; those of all modules have the same names behind another word."""


def hooked(module: nn.Module) -> str | None:
    """Which part of a module has a hook, or that all modules have one; None if there is none."""
    if _everywhere():
        return "all modules have a hook"
    return next((f"{type(part).__name__} has a hook" for part in module.modules() if _has_hook(vars(part))), None)


def has_hook(module: nn.Module) -> bool:
    """Check whether a module itself, or every module, has a hook that may change its value.

    Those by which torch's counters follow the modules, as its count of operations, do not.
    """
    return _has_hook(vars(module)) or (_everywhere() and not all(map(_is_tracker, _hooks_of_all_modules())))


def _hooks_of_all_modules() -> list[object]:
    return [hook for name in HOOKS for hook in getattr(of_all_modules, f"_global{name}").values()]


def _is_tracker(hook: object) -> bool:
    return getattr(hook, "__module__", None) == module_tracker.__name__


def _has_hook(known: Mapping[str, Any]) -> bool:
    return any(map(known.get, HOOKS))


def _everywhere() -> bool:
    return any(getattr(of_all_modules, f"_global{name}") for name in HOOKS)


def unlike(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes something else than a class does; one that only computes its weights does not."""
    return not isinstance(module, kind) or type(module).forward is not kind.forward


_UNREAD = (
    "{} {}, and this field reads its weights without calling it: use torch.nn.utils.parametrizations in place of "
    "hooks, or a field of your own"
)


class Weights(NamedTuple):
    """Weight [out in] and bias [out] of a linear layer; None without a bias."""

    weight: Tensor
    bias: Any


def read_weights(linear: nn.Module) -> Weights:
    """Read a linear layer's weight and bias where the layer is not called.

    Raises:
        RuntimeError: The layer computes something else than weight and bias say: it has a hook, as of the older
            `weight_norm`, or another forward.
    """
    refuse_hooks(linear)
    if unlike(linear, nn.Linear):
        raise RuntimeError(_UNREAD.format(type(linear).__name__, "has another forward"))
    return Weights(linear.weight, linear.bias)  # pyright: ignore[reportArgumentType]


def refuse_hooks(module: nn.Module) -> None:
    """Refuse a part that has a hook or a forward of its own, where a field reads it without calling it.

    Raises:
        RuntimeError: It has one.
    """
    held = module.__dict__
    if "forward" in held or _has_hook(held):
        what = "has another forward" if "forward" in held else "has a hook"
        raise RuntimeError(_UNREAD.format(type(module).__name__, what))


def autocast(device: torch.device) -> str | None:
    """That torch chooses dtypes by itself; None if it does not."""
    return "autocast is on, and the kernel keeps the tensors' dtype" if torch.is_autocast_enabled(device.type) else None


def transformed(y: Tensor) -> str | None:
    """That one of torch.func's transforms is under way; None if none is."""
    return "a transform of torch.func is under way" if is_transformed(y) else None
