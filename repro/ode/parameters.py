"""Parameters of a right-hand side: the tensors for which a gradient method computes gradients."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from repro.ode.field_state import refuse_cached_weights
from repro.ode.guard import GuardedField
from repro.types import State, Times, VectorField

Parameters = Iterable[Tensor] | nn.Module | None
"""What a caller names: tensors, a module for its parameters, or None for all that a field uses."""


def collect_parameters(
    field: VectorField, y0: State, t: Times, parameters: Parameters, guard: GuardedField | None = None
) -> tuple[Tensor, ...]:
    """Collect the tensors that get gradients, each once, by name and by the graph of the field's first evaluation.

    What the field learns need not be a module's parameter: it may be a tensor of a closure, an attribute, a module
    that another function calls. All of it is in the graph.

    Args:
        field: Right-hand side; of a module the parameters are the default.
        y0: State at t[0].
        t: Output times.
        parameters: Tensors, or a module for its parameters; None takes all that the field uses; an empty tuple none.
        guard: Evaluates the field, and keeps the value for the solve; None makes one.

    Raises:
        ValueError: `parameters` leaves out a tensor that the field uses.
        TypeError: `parameters` is one tensor, a mapping, or holds what is no tensor.
        RuntimeError: The field's weights are cached by `parametrize.cached`.
    """
    parameters = read_once(parameters)
    if _is_empty(parameters):
        return ()
    named = list_parameters(field, parameters)
    refuse_cached_weights(field)
    evaluate = guard or GuardedField(field)
    used = collect_graph_inputs(lambda: evaluate.record_first(t[0].detach(), y0.detach()), named)
    return select_parameters(named, used, parameters)


def read_once(parameters: Parameters) -> Parameters:
    """Read an iterator's tensors into a list; an empty tuple stays one, as the word for no parameters.

    Raises:
        TypeError: It is one tensor or a mapping, is none, or holds what is no tensor.
    """
    if parameters is None or isinstance(parameters, nn.Module) or _is_empty(parameters):
        return parameters
    return list_tensors(parameters)


def select_parameters(named: tuple[Tensor, ...], used: Sequence[Tensor], parameters: Parameters) -> tuple[Tensor, ...]:
    """Add the tensors that a field uses to those that are named, where none had to be; else check that none is missing.

    Raises:
        ValueError: Tensors were named, and one that the field uses is not among them, or a module was, and the field
            uses none of its parameters.
    """
    if isinstance(parameters, nn.Module) and named and not {*map(id, named)} & {*map(id, used)}:
        raise ValueError(
            f"parameters is a module, {type(parameters).__name__}, of which the field uses nothing at the start; pass "
            "list(module.parameters()) if it uses some later"
        )
    unnamed = [tensor for tensor in used if all(tensor is not other for other in named)]
    if unnamed and parameters is not None and not _is_empty(parameters):
        raise ValueError(
            f"parameters leaves out a tensor of shape {tuple(unnamed[0].shape)} that the field uses and that requires "
            "a gradient: name it, detach it, or pass parameters=() to train none"
        )
    return (*named, *unnamed) if parameters is None else named


def _is_empty(parameters: Parameters) -> bool:
    """Check for an empty tuple, the word for no parameters; an iterator that has been used up is none."""
    return isinstance(parameters, tuple) and not parameters


def list_parameters(field: VectorField, parameters: Parameters) -> tuple[Tensor, ...]:
    """List the tensors that are named as parameters and require gradients, each once; None names a module's.

    Raises:
        TypeError: `parameters` is one tensor, a mapping, or holds what is no tensor.
    """
    source = field if parameters is None and isinstance(field, nn.Module) else parameters
    tensors = (
        list(source.parameters()) if isinstance(source, nn.Module) else list_tensors(() if source is None else source)
    )
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


def collect_graph_inputs(evaluate: Callable[[], Tensor], named: tuple[Tensor, ...]) -> list[Tensor]:
    """Collect the tensors from outside of an evaluation with respect to which its value can be differentiated.

    Leaves are in the graph itself. A tensor that was computed before is only an edge there, so the tensors that torch's
    functions get are recorded: one that is older than the evaluation is such a tensor.

    Args:
        evaluate: Returns a value with its graph.
        named: Tensors at which the graph ends in any case.

    Raises:
        ValueError: The graph reaches a computed tensor that no function of torch was given.
    """
    recorder = _ArgumentRecorder()
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # a weight that was cast before would look like a computed tensor
    try:
        with recorder:
            value = evaluate()
    finally:
        torch.set_autocast_cache_enabled(cached)
    if not value.requires_grad:
        return []
    ends = {edge[:2]: x for x in (*recorder.list_older(), *named) if (edge := get_gradient_edge(x))}
    inputs: dict[int, Tensor] = {}
    edge = get_gradient_edge(value)
    pending, visited = [(edge.node, edge.output_nr)], set()
    while pending:
        node, output = pending.pop()
        if (node, output) in visited:
            continue
        visited.add((node, output))
        leaf = getattr(node, "variable", None)
        tensor = leaf if isinstance(leaf, Tensor) else ends.get((node, output))
        if tensor is not None:
            inputs[id(tensor)] = tensor
        elif recorder.is_older(node) and not value.is_cuda:  # numbers of nodes are each thread's, a GPU has one more
            raise ValueError(
                f"parameters must name every tensor that was computed outside of the field and requires a gradient; "
                f"one of {node.name()} is missing: pass it, parameters=[tensor], or detach it"
            )
        else:
            pending.extend((child, nr) for child, nr in node.next_functions if child is not None)
    return list(inputs.values())


class _ArgumentRecorder(TorchFunctionMode):
    """Record the computed tensors that torch's functions are given and have not returned."""

    def __init__(self) -> None:
        super().__init__()
        with torch.enable_grad():
            node = torch.zeros((), requires_grad=True).clone().grad_fn
        assert node is not None
        self._oldest = node._sequence_nr()  # every later node of this thread has a higher number
        self._given: dict[int, Tensor] = {}
        self._returned: dict[int, Tensor] = {}  # held, so that no other tensor gets the same id

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor) and x.grad_fn is not None and id(x) not in self._returned:
                self._given[id(x)] = x
        result = func(*args, **(kwargs or {}))
        self._returned |= {id(x): x for x in tree_leaves(result) if isinstance(x, Tensor)}
        return result

    def is_older(self, node: Node) -> bool:
        """Whether a node was made before the recording."""
        return node._sequence_nr() <= self._oldest

    def list_older(self) -> list[Tensor]:
        """List the tensors that were given and computed before."""
        return [x for x in self._given.values() if x.grad_fn is not None and self.is_older(x.grad_fn)]
