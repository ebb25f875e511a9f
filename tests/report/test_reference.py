"""The reference names all that is public, says nothing of parameters that are not there, and is always the same."""

import ast
import hashlib
import importlib
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from repro.report.site.reference import reference
from repro.report.site.reference.contents import INDEX, TOPICS, address, documented, place_of
from repro.report.site.reference.docstrings import read
from repro.report.site.reference.signatures import fields, is_record, of_class, of_function
from repro.report.site.reference.source import module_of

HOUSE = Path(__file__).parents[2]
ENTRIES = [entry for groups in documented().values() for entries in groups.values() for entry in entries]
MODULES = [module for topic in TOPICS for module in topic.modules]
PAGES = {name: content.decode() for name, content in reference()}


@pytest.mark.parametrize(
    "module", [module for module in MODULES if hasattr(importlib.import_module(module), "__all__")]
)
def test_every_name_of_a_package_is_documented_and_in_the_index(module):
    for name in importlib.import_module(module).__all__:
        file, _, place = (address(f"{module}.{name}") or "").partition("#")
        assert f'id="{place}"' in PAGES[file], name
        assert f'href="{file}#{place}"' in PAGES[INDEX], name


def test_every_entry_has_a_place_of_its_own_and_a_docstring():
    for name, text in PAGES.items():
        ids = re.findall(r' id="([^"]*)"', text)
        assert len(set(ids)) == len(ids), name
    assert [entry.path for entry in ENTRIES if not entry.doc.summary and entry.kind != "type"] == []
    assert [entry.path for entry in ENTRIES if f'id="{place_of(entry)}"' not in "".join(PAGES.values())] == []


def definitions():
    """Every function and class of the suite whose docstring has a list of parameters or attributes."""
    for path in sorted((HOUSE / "repro").rglob("*.py")):
        name = ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(module_of(name).tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                described = read(ast.get_docstring(node) or "").parameters
                if described:
                    yield pytest.param(module_of(name), node, set(described), id=f"{name}.{node.name}")


@pytest.mark.parametrize(("module", "node", "described"), list(definitions()))
def test_a_docstring_describes_exactly_the_parameters_that_there_are(module, node, described):
    if isinstance(node, ast.FunctionDef):
        there = {each.name for each in of_function(module, node)} - {"", "self", "cls"}
        assert described == there
    elif is_record(module, node):
        assert described == {each.name for each in fields(module, node)} - {""}
    elif "Attributes:" in ast.get_docstring(node):
        assert described <= attributes(node)
    else:
        assert described == {each.name for each in of_class(module, node) or ()} - {""}


def attributes(node):
    """What a class or its methods assign, and its properties."""
    stored = {
        each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
    }
    plain = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return stored | plain | {each.name for each in node.body if isinstance(each, ast.FunctionDef)}


def test_a_registry_is_shown_with_all_its_entries():
    registries = [entry for entry in ENTRIES if entry.kind == "registry"]
    assert {"SOLVERS", "GRADIENTS", "DIVERGENCES", "FIELDS", "DATASETS", "DENSITIES"} <= {r.name for r in registries}
    for entry in registries:
        value = getattr(importlib.import_module(entry.module), entry.name)
        assert [key for key, _, _ in entry.registered] == list(value)
        assert "" not in {words for _, words, home in entry.registered if home}


def test_signatures_stand_as_in_the_source():
    text = unescape(re.sub(r"<[^>]+>", "", PAGES["reference-ode.html"]))
    assert 'solver: Solver = SOLVERS["dopri5"],\n    gradient: str = "adjoint",' in text
    assert "supported(solver: Solver, gradient: str) -> str | None" in text
    assert 'State = Float[Tensor, "*state"]' in text
    assert re.search(r'Solver\(\n    method: str = "dopri5",\n    \*,\n    rtol: float = 1e-5,', text)


def test_words_are_linked_by_what_they_mean_where_they_stand():
    experiment, verdicts = module_of("repro.experiment"), module_of("repro.evaluation.verdicts")
    assert address("Verdict", experiment) == "reference-experiment.html#Verdict"
    assert address("Verdict", verdicts) == "reference-results.html#Verdict"
    assert address("repro.ode.Solver.order") == "reference-ode.html#Solver.order"
    assert address("Solver.rtol") == "reference-ode.html#Solver"
    assert address("nothing.of.the.kind") is None


def test_a_docstring_is_taken_apart():
    doc = read(
        "Do.\n\nMore\nwords: `x`.\n\nArgs:\n    a: One\n        thing: two.\n    *b: Rest.\n\nReturns:\n    It: so."
    )
    assert (doc.summary, doc.description, doc.returns) == ("Do.", ("More words: `x`.",), "It: so.")
    assert doc.parameters == {"a": "One thing: two.", "b": "Rest."}


def test_pages_are_the_same_without_the_hooks_of_the_tests_and_tell_nothing_of_this_machine():
    words = "import hashlib; from repro.report.site.reference import reference as r; "
    words += "print(hashlib.sha256(b''.join(content for _, content in r())).hexdigest(), end='')"
    command = [sys.executable, "-c", words]
    found = subprocess.run(
        command, cwd=HOUSE, capture_output=True, text=True, check=True, env={"PYTHONPATH": f"{HOUSE}"}
    )
    assert found.stdout == sha256_of("".join(PAGES.values()))
    assert not re.search(r" at 0x|<locals>|&lt;function|" + re.escape(f"{HOUSE}/"), "".join(PAGES.values()))


def sha256_of(text):
    return hashlib.sha256(text.encode()).hexdigest()
