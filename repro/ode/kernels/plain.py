"""Whether an object computes what its class does: a kernel knows the class, not what was hung on one of its objects."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules


def overridden(field: object) -> str | None:
    """Which method a subclass has changed below the class whose kernel it inherits; None if none.

    Args:
        field: Has a method `step_kernel`.
    """
    return _overridden(type(field))


@functools.cache
def _overridden(kind: type) -> str | None:
    below = list(kind.__mro__)
    owner = next((n for n, cls in enumerate(below) if "step_kernel" in vars(cls)), 0)
    known = set(dir(below[owner]))
    changed = sorted({n for cls in below[:owner] for n in vars(cls) if n in known and not n.startswith("__")})
    return f"{kind.__name__} changes {changed[0]}, which its kernel does not know" if changed else None


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
    if [x for x in known.values() if type(x) is Tensor and x.requires_grad]:
        return "has a tensor that gets a gradient and is no parameter"
    parameters = [x for x in known["_parameters"].values() if x is not None]
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


def _has_hook(known: Mapping[str, Any]) -> bool:
    return any(map(known.__getitem__, HOOKS))


def _everywhere() -> bool:
    return any(getattr(of_all_modules, f"_global{name}") for name in HOOKS)


def unlike(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes something else than a class does; one that only computes its weights does not."""
    return not isinstance(module, kind) or type(module).forward is not kind.forward


def autocast(device: torch.device) -> str | None:
    """That torch chooses dtypes by itself; None if it does not."""
    return "autocast is on, and the kernel keeps the tensors' dtype" if torch.is_autocast_enabled(device.type) else None
