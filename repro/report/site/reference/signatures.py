"""How a function or class is called: its parameters as they stand in the source."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.report.site.reference.source import Module, found, written

RECORDS = ("dataclass", "NamedTuple")
"""What gives a class a constructor made from its fields."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a call, or a field of a class.

    Attributes:
        name: Without stars; empty for the marks `/` and `*`.
        annotation: As it stands in the source.
        default: The same.
        stars: What stands before it; of a mark, the mark.
    """

    name: str
    annotation: str = ""
    default: str = ""
    stars: str = ""

    def __str__(self) -> str:
        given = f" = {self.default}" if self.annotation else f"={self.default}"
        return f"{self.stars}{self.name}{self.annotation and f': {self.annotation}'}{given if self.default else ''}"


STAR = Parameter("", stars="*")


def of_function(module: Module, node: ast.FunctionDef, *, bound: bool = False) -> list[Parameter]:
    """The parameters of a function.

    Args:
        module: That it stands in.
        node: Its definition.
        bound: Whether the first one is given by the call itself, as `self` is.
    """
    args = node.args
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    made = [_parameter(module, *pair) for pair in zip(plain, defaults, strict=True)]
    if args.posonlyargs:
        made.insert(len(args.posonlyargs), Parameter("", stars="/"))
    made = made[1:] if bound else made
    if args.vararg:
        made.append(_parameter(module, args.vararg, None, "*"))
    elif args.kwonlyargs:
        made.append(STAR)
    made += [_parameter(module, *pair) for pair in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return made + ([_parameter(module, args.kwarg, None, "**")] if args.kwarg else [])


def _parameter(module: Module, arg: ast.arg, default: ast.expr | None, stars: str = "") -> Parameter:
    return Parameter(arg.arg, written(module, arg.annotation), written(module, default), stars)


def of_class(module: Module, node: ast.ClassDef) -> list[Parameter] | None:
    """The parameters of a class's constructor, be it inherited; None where the class has none of the suite's own."""
    own = method(node, "__init__")
    if own is not None:
        return of_function(module, own, bound=True)
    if is_record(module, node):
        return _of_fields(module, node)
    inherited = (of_class(*base) for base in bases_of(module, node))
    return next((parameters for parameters in inherited if parameters is not None), None)


def _of_fields(module: Module, node: ast.ClassDef) -> list[Parameter]:
    inherited = [parameter for base in bases_of(module, node) for parameter in of_class(*base) or []]
    own = list(fields(module, node))
    marks = [each for each in inherited if not each.name]
    keywords = any("kw_only=True" in written(module, each) for each in node.decorator_list)
    return [*inherited, *([STAR] if keywords and own and not marks else []), *own]


def fields(module: Module, node: ast.ClassDef) -> Iterator[Parameter]:
    """The annotated fields of a class itself, without those that no caller sees; a mark where keywords begin."""
    for each in node.body:
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        annotation = written(module, each.annotation)
        if annotation == "KW_ONLY":
            yield STAR
        elif not each.target.id.startswith("_") and not annotation.startswith("ClassVar"):
            yield Parameter(each.target.id, annotation, _default(module, each.value))


def _default(module: Module, value: ast.expr | None) -> str:
    if isinstance(value, ast.Call) and written(module, value.func) == "field":
        factory = next((keyword.value for keyword in value.keywords if keyword.arg == "default_factory"), None)
        return f"{written(module, factory)}()" if isinstance(factory, ast.Name) else ""
    return written(module, value)


def is_record(module: Module, node: ast.ClassDef) -> bool:
    """Whether a class's fields make its constructor."""
    words: Sequence[ast.expr] = [*node.decorator_list, *node.bases]
    return any(written(module, word).partition("(")[0] in RECORDS for word in words)


def bases_of(module: Module, node: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef]]:
    """The bases of a class that are the suite's own."""
    for base in node.bases:
        known = found(module.name, written(module, base).partition("[")[0])
        if known and isinstance(known[2], ast.ClassDef):
            yield known[0], known[2]


def method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    """A method that a class defines itself."""
    return next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == name), None)
