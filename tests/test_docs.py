"""What the README and CONTRIBUTING say is true: the example runs, commands, targets and linked files exist."""

import re
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
README, CONTRIBUTING = ((HOUSE / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
MAKEFILE = (HOUSE / "Makefile").read_text()
BOTH = README + CONTRIBUTING


def test_the_examples_run_and_print_what_they_cost(capsys):
    names = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(code, "README.md", "exec"), names)
        printed = capsys.readouterr().out
        assert "nfe_forward" in printed
        assert "nfe_backward" in printed


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z][a-z-]+)", README + CONTRIBUTING))))
def test_every_target_exists_and_is_explained(target):
    assert re.search(rf"^{target}: .*## ", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", BOTH))))
def test_every_linked_file_exists(link):
    assert (HOUSE / link).exists()


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"python -m repro ([a-z]+)", BOTH))))
def test_every_verb_has_a_help(verb, call):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert verb in out


def test_every_file_named_in_the_map_of_the_house_exists():
    (block,) = re.findall(r"## The house\n\n```\n(.*?)```", README, re.DOTALL)
    names = [line.split()[0] for line in block.splitlines()]
    assert names
    assert [name for name in names if not (HOUSE / name).exists()] == []


@pytest.mark.parametrize("registry", ["EXPERIMENTS", "SOLVERS", "GRADIENTS", "DIVERGENCES", "FIELDS", "DATASETS"])
def test_each_registry_stands_where_contributing_says(registry):
    (path,) = set(re.findall(rf"`{registry}` in `([^`]+)`", CONTRIBUTING))
    assert re.search(rf"^{registry}\b.*= {{", (HOUSE / path).read_text(), re.MULTILINE)
