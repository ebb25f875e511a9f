"""The report is a pure function of run folders: what enters, what stays out, and that an edited number is caught."""

import json
import shutil
from pathlib import Path

import pytest

from repro.papers import EXPERIMENTS
from repro.report import build
from repro.results import Row, load, write_rows

TABLE1, COST, FIG3 = "neural_ode/table1_mnist", "neural_ode/table1_cost", "neural_ode/fig3_solver_stats"
PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
README = (
    "# Title\n\n<!-- generated:table:table1_mnist -->\n<!-- end:table:table1_mnist -->\n\nwords\n\n"
    "<!-- generated:claims -->\n<!-- end:claims -->\n\n<!-- generated:coverage -->\n<!-- end:coverage -->\n"
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    root = tmp_path / "house" / "results"
    root.mkdir(parents=True)
    shutil.copy(PUBLISHED, root)
    (root.parent / "README.md").write_text(README)
    monkeypatch.setenv("REPRO_RESULTS", str(root))
    return root


def make_run(results, name, cell, rows, *, tier="small", seed=0, status="ok", source="runs", digest=None):
    experiment = EXPERIMENTS[name]
    digest = digest or experiment.digest(experiment.config(cell, tier))
    folder = results / source / name / f"{cell}-{digest}" / f"machine-seed{seed}"
    folder.mkdir(parents=True)
    write_rows(folder / "rows.csv", rows)
    keys = {"experiment": name, "cell": cell, "tier": tier, "seed": seed, "machine": "machine", "digest": digest}
    keys["threads"] = 1
    (folder / "run.json").write_text(json.dumps({**keys, "status": status}))


def error_rows(errors, parameters=208_266.0):
    return [
        Row("parameters", parameters, "parameters"),
        Row("test_images", 10_000.0, "images"),
        Row("test_errors", float(errors), "images"),
        Row("test_error", errors / 100, "%"),
    ]


def read(results, name):
    return (results / "tables" / name).read_text()


def comparison_line(results, start):
    return next(line for line in read(results, "comparison.csv").splitlines() if start in line)


def test_building_again_changes_nothing(results):
    make_run(results, TABLE1, "odenet", error_rows(80))
    assert build(results, local=False, write=True)
    assert build(results, local=False, write=True) == []
    assert build(results, local=False, write=False) == []


@pytest.mark.parametrize("name", ["README.md", "results/tables/table1_mnist_small.md", "results/tables/comparison.csv"])
def test_a_number_edited_by_hand_is_found_and_nothing_is_written(results, name):
    make_run(results, TABLE1, "odenet", error_rows(83))
    build(results, local=False, write=True)
    path = results.parent / name
    edited = path.read_text().replace("0.83", "0.42")
    assert edited != path.read_text()
    path.write_text(edited)
    assert build(results, local=False, write=False) == [path]
    assert path.read_text() == edited


def test_the_words_of_the_readme_stay(results):
    make_run(results, TABLE1, "odenet", error_rows(83))
    build(results, local=False, write=True)
    text = (results.parent / "README.md").read_text()
    assert "\nwords\n" in text
    assert "0.83 %" in text


def test_a_failed_seed_is_counted_and_never_averaged(results):
    make_run(results, TABLE1, "resnet", error_rows(50), seed=0)
    make_run(results, TABLE1, "resnet", error_rows(70), seed=1)
    make_run(results, TABLE1, "resnet", error_rows(9000), seed=2, status="diverged")
    build(results, local=False, write=True)
    line = comparison_line(results, "resnet,test_error")
    assert "2 of 3 seeds; 1 diverged" in line
    assert ",0.600 ± 0.141," in line


def test_a_run_with_other_settings_stays_out(results):
    make_run(results, TABLE1, "odenet", error_rows(1), digest="deadbeef")
    build(results, local=False, write=True)
    assert ",not run," in comparison_line(results, "odenet,test_error")


def test_a_lower_tier_gets_no_verdict_but_a_count_of_parameters_does(results):
    make_run(results, TABLE1, "odenet", error_rows(42))
    make_run(results, TABLE1, "resnet", error_rows(41, parameters=601_482.0))
    build(results, local=False, write=True)
    assert ",not comparable," in comparison_line(results, "odenet,test_error")
    assert ",match," in comparison_line(results, "resnet,parameters")
    assert ",differs," in comparison_line(results, "odenet,parameters")


def test_one_seed_at_full_budget_is_inconclusive_within_the_binomial_spread(results):
    make_run(results, TABLE1, "odenet", error_rows(45), tier="paper")
    build(results, local=False, write=True)
    table = read(results, "table1_mnist_paper.md")
    assert "tier `paper`" in table
    odenet = next(line for line in table.splitlines() if line.startswith("| ODE-Net"))
    assert "inconclusive" in odenet
    assert ",inconclusive," in comparison_line(results, "odenet,test_error")


def test_no_tier_hides_another_and_smoke_is_never_published(results):
    make_run(results, TABLE1, "odenet", error_rows(90), tier="smoke")
    build(results, local=False, write=True)
    assert list((results / "tables").glob("table1_mnist*")) == []
    make_run(results, TABLE1, "odenet", error_rows(80), tier="small")
    make_run(results, TABLE1, "odenet", error_rows(45), tier="paper")
    build(results, local=False, write=True)
    assert "0.45 %" in read(results, "table1_mnist_paper.md")
    assert "0.80 %" in read(results, "table1_mnist_small.md")
    readme = (results.parent / "README.md").read_text()
    assert readme.index("tier `paper`") < readme.index("tier `small`")


def test_own_runs_get_a_column_of_their_own_and_never_reach_published_tables(results):
    make_run(results, TABLE1, "odenet", error_rows(80))
    make_run(results, TABLE1, "odenet", error_rows(77), source="local")
    build(results, local=False, write=True)
    changed = build(results, local=True, write=True)
    assert all((results / "local") in path.parents for path in changed)
    assert "0.77" not in read(results, "comparison.csv")
    local = (results / "local" / "tables" / "comparison.csv").read_text()
    line = next(line for line in local.splitlines() if "odenet,test_error" in line)
    assert ",0.800," in line
    assert "0.770 (small)" in line


def test_a_table_that_nothing_generates_any_more_is_found_and_removed(results):
    make_run(results, TABLE1, "odenet", error_rows(80))
    build(results, local=False, write=True)
    stale = results / "tables" / "old.md"
    stale.write_text("0.42")
    assert build(results, local=False, write=False) == [stale]
    build(results, local=False, write=True)
    assert not stale.exists()


def test_smoke_runs_are_too_short_to_judge_a_claim_by(results):
    make_run(results, FIG3, "dopri5", sweep(1.0), tier="smoke", source="local")
    build(results, local=True, write=True)
    claims = (results / "local" / "tables" / "claims.md").read_text()
    assert claims.count("not attempted") == len([c for e in EXPERIMENTS.values() for c in e.claims])


def test_a_smaller_test_set_is_shown_as_what_it_is(results):
    rows = [Row("test_images", 1000.0, "images"), Row("test_errors", 89.0, "images"), Row("test_error", 8.9, "%")]
    make_run(results, TABLE1, "odenet", rows, tier="smoke", source="local")
    build(results, local=True, write=True)
    assert "8.90 % [7.29, 10.83], 1 seed" in (results / "local" / "tables" / "table1_mnist_smoke.md").read_text()


def test_seeds_on_two_machines_count_once(results):
    make_run(results, TABLE1, "resnet", error_rows(50))
    folder = next((results / "runs" / TABLE1).glob("resnet-*/machine-seed0"))
    other = folder.with_name("other-seed0")
    shutil.copytree(folder, other)
    info = json.loads((other / "run.json").read_text()) | {"machine": "other"}
    (other / "run.json").write_text(json.dumps(info))
    build(results, local=False, write=True)
    assert "0.50 % [0.38, 0.66], 1 seed" in read(results, "table1_mnist_small.md")


def sweep(ratio, exponent=1.0, seconds_per_evaluation=0.01):
    rows = []
    for index, tolerance in enumerate((1e-1, 1e-2, 1e-3, 1e-4)):
        forward = 20.0 + 6 * index
        values = {
            "tolerance": tolerance,
            "error": tolerance**exponent,
            "nfe_forward": forward,
            "nfe_backward": ratio * forward,
            "forward_time": seconds_per_evaluation * forward,
        }
        rows += [Row(metric, value, "", index) for metric, value in values.items()]
    return rows


def verdicts(results, tier="small"):
    rows = load(results / "runs")
    claims = [claim for experiment in EXPERIMENTS.values() for claim in experiment.claims]
    return {claim.id: claim.check(rows[rows["tier"] == tier]).verdict for claim in claims}


def test_without_runs_every_claim_is_not_attempted(results):
    make_run(results, FIG3, "dopri5", sweep(1.0), tier="smoke")
    assert set(verdicts(results).values()) == {"not attempted"}


@pytest.mark.parametrize(
    ("averaged", "summed", "expected"),
    [(0.5, 0.5, "reproduced"), (0.5, 1.1, "partly"), (1.0, 1.1, "not reproduced")],
)
def test_backward_half_is_judged_by_the_papers_solver_alone(results, averaged, summed, expected):
    make_run(results, FIG3, "vode_adams", sweep(averaged))
    make_run(results, FIG3, "vode_adams_sum", sweep(summed))
    make_run(results, FIG3, "dopri5", sweep(2.0))
    assert verdicts(results)["node-backward-half"] == expected


@pytest.mark.parametrize(("exponent", "expected"), [(1.0, "reproduced"), (0.3, "partly"), (-1.0, "not reproduced")])
def test_error_follows_tolerance(results, exponent, expected):
    make_run(results, FIG3, "dopri5", sweep(1.0, exponent))
    assert verdicts(results)["node-error-follows-tolerance"] == expected
    assert verdicts(results)["node-time-follows-evaluations"] == "reproduced"


@pytest.mark.parametrize(("adjoint", "expected"), [(0.0, "reproduced"), (1e4, "partly"), (5e6, "not reproduced")])
def test_constant_memory(results, adjoint, expected):
    for name, slope in (("adjoint", adjoint), ("backprop", 1e7)):
        rows = [
            Row(metric, 1e6 + slope * steps, "bytes", steps)
            for steps in (2, 4, 8)
            for metric in ("saved_bytes", "peak_step_memory")
        ]
        make_run(results, COST, f"depth_{name}", rows)
    assert verdicts(results)["node-constant-memory"] == expected


@pytest.mark.parametrize(("one_block", "expected"), [(60, "not reproduced"), (80, "partly"), (200, "reproduced")])
def test_parameter_efficiency(results, one_block, expected):
    make_run(results, TABLE1, "odenet", error_rows(62))
    make_run(results, TABLE1, "one_block", error_rows(one_block, parameters=206_858.0))
    assert verdicts(results)["node-parameter-efficiency"] == expected


@pytest.mark.parametrize(("odenet", "expected"), [(62, "reproduced"), (90, "partly"), (200, "not reproduced")])
def test_as_good_as_resnet(results, odenet, expected):
    make_run(results, TABLE1, "odenet", error_rows(odenet))
    make_run(results, TABLE1, "resnet", error_rows(60))
    assert verdicts(results)["node-as-good-as-resnet"] == expected


@pytest.mark.parametrize(("growth", "expected"), [(2.0, "reproduced"), (0.1, "partly"), (-1.0, "not reproduced")])
def test_evaluations_grow(results, growth, expected):
    noise = (0.01, -0.02, 0.015, 0.0, -0.01, 0.02)
    rows = [Row("nfe_forward", 26 + growth * k + noise[k], "evaluations", 10 * (k + 1)) for k in range(6)]
    make_run(results, TABLE1, "odenet", rows)
    assert verdicts(results)["node-evaluations-grow"] == expected


def test_figures_are_drawn_with_the_same_bytes_twice(results):
    make_run(results, FIG3, "dopri5", sweep(1.0))
    make_run(results, FIG3, "vode_adams", sweep(0.6))
    build(results, local=False, write=True)
    path = results / "figures" / "fig3_solver_stats.svg"
    before = path.read_bytes()
    path.unlink()
    build(results, local=False, write=True)
    assert path.read_bytes() == before
    assert path.with_suffix(".png").stat().st_size > 10_000
