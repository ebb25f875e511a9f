"""The suite's own source text: where a public name is defined, and how it is written there.

Names are read from the source and not from imported objects, so that pages are the same whatever wraps functions at
import (the tests check shapes so) and whatever Python prints of them.
"""

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True, eq=False)
class Module:
    """A module's source.

    Attributes:
        name: As it is imported.
        path: Of its file, from the repository's root.
        text: All of it.
        tree: The same, parsed.
    """

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> list[bytes]:
        """Lines in UTF-8, in which the tree counts columns."""
        return self.text.encode().split(b"\n")

    @property
    def doc(self) -> str:
        """Its docstring."""
        return ast.get_docstring(self.tree) or ""


@cache
def module_of(name: str) -> Module:
    """Read a module of the suite.

    Raises:
        ModuleNotFoundError: There is none of that name.
    """
    top, *parts = name.split(".")
    root = Path(str(files(top)))
    folder = root.joinpath(*parts)
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    if not path.exists():
        raise ModuleNotFoundError(name)
    text = path.read_text(encoding="utf-8")
    return Module(name, path.relative_to(root.parent).as_posix(), text, ast.parse(text))


@cache
def _lines(module: Module) -> list[bytes]:
    return module.lines


def written(module: Module, node: ast.AST | None) -> str:
    """A node as it stands in the source, on one line; nothing for no node."""
    if node is None:
        return ""
    first, last = node.lineno - 1, node.end_lineno - 1  # pyright: ignore[reportAttributeAccessIssue]
    lines = _lines(module)[first : last + 1]
    lines[-1] = lines[-1][: node.end_col_offset]  # pyright: ignore[reportAttributeAccessIssue]
    lines[0] = lines[0][node.col_offset :]  # pyright: ignore[reportAttributeAccessIssue]
    text = " ".join(b" ".join(lines).decode().split())
    return re.sub(r",? (?=[\])}])", "", re.sub(r"(?<=[\[({]) ", "", text))


def public(module: Module) -> list[str]:
    """What a module offers: its `__all__`, or its functions, classes, types and documented registries."""
    known = _defined(module)
    listed = known.get("__all__")
    if isinstance(listed, ast.Assign):
        return list(ast.literal_eval(listed.value))
    return [name for name, node in known.items() if not name.startswith("_") and _offered(module, name, node)]


def _offered(module: Module, name: str, node: Definition) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return True
    if name.isupper():
        return isinstance(node.value, ast.Dict) and bool(comment_of(module.tree.body, node))
    return isinstance(node.value, (ast.Subscript, ast.BinOp))


@cache
def _defined(module: Module) -> dict[str, Definition]:
    """What a module defines at its top."""
    known: dict[str, Definition] = {}
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            known[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            known[node.target.id] = node
    return known


@cache
def _imported(module: Module) -> dict[str, tuple[str, str]]:
    """What a module imports of the suite, be it for type checkers only: module and name there."""
    body = module.tree.body
    conditional = [node for each in body if isinstance(each, ast.If) for node in each.body]
    return {
        alias.asname or alias.name: (f"{node.module}", alias.name)
        for node in body + conditional
        if isinstance(node, ast.ImportFrom) and f"{node.module}".split(".")[0] == "repro"
        for alias in node.names
    }


@cache
def found(module: str, name: str) -> tuple[Module, str, Definition] | None:
    """Where a name that can be used in a module is defined, what it is called there, and its definition.

    Args:
        module: A module of the suite.
        name: Defined or imported there.

    Returns:
        The module that defines it, its name and its node; None where it is not the suite's own.
    """
    source = module_of(module)
    if name in _defined(source):
        return source, name, _defined(source)[name]
    return _in(*_imported(source)[name]) if name in _imported(source) else None


def _in(module: str, name: str) -> tuple[Module, str, Definition] | None:
    try:
        return found(module, name)
    except ModuleNotFoundError:  # a module itself was imported
        return None


def comment_of(body: list[ast.stmt], node: ast.stmt) -> str:
    """The docstring of a definition: for an assignment the string that follows it."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return ast.get_docstring(node) or ""
    after = body[body.index(node) + 1 :][:1]
    value = after[0].value if after and isinstance(after[0], ast.Expr) else None
    words = value.value if isinstance(value, ast.Constant) else None
    return inspect.cleandoc(words) if isinstance(words, str) else ""
