"""Parameters of a right-hand side: the tensors for which a gradient method computes gradients."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from repro.ode.field_state import list_tensors_held, refuse_cached_weights
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
        ValueError: `parameters` leaves out a tensor that the field uses, or the field uses one that another module
            computed and that it does not hold itself.
        TypeError: `parameters` is one tensor, a mapping, or holds what is no tensor.
        RuntimeError: The field's weights are cached by `parametrize.cached`.
    """
    if _is_empty(parameters):
        return ()
    if not (parameters is None or isinstance(parameters, nn.Module)):
        parameters = list_tensors(parameters)  # an iterator can be read once
    named = list_parameters(field, parameters)
    refuse_cached_weights(field)
    evaluate = guard or GuardedField(field)
    candidates = {id(x): x for x in (*named, *filter(_requires_grad, list_tensors_held(field)))}
    used = collect_graph_inputs(lambda: evaluate.record_first(t[0].detach(), y0.detach()), tuple(candidates.values()))
    return select_parameters(named, used, parameters)


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


def collect_graph_inputs(evaluate: Callable[[], Tensor], candidates: tuple[Tensor, ...]) -> list[Tensor]:
    """Collect the tensors from outside of an evaluation with respect to which its value can be differentiated.

    Leaves are in the graph itself. A tensor that was computed before is an edge between nodes that are older and nodes
    that are newer than the evaluation, which names no tensor: it must be among the candidates.

    Args:
        evaluate: Returns a value with its graph.
        candidates: Tensors that may be inputs.

    Raises:
        ValueError: The graph reaches a computed tensor that is no candidate.
    """
    with torch.enable_grad():
        oldest = _newest_node()._sequence_nr()
    value = evaluate()
    if not value.requires_grad:
        return []
    edges = {edge[:2]: x for x in candidates if (edge := get_gradient_edge(x))}
    inputs: dict[int, Tensor] = {}
    edge = get_gradient_edge(value)
    pending, visited = [(edge.node, edge.output_nr)], set()
    while pending:
        node, output = pending.pop()
        if (node, output) in visited:
            continue
        visited.add((node, output))
        leaf = getattr(node, "variable", None)
        tensor = leaf if isinstance(leaf, Tensor) else edges.get((node, output))
        if tensor is not None:
            inputs[id(tensor)] = tensor
        elif node._sequence_nr() <= oldest:
            raise ValueError(
                f"parameters must name every tensor that was computed outside of the field and requires a gradient; "
                f"one of {node.name()} is missing: pass it, parameters=[tensor], or detach it"
            )
        else:
            pending.extend((child, nr) for child, nr in node.next_functions if child is not None)
    return list(inputs.values())


def _newest_node() -> Node:
    """Make a node of autograd's graph; every later one of this thread has a higher sequence number."""
    node = torch.zeros((), requires_grad=True).clone().grad_fn
    assert node is not None
    return node


def _requires_grad(tensor: Tensor) -> bool:
    return tensor.requires_grad
