"""Bounds of settings: every number has some, every violation is one line before anything runs."""

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, get_args, get_type_hints

import pytest

from repro import experiment
from repro.ode import Solver
from repro.papers import EXPERIMENTS
from repro.settings import MAX_EVALUATIONS, SOLVER_RANGES, Among, Count, Positive, Range, Tolerance, _find_rules

CELLS = {name: next(iter(each.cells)) for name, each in EXPERIMENTS.items()}


def numbers(config):
    """Fields of a config that hold numbers, with their bounds."""
    plain = get_type_hints(type(config))
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        kinds = {plain[name], *get_args(plain[name])} & {int, float}
        for kind in kinds:
            yield name, kind, [rule for rule in _find_rules(hint) if isinstance(rule, Range)]


NUMBERS = [
    (name, setting, kind, rules)
    for name, cell in CELLS.items()
    for setting, kind, rules in numbers(EXPERIMENTS[name].config(cell, "smoke"))
]


@pytest.mark.parametrize(("name", "setting", "kind", "rules"), NUMBERS)
def test_every_number_of_every_experiment_has_bounds_that_are_checked(name, setting, kind, rules):
    config = EXPERIMENTS[name].config(CELLS[name], "smoke")
    assert len(rules) == 1, "declare the bounds in the field's type"
    (rule,) = rules
    outside = [kind(rule.least - 1), 2 * kind(rule.largest), *([math.nan, -math.inf] if kind is float else [])]
    for value in [*outside, kind(rule.least)] if rule.above else outside:
        many = isinstance(getattr(config, setting), tuple)
        with pytest.raises(ValueError, match=rf"^{setting} must be .*; got ") as caught:
            replace(config, **{setting: (value,) if many else value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CELLS)
def test_every_solver_of_every_experiment_is_checked(name):
    config = EXPERIMENTS[name].config(CELLS[name], "smoke")
    for setting in (entry.name for entry in fields(config) if isinstance(getattr(config, entry.name), Solver)):
        for key, rule in SOLVER_RANGES.items():
            beyond = rule.largest * (2 if key == "max_nfe" else 2.0)
            solver = replace(Solver("euler" if key == "step_size" else "dopri5"), **{key: beyond})
            with pytest.raises(ValueError, match=rf"{key} must be .*; got "):
                replace(config, **{setting: solver})


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        ("ffjord/fig1_density1d", ["--test-points", "0"], "test_points must be at least 2; got 0"),
        ("ffjord/fig1_density1d", ["--times", "0"], "times must be at least 2; got 0"),
        ("ffjord/fig1_density1d", ["--iterations", "-5"], "iterations must be at least 1; got -5"),
        ("ffjord/fig1_density1d", ["--iterations", "0"], "iterations must be at least 1; got 0"),
        ("ffjord/fig1_density1d", ["--iterations", "1.5"], "--iterations: invalid literal for int()"),
        ("ffjord/fig1_density1d", ["--solver.rtol", "inf"], "rtol must be finite and > 0; got inf"),
        ("ffjord/fig1_density1d", ["--solver.atol", "1e308"], "solver.atol must be at most 1; got 1e+308"),
        ("ffjord/fig1_density1d", ["--solver.step-size", "inf"], "step_size must be finite and > 0; got inf"),
        ("ffjord/fig1_density1d", ["--solver.step-size", "0.1"], "step_size has no meaning for 'dopri5'"),
        (
            "ffjord/fig1_density1d",
            ["--solver.method", "euler", "--solver.step-size", "inf"],
            "step_size must be finite and > 0; got inf",
        ),
        (
            "ffjord/fig1_density1d",
            ["--solver.method", "euler", "--solver.step-size", "1e308"],
            "solver.step_size must be at most 3.402823466e+38; got 1e+308",
        ),
        ("ffjord/fig1_density1d", ["--solver.rtol", "1e308"], "solver.rtol must be at most 1; got 1e+308"),
        (
            "ffjord/fig1_density1d",
            ["--solver.method", "euler", "--solver.step-size", "1e-9"],
            "solver.step_size must be at least t1 / 200,000 = 2.5e-06; got 1e-09",
        ),
        ("ffjord/fig1_density1d", ["--gradient", "magic"], "gradient must be one of: "),
        ("ffjord/fig2_toy2d", ["--divergence", "xtrace"], "n_probes: divergence 'xtrace' needs at least 2 probes"),
        ("ffjord/fig2_toy2d", ["--noise", "pink"], "noise must be one of: "),
        ("ffjord/fig8_tolerance", ["--method", "euler"], "method must be one of: dopri5"),
        (
            "ffjord/fig1_density1d",
            ["--test-pionts", "9"],
            "unknown option --test-pionts; did you mean",
        ),
    ],
)
def test_what_is_out_of_range_on_the_command_line_is_one_line_and_wrong_usage(name, words, line, call, tmp_path):
    code, out, err = call("run", name, CELLS[name], *words)
    assert (code, out) == (2, "")
    assert line in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("*")), "nothing was begun"


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    limit: Count | None = None
    widths: tuple[Count, ...] = (1,)
    rate: Positive = 1.0
    tolerance: Tolerance = 0.1
    name: Annotated[str, Among({"a": 1, "b": 2})] = "a"
    shift: float = 0.0
    t1: Positive = 2.0
    solver: Solver = Solver("euler", step_size=0.1)


def test_bounds_reach_into_optional_and_tuple_types_and_leave_the_rest_finite():
    assert Config(limit=1, widths=(1, 2), rate=1e38, tolerance=1.0, name="b", shift=-1e300)
    for wrong in ({"limit": 0}, {"widths": (1, 0)}, {"widths": ()}, {"name": "c"}, {"shift": math.nan}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Config(**wrong)


def test_the_smallest_step_follows_the_time():
    least = 2.0 / MAX_EVALUATIONS
    assert Config(solver=Solver("euler", step_size=least))
    with pytest.raises(ValueError, match=r"solver.step_size must be at least t1 / 200,000 = 1e-05"):
        Config(solver=Solver("euler", step_size=0.99 * least))


def test_bounds_leave_the_digest_alone():
    @dataclass(frozen=True, kw_only=True)
    class Plain(experiment.Config):
        rate: float = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Bounded(experiment.Config):
        rate: Positive = 1.0

    digests = {experiment.compute_digest(experiment.settings_of(kind()), 1) for kind in (Plain, Bounded)}
    assert len(digests) == 1
