"""What every experiment promises, whoever adds it: a name, tiers, digests of its own, an explanation."""

import dataclasses
import importlib
import inspect
import re
from collections import Counter

import pytest

from repro.experiment import SUITE, TIERS, Claim, Config, graded, settings_of
from repro.papers import EXPERIMENTS

CELLS = [(name, cell) for name, experiment in EXPERIMENTS.items() for cell in experiment.cells]


@pytest.fixture(params=EXPERIMENTS)
def named(request):
    return request.param, EXPERIMENTS[request.param]


def module_of(name):
    return importlib.import_module("repro.papers." + name.replace("/", "."))


def test_it_is_registered_under_its_path(named):
    name, experiment = named
    assert module_of(name).EXPERIMENT is experiment
    assert experiment.measure.__module__ == f"repro.papers.{name.replace('/', '.')}"


def test_it_names_paper_and_artefact(named):
    name, experiment = named
    paper = {"neural_ode": "Neural ODE", "ffjord": "FFJORD"}[name.split("/")[0]]
    assert re.fullmatch(rf"{paper}, (Table|Figure|Section) \d.*", experiment.artefact)


def test_no_two_experiments_share_an_artefact():
    assert max(Counter(experiment.artefact for experiment in EXPERIMENTS.values()).values()) == 1


def test_its_file_says_which_section_and_where_it_deviates(named):
    name, experiment = named
    text = module_of(name).__doc__
    number = re.search(r"(Table|Figure|Section) \d+", experiment.artefact).group()
    assert number in text
    assert re.search(r"Section \d|Appendix [A-Z]|Table \d|Figure \d", text)
    assert "Deviations" in text or "No deviations" in text


@pytest.mark.parametrize(("name", "cell"), CELLS)
@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_gives_settings_of_the_cells_type(name, cell, tier):
    experiment = EXPERIMENTS[name]
    config = experiment.config(cell, tier)
    assert type(config) is type(experiment.cells[cell])
    assert isinstance(config, Config)
    assert type(config).__module__.rpartition(".")[0] == experiment.measure.__module__.rpartition(".")[0]
    assert config.seed == 0
    if tier == "paper":
        assert config == experiment.cells[cell]


@pytest.mark.parametrize(("name", "cell"), CELLS)
def test_settings_are_frozen_plain_values_with_a_word_each(name, cell):
    config = EXPERIMENTS[name].cells[cell]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    settings_of(config)  # JSON, or TypeError
    source = inspect.getsource(type(config))
    for entry in dataclasses.fields(config):
        assert entry.name == "seed" or re.search(rf'\b{entry.name}: .*\n    """\S', source), (
            f"{entry.name} says nothing"
        )


@pytest.mark.parametrize("tier", TIERS)
def test_digests_tell_all_cells_of_a_tier_apart(named, tier):
    _, experiment = named
    digests = [experiment.digest(experiment.config(cell, tier)) for cell in experiment.cells]
    assert len(set(digests)) == len(digests)


def test_cells_are_fit_for_a_path_and_a_command(named):
    for cell in named[1].cells:
        assert re.fullmatch(r"[a-z0-9][a-z0-9_]*", cell)


def test_main_cells_exist(named):
    _, experiment = named
    assert experiment.main_cells is None or experiment.main_cells
    assert set(experiment.main_cells or ()) <= set(experiment.cells)
    assert set(experiment.smoke_cells or ()) <= set(experiment.main_cells or experiment.cells)


def test_claims_are_unique_and_say_where_they_stand():
    claims = [claim for experiment in EXPERIMENTS.values() for claim in experiment.claims]
    assert max(Counter(claim.id for claim in claims).values()) == 1
    for claim in claims:
        assert isinstance(claim, Claim)
        assert re.fullmatch(r"[a-z0-9-]+", claim.id)
        assert claim.statement.endswith("." if claim.origin == "paper" else "?")
        assert claim.source
        assert (claim.source == SUITE) == (claim.origin == "suite")


def test_drawings_and_tables_have_names_of_their_own():
    for kind in ("draw", "animate", "tables"):
        names = [name for experiment in EXPERIMENTS.values() for name in getattr(experiment, kind)]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


def test_the_smoke_tier_is_small(named):
    """CI starts a process for every one of these cells."""
    _, experiment = named
    assert len(experiment.smoke_cells or experiment.main_cells or experiment.cells) <= 13


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [([True, True], "reproduced"), ([True, False], "partly"), ([False, False], "not reproduced")],
)
def test_several_cases_are_graded_together(holds, verdict):
    assert graded(holds) == verdict
