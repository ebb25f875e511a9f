"""The notebooks are whole, short, and committed as executed from top to bottom; `make notebooks` executes them anew."""

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST_CELLS = 15
MOST_BYTES = 600_000
ABSOLUTE = re.compile(r"(?<![\w.~/:])/(?:home|root|work|tmp|usr|opt|var|Users|mnt)/")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    """All that a cell put out, pictures apart."""
    for output in cell.outputs:
        yield from (output.get("text", ""), *output.get("traceback", ()))
        yield from (str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


def test_there_are_three():
    assert [path.name for path in NOTEBOOKS] == ["1_neural_ode.ipynb", "2_ffjord.ipynb", "3_benchmarks.ipynb"]


def test_each_is_a_valid_notebook_of_few_cells_with_names(notebook):
    nbformat.validate(notebook)
    names = [cell.id for cell in notebook.cells]
    assert len(names) == len(set(names)) <= MOST_CELLS
    assert all(re.fullmatch(r"[a-z0-9-]+", name) and not re.fullmatch(r"[0-9a-f]{8}", name) for name in names)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_is_small_enough_to_be_read_in_a_browser(path):
    assert path.stat().st_size < MOST_BYTES


def test_outputs_are_those_of_one_run_from_top_to_bottom(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [output for cell in code for output in cell.outputs if output.output_type == "error"] == []
    assert [output for cell in code for output in cell.outputs if output.get("name") == "stderr"] == []


def test_outputs_name_no_absolute_path(code):
    assert [text for cell in code for text in texts(cell) if ABSOLUTE.search(text)] == []


def test_every_import_resolves(code):
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in code))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


def test_links_lead_somewhere(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", prose)
    assert [link for link in links if not (NOTEBOOKS[0].parent / link).exists()] == []
