"""What the suite offers, name by name: kind, signature, docstring and members."""

import ast
import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from repro.report.site.reference.docstrings import Doc, read
from repro.report.site.reference.signatures import Parameter, bases_of, fields, of_class, of_function
from repro.report.site.reference.source import Definition, Module, comment_of, found, module_of, public, written

KINDS = ("function", "class", "protocol", "registry", "type", "constant", "exception")
"""In the order in which a page shows them."""

SHOWN = ("__call__", "__len__")
"""Methods with underscores that a caller knows by their signs."""


@dataclass(frozen=True)
class Entry:
    """A public name.

    Attributes:
        module: Where it is found: the first word of an import.
        name: Its name there.
        home: The module that defines it.
        kind: One of `KINDS`; of a member, "method", "property" or "field".
        parameters: Of a call; None where it can't be called.
        returns: What it gives, as it stands in the source; of a field or property, what it is.
        doc: Its docstring.
        bases: Of a class.
        members: Of a class.
        value: Of a type or constant, as it stands in the source.
        registered: Of a registry: each key, lines on it, and the full name of what is behind it, where that has one.
    """

    module: str
    name: str
    home: Module
    kind: str
    doc: Doc
    parameters: tuple[Parameter, ...] | None = None
    returns: str = ""
    bases: tuple[str, ...] = ()
    members: tuple["Entry", ...] = ()
    value: str = ""
    registered: tuple[tuple[str, str, str], ...] = ()

    @property
    def path(self) -> str:
        """Its full name, as it is imported."""
        return f"{self.module}.{self.name}"


def entries_of(module: str) -> list[Entry]:
    """What a module offers, kind by kind, and in its own order within each.

    Raises:
        LookupError: A name of its `__all__` is not defined anywhere.
    """
    made = []
    for name in public(module_of(module)):
        known = found(module, name)
        if known is None:
            raise LookupError(f"{module}.{name} is offered and not defined in the suite")
        made.append(_entry(module, name, *known))
    return sorted(made, key=lambda entry: KINDS.index(entry.kind))


def _entry(module: str, name: str, home: Module, inner: str, node: Definition) -> Entry:
    doc = read(comment_of(home.tree.body, node))
    if isinstance(node, ast.FunctionDef):
        return Entry(module, name, home, "function", doc, tuple(of_function(home, node)), written(home, node.returns))
    value = getattr(importlib.import_module(home.name), inner)
    if isinstance(node, ast.ClassDef):
        made = of_class(home, node)
        kind = _kind(home, node, value)
        given = None if made is None or kind == "protocol" else tuple(made)
        bases = tuple(written(home, base) for base in node.bases)
        return Entry(module, name, home, kind, doc, given, "", bases, tuple(_members(module, name, home, node)))
    if isinstance(value, Mapping):
        return Entry(module, name, home, "registry", doc, registered=tuple(_registered(value)))
    kind = "constant" if name.isupper() else "type"
    return Entry(module, name, home, kind, doc, value=written(home, node.value))


def _kind(home: Module, node: ast.ClassDef, value: object) -> str:
    if inspect.isclass(value) and issubclass(value, BaseException):
        return "exception"
    return "protocol" if any(written(home, base) == "Protocol" for base in node.bases) else "class"


def _members(module: str, owner: str, home: Module, node: ast.ClassDef) -> Iterator[Entry]:
    described = {base.name for _, base in bases_of(home, node)}
    for parameter in fields(home, node):
        statement = next(each for each in node.body if _target(each) == parameter.name) if parameter.name else None
        if statement is not None and (words := comment_of(node.body, statement)):
            yield Entry(module, f"{owner}.{parameter.name}", home, "field", read(words), returns=parameter.annotation)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and (not each.name.startswith("_") or each.name in SHOWN):
            doc = read(ast.get_docstring(each) or "")
            if doc.summary or not described:
                yield _member(module, f"{owner}.{each.name}", home, each, doc)


def _target(node: ast.stmt) -> str:
    return node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ""


def _member(module: str, name: str, home: Module, node: ast.FunctionDef, doc: Doc) -> Entry:
    marks = [written(home, each) for each in node.decorator_list]
    returns = written(home, node.returns)
    if any(mark in ("property", "cached_property") for mark in marks):
        return Entry(module, name, home, "property", doc, returns=returns)
    given = of_function(home, node, bound="staticmethod" not in marks)
    return Entry(module, name, home, "method", doc, tuple(given), returns)


def _registered(value: Mapping[Any, Any]) -> Iterator[tuple[str, str, str]]:
    for key, item in value.items():
        named = item.func if isinstance(item, partial) else item
        if inspect.isroutine(named) or inspect.isclass(named):
            yield f"{key}", read(named.__doc__ or "").summary, f"{named.__module__}.{named.__name__}"
        elif dataclasses.is_dataclass(named):
            yield f"{key}", "\n".join(_settings(f"{key}", named)) or "all as by default", ""
        else:
            yield f"{key}", "", ""


def _settings(key: str, item: Any) -> Iterator[str]:  # noqa: ANN401 (any dataclass)
    """The plain fields of an entry that say something: not its key, not what all have by default."""
    for each in dataclasses.fields(item):
        value = getattr(item, each.name)
        if isinstance(value, (str, int, float)) and value not in (each.default, key):
            yield f"{each.name.replace('_', ' ')}: {value}"
