"""The report is a pure function of run folders: what enters, what stays out, and that an edited number is caught."""

import base64
import importlib
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from repro import panels
from repro.animation import Animation, read_gif
from repro.arrays import ARRAYS, load_arrays, save_arrays
from repro.evaluation.selection import Level, rows_at
from repro.experiment import TIERS, Config, Experiment
from repro.papers import EXPERIMENTS
from repro.papers.neural_ode.error_rates import compare_errors, difference, error_rate, seed_spread
from repro.papers.neural_ode.tables import table1
from repro.per_point import save_correct
from repro.report import build
from repro.report.pages import README_BLOCKS, find_missing_marker
from repro.results import Row, load, write_rows

TABLE1, COST, FIG3 = "neural_ode/table1_mnist", "neural_ode/table1_cost", "neural_ode/fig3_solver_stats"
PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
README = (
    "# Title\n\n<!-- generated:table:table1_mnist -->\n<!-- end:table:table1_mnist -->\n\nwords\n\n"
    "<!-- generated:claims -->\n<!-- end:claims -->\n\n<!-- generated:coverage -->\n<!-- end:coverage -->\n"
)


@pytest.fixture
def results(tmp_path, monkeypatch, whole_readme):
    root = tmp_path / "house" / "results"
    root.mkdir(parents=True)
    shutil.copy(PUBLISHED, root)
    (root.parent / "README.md").write_text(whole_readme(README))
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


def rows_of(results, tier="small"):
    return rows_at(load(results / "runs"), TABLE1, EXPERIMENTS[TABLE1].variants, Level(tier, 1))


def seeds(results, cell, errors, *, tier="small", **options):
    for seed, wrong in enumerate(errors):
        make_run(results, TABLE1, cell, error_rows(wrong, **options), tier=tier, seed=seed)


def test_building_again_changes_nothing(results):
    make_run(results, TABLE1, "odenet", error_rows(80))
    assert build(results, local=False, write=True)
    assert build(results, local=False, write=True) == []
    assert build(results, local=False, write=False) == []


def test_a_number_edited_by_hand_is_found_and_nothing_is_written(results):
    make_run(results, TABLE1, "odenet", error_rows(83))
    build(results, local=False, write=True)
    for name in ("README.md", "results/tables/table1_mnist_small.md", "results/tables/comparison.csv"):
        path = results.parent / name
        text = path.read_text()
        edited = text.replace("0.83", "0.42")
        assert edited != text
        path.write_text(edited)
        assert build(results, local=False, write=False) == [path]
        assert path.read_text() == edited
        path.write_text(text)


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


def test_too_few_seeds_get_no_verdict_but_a_count_of_parameters_does(results):
    make_run(results, TABLE1, "odenet", error_rows(42))
    make_run(results, TABLE1, "resnet", error_rows(41, parameters=601_482.0))
    build(results, local=False, write=True)
    assert ",not told apart," in comparison_line(results, "odenet,test_error")
    assert "1 of 5 seeds" in comparison_line(results, "odenet,test_error")
    assert ",agrees," in comparison_line(results, "resnet,parameters")
    assert ",differs," in comparison_line(results, "odenet,parameters")


def test_five_seeds_at_the_full_budget_get_a_verdict(results):
    for cell, wrong in (("odenet", 43), ("resnet", 90)):
        seeds(results, cell, range(wrong - 2, wrong + 3), tier="paper")
    build(results, local=False, write=True)
    assert "tier `paper`" in read(results, "table1_mnist_paper.md")
    assert ",agrees," in comparison_line(results, "odenet,test_error")
    assert ",worse," in comparison_line(results, "resnet,test_error")


def test_a_doubled_budget_decides_what_a_tenth_of_it_cannot(results):
    seeds(results, "resnet", (50, 52, 54, 56, 58))
    build(results, local=False, write=True)
    assert ",not told apart," in comparison_line(results, "resnet,test_error")
    seeds(results, "resnet_x2", (44, 46, 48))  # too few to be the evidence, enough for a gain
    seeds(results, "rknet_compiled", (90, 92, 94, 96, 98))
    seeds(results, "rknet_compiled_x2", (78, 80, 82, 84, 86))
    build(results, local=False, write=True)
    assert '"small, 2 times its budget",5 of 5 seeds,still improving by 0.12 per doubling,' in comparison_line(
        results, "rknet,test_error"
    )
    assert "ours by rknet_compiled_x2" in comparison_line(results, "rknet,test_error")
    assert ",small,5 of 5 seeds,not told apart," in comparison_line(results, "resnet,test_error")


def test_seeds_that_differ_in_a_doubling_are_said_and_get_no_verdict(results):
    for seed in range(5):
        make_run(results, TABLE1, "resnet", error_rows(50 + seed), seed=seed)
        make_run(results, TABLE1, "resnet_x2", error_rows(45 + seed), seed=seed + 1)
    build(results, local=False, write=True)
    line = comparison_line(results, "resnet,test_error")
    assert ",no verdict," in line
    assert "the seeds of the doubling pair differ: 0 1 2 3 4 and 1 2 3 4 5" in line


def test_shuffled_labels_are_worse_and_refute_the_claim(results):
    """A network that learnt nothing has 90 % errors, whatever its seeds: the negative control."""
    seeds(results, "odenet", (8990, 9010, 9005, 8995, 9000), tier="paper")
    seeds(results, "resnet", (40, 41, 42, 43, 44), tier="paper")
    build(results, local=False, write=True)
    assert ",worse," in comparison_line(results, "odenet,test_error")
    assert ",agrees," in comparison_line(results, "resnet,test_error")
    claims = read(results, "claims.md")
    assert "| not reproduced |" in next(line for line in claims.splitlines() if "reach about the test error" in line)


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


def test_a_first_run_of_a_higher_tier_takes_no_whole_table_s_place(results):
    for cell in ("odenet", "resnet"):
        make_run(results, TABLE1, cell, error_rows(80))
    make_run(results, COST, "odenet", [Row("step_time", 0.5, "s")])
    make_run(results, TABLE1, "mlp", error_rows(160), tier="paper")
    build(results, local=False, write=True)
    readme = (results.parent / "README.md").read_text()
    assert readme.index("tier `small`") < readme.index("tier `paper`")
    assert "ours (small)" in (results / "figures" / "table1_errors.svg").read_text()
    assert "training step" in read(results, "table1_mnist_small.md")
    assert "training step" not in read(results, "table1_mnist_paper.md")
    assert ",1.600,paper," in comparison_line(results, "mlp,test_error")


def test_the_same_runs_stand_for_a_cell_in_every_table(results):
    make_run(results, TABLE1, "rknet", error_rows(54))
    make_run(results, TABLE1, "rknet_compiled", error_rows(99))
    make_run(results, TABLE1, "odenet", error_rows(60))
    make_run(results, TABLE1, "odenet_compiled", error_rows(900), tier="smoke")
    make_run(results, COST, "rknet", [Row("step_time", 0.5, "s")], tier="paper")
    make_run(results, TABLE1, "odenet", [], tier="paper", status="diverged")
    make_run(results, TABLE1, "odenet_compiled", error_rows(47), tier="paper")
    make_run(results, TABLE1, "rknet_compiled", error_rows(48), tier="paper")
    build(results, local=False, write=True)
    assert ",0.480,paper,1 of 1 seeds,not told apart," in comparison_line(results, "rknet,test_error")
    odenet = comparison_line(results, "odenet,test_error")
    assert ",0.600,small,1 of 1 seeds,not told apart," in odenet
    assert odenet.endswith("; other runs: 1 diverged")
    small, full = (table1(rows_of(results, tier)).set_index("network") for tier in TIERS[1:])
    assert small["error, ours"]["RK-Net (backprop)"].startswith("0.54 %")
    assert full["error, ours"]["RK-Net (backprop), compiled engine"].startswith("0.48 %")
    assert "training step" not in full, "the reference engine's cost stands beside the compiled engine's error"
    assert full["runs"]["ODE-Net (adjoint)"] == "0 of 1; 1 diverged"
    shutil.move(results / "runs", results / "local")
    build(results, local=True, write=True)
    assert "0.480 (paper)" in (results / "local" / "tables" / "comparison.csv").read_text()


def test_the_table_has_a_line_for_what_ran_and_a_column_for_what_is_known(results):
    make_run(results, TABLE1, "one_block", error_rows(58))
    assert list(table1(rows_of(results))) == ["network", "error, ours", "parameters, ours", "runs"]
    make_run(results, TABLE1, "mlp_public", error_rows(206))
    table = table1(rows_of(results)).set_index("network")
    assert list(table.index) == ["1-layer MLP", "one residual block (ablation)"]
    assert table["error, public protocol"].tolist() == ["2.06 % [1.80, 2.36], 1 seed", "not run"]
    assert table["error, paper"].tolist() == ["1.60 %", "-"]


def test_own_smoke_runs_by_the_compiled_engine_hide_no_better_run(results):
    make_run(results, TABLE1, "odenet", error_rows(60), source="local")
    make_run(results, TABLE1, "odenet_compiled", error_rows(900), tier="smoke", source="local")
    build(results, local=True, write=True)
    lines = (results / "local" / "tables" / "comparison.csv").read_text().splitlines()
    assert "0.600 (small)" in next(line for line in lines if "odenet,test_error" in line)


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


@pytest.fixture
def drawn_once(monkeypatch):
    """Draw the report of the same runs once in a test, which takes seconds; what is tested is comparing and writing."""
    module = importlib.import_module("repro.report.build")  # the package's attribute of this name is the function
    draw, drawn = module._published, {}

    def published(results):
        runs = tuple(sorted(results.glob("runs/*/*/*/*/run.json")))
        if runs not in drawn:
            drawn[runs] = tuple(draw(results))
        return drawn[runs]

    monkeypatch.setattr(module, "_published", published)


def test_a_table_that_nothing_generates_any_more_is_found_and_removed(results, drawn_once):
    make_run(results, TABLE1, "odenet", error_rows(80))
    build(results, local=False, write=True)
    shutil.rmtree(results / "runs")
    stale = {results / "tables" / f"table1_mnist_small.{ending}" for ending in ("csv", "md")}
    listed = results / ".generated.json"
    assert {listed, *stale} < set(build(results, local=False, write=False))
    assert all(path.exists() for path in stale)
    build(results, local=False, write=True)
    assert not any(path.exists() for path in stale)
    assert "table1_mnist_small" not in listed.read_text()
    assert build(results, local=False, write=False) == []


def test_what_the_report_did_not_make_stays(results, drawn_once):
    make_run(results, TABLE1, "odenet", error_rows(80))
    build(results, local=False, write=True)
    own = [results / folder / "own.md" for folder in ("tables", "figures", "report", "tables/notes")]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("my own words")
    assert build(results, local=False, write=False) == []
    shutil.rmtree(results / "runs")
    build(results, local=False, write=True)
    assert [path.read_text() for path in own] == ["my own words"] * 4


def test_the_list_of_generated_files_names_each_once_and_is_checked(results, drawn_once):
    make_run(results, TABLE1, "odenet", error_rows(80))
    build(results, local=False, write=True)
    listed = results / ".generated.json"
    names = json.loads(listed.read_text())["files"]
    there = [path for folder in ("tables", "figures", "pages", "report") for path in (results / folder).iterdir()]
    there.append(results / "reproduction.md")
    assert names == sorted(path.relative_to(results).as_posix() for path in there)
    good = listed.read_bytes()
    for damaged in (b"", b"{}", b"[]", b"\xff", good.replace(b"tables/claims.md", b"tables/other.md")):
        listed.write_bytes(damaged)
        assert build(results, local=False, write=False) == [listed]
        build(results, local=False, write=True)
        assert listed.read_bytes() == good


def test_an_edited_list_deletes_nothing_outside_of_the_generated_folders(results, drawn_once):
    build(results, local=False, write=True)
    victims = [
        results.parent / "victim",
        results / "victim",
        results / "runs" / "victim",
        results / "tables" / "a" / "v",
    ]
    for path in victims:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    names = [
        "../victim",
        "victim",
        "runs/victim",
        "tables/a/v",
        "tables/../victim",
        str(results / "victim"),
        "tables/..",
    ]
    (results / ".generated.json").write_text(json.dumps({"files": names}))
    build(results, local=False, write=True)
    assert all(path.exists() for path in victims)


def each_write(monkeypatch, act):
    """Call `act` with a count before every file that the report moves to its place or deletes."""
    count = iter(range(10**6))
    for name in ("replace", "unlink"):
        original = getattr(Path, name)

        def watched(path, *words, original=original, **options):
            act(next(count))
            return original(path, *words, **options)

        monkeypatch.setattr(Path, name, watched)


@pytest.mark.slow
def test_killed_at_any_write_each_file_is_whole_and_the_next_report_puts_all_right(results, drawn_once):
    """Real kills of real processes; the second report replaces a table by another one."""
    make_run(results, TABLE1, "odenet", error_rows(80))
    build(results, local=False, write=True)
    before = contents(results)
    shutil.rmtree(results / "runs")
    make_run(results, COST, "odenet", [Row("step_time", 0.5, "s")])
    build(results, local=False, write=True)
    after = contents(results)
    for write in range(200):
        restore(results, before)
        child = os.fork()
        if not child:
            with pytest.MonkeyPatch.context() as killed:
                each_write(killed, lambda count: count == write and os.kill(os.getpid(), signal.SIGKILL))  # noqa: B023
                build(results, local=False, write=True)
                os._exit(0)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            break
        for name, content in contents(results).items():
            union = name.endswith(".generated.json")
            assert union or name.endswith(".partial") or content in (before.get(name), after.get(name)), name
        build(results, local=False, write=True)
        assert contents(results) == after
    assert write > 10


def contents(results):
    """Every generated file by its name."""
    folders = [results / name for name in ("tables", "figures", "report")]
    paths = [path for folder in folders for path in folder.iterdir()]
    paths += [results / "reproduction.md", results / ".generated.json", results.parent / "README.md"]
    return {path.relative_to(results.parent).as_posix(): path.read_bytes() for path in paths}


def restore(results, files):
    for name in contents(results):
        (results.parent / name).unlink()
    for name, content in files.items():
        (results.parent / name).write_bytes(content)


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text[: len(text) // 2]])
def test_a_readme_without_a_marker_is_an_error_that_names_it_and_nothing_is_written(results, call, damage, drawn_once):
    readme = results.parent / "README.md"
    build(results, local=False, write=True)
    assert call("report")[0] == 0
    damaged = damage(readme.read_text())
    readme.write_text(damaged)
    marker = find_missing_marker(damaged)
    code, out, err = call("report", "--check")
    assert code == 1
    assert "README.md" in out
    assert f"README.md lacks the marker {marker}" in err
    code, out, err = call("report")
    assert (code, out) == (1, "")
    assert err.strip().splitlines() == [f"error: {readme} lacks the marker {marker}: put it back; nothing was written"]
    assert readme.read_text() == damaged


def test_every_marker_of_the_readme_is_required():
    text = (PUBLISHED.parents[1] / "README.md").read_text()
    assert find_missing_marker(text) is None
    assert list(README_BLOCKS) == re.findall(r"<!-- generated:(\S+) -->", text)
    for name in README_BLOCKS:
        for marker in (f"<!-- generated:{name} -->", f"<!-- end:{name} -->"):
            assert find_missing_marker(text.replace(marker, "")) == marker


def test_smoke_runs_are_too_short_to_judge_a_claim_by(results):
    make_run(results, FIG3, "dopri5", sweep(1.0), tier="smoke", source="local")
    build(results, local=True, write=True)
    claims = (results / "local" / "tables" / "claims.md").read_text()
    assert (
        claims.count("not attempted") == len([c for e in EXPERIMENTS.values() for c in e.claims]) + 1
    )  # a benchmark's


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


def judgements(results, tier="small"):
    rows = load(results / "runs")
    return {
        claim.id: claim.check(rows_at(rows, name, experiment.variants, Level(tier, 1)))
        for name, experiment in EXPERIMENTS.items()
        for claim in experiment.claims
    }


def verdicts(results, tier="small"):
    return {claim: judgement.verdict for claim, judgement in judgements(results, tier).items()}


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


@pytest.mark.parametrize(
    ("vode", "dopri5", "expected"),
    [
        (1.0, 1.0, "reproduced"),
        (1.0, 0.3, "reproduced"),
        (0.3, 0.3, "reproduced"),
        (1.0, -1.0, "partly"),
        (-1.0, -1.0, "not reproduced"),
    ],
)
def test_error_follows_tolerance_by_both_solvers(results, vode, dopri5, expected):
    make_run(results, FIG3, "vode_adams", sweep(1.0, vode))
    assert verdicts(results)["node-error-follows-tolerance"] == "not attempted"
    make_run(results, FIG3, "dopri5", sweep(1.0, dopri5))
    assert verdicts(results)["node-error-follows-tolerance"] == expected
    assert verdicts(results)["node-time-follows-evaluations"] == "reproduced"
    evidence = judgements(results)["node-error-follows-tolerance"].evidence
    assert f"dopri5 rank correlation {1 if dopri5 > 0 else -1:.2f} over" in evidence
    assert f"error ~ tolerance^{dopri5:.2f} [" in evidence


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
    seeds(results, "odenet", [62])
    seeds(results, "one_block", [one_block - 3, one_block, one_block + 3], parameters=206_858.0)
    assert verdicts(results)["node-parameter-efficiency"] == expected


@pytest.mark.parametrize(("odenet", "expected"), [(62, "reproduced"), (90, "partly"), (200, "not reproduced")])
def test_as_good_as_resnet(results, odenet, expected):
    seeds(results, "odenet", [odenet])
    seeds(results, "resnet", [57, 60, 63])
    assert verdicts(results)["node-as-good-as-resnet"] == expected


@pytest.mark.parametrize("others", [[60], [40, 80]])
def test_one_seed_each_or_a_wide_spread_reproduces_no_claim_on_errors(results, others):
    seeds(results, "odenet", [60])
    seeds(results, "resnet", others)
    seeds(results, "mlp", [200, 201, 202])
    assert verdicts(results)["node-as-good-as-resnet"] == "partly"


def test_the_interval_has_the_test_sets_noise_and_the_spread_over_seeds(results):
    seeds(results, "odenet", [60])
    seeds(results, "resnet", [50, 60, 70])
    seeds(results, "no_block", [100, 106])
    rows = load(results / "runs")
    spread, df = seed_spread(rows)
    assert (spread, df) == (pytest.approx(np.sqrt((2 * 0.1**2 + 0.06**2 / 2) / 3)), 3)
    a, b = (error_rate(rows, cell) for cell in ("odenet", "resnet"))
    of_test, of_seeds = 2 * 0.6 * 99.4 / 1e4, spread**2 * (1 + 1 / 3)
    quantile = stats.t.ppf(0.975, df * (of_test + of_seeds) ** 2 / of_seeds**2)
    assert difference(a, b, (spread, df)).high == pytest.approx(quantile * np.sqrt(of_test + of_seeds))


def save_answers(results, cell, wrong_images):
    for folder in (results / "runs" / TABLE1).glob(f"{cell}-*/*-seed*"):
        correct = torch.ones(10_000, dtype=torch.bool)
        correct[wrong_images(int(folder.name.rpartition("seed")[2]))] = False
        save_correct(folder, correct)


def test_errors_on_the_same_images_are_compared_image_by_image(results):
    """Both networks fail on 60 hard images, each seed on 3 more of its own: the paired interval is far narrower."""
    seeds(results, "odenet", [63, 63, 63])
    seeds(results, "resnet", [63, 63, 63])
    rows = rows_of(results)
    unpaired = compare_errors(rows, "odenet", "resnet")
    save_answers(results, "odenet", lambda seed: [*range(60), *range(100 + 3 * seed, 103 + 3 * seed)])
    assert compare_errors(rows, "odenet", "resnet") == unpaired, "one network's answers are not recorded"
    save_answers(results, "resnet", lambda seed: [*range(60), *range(200 + 3 * seed, 203 + 3 * seed)])
    paired = compare_errors(rows, "odenet", "resnet")
    assert (paired.pairs, paired.value) == (3, pytest.approx(0))
    assert paired.high < unpaired.high / 5
    assert "paired by 3 seeds and by image" in str(paired)
    save_answers(results, "odenet", lambda seed: range(93))
    worse = compare_errors(rows, "odenet", "resnet")
    assert worse.low > 0.15
    assert worse.value == pytest.approx(0.30)


@pytest.mark.parametrize(("network", "verdict"), [(None, "reproduced"), (200, "not reproduced")])
def test_a_cell_of_the_compiled_engine_stands_for_its_network_only_alone(results, network, verdict):
    seeds(results, "resnet", [57, 60, 63])
    make_run(results, TABLE1, "odenet_compiled", error_rows(62))
    if network is not None:
        make_run(results, TABLE1, "odenet", error_rows(network))
    assert verdicts(results)["node-as-good-as-resnet"] == verdict
    shown = table1(rows_of(results)).set_index("network")["error, ours"]
    alone = network is None
    assert ("ODE-Net (adjoint), compiled engine" in shown.index) == alone
    assert (
        shown[[name for name in shown.index if name.startswith("ODE-Net")]]
        .iloc[0]
        .startswith("0.62" if alone else "2.00")
    )


@pytest.mark.parametrize(("growth", "expected"), [(2.0, "reproduced"), (0.3, "partly"), (-1.0, "not reproduced")])
def test_evaluations_grow(results, growth, expected):
    noise = (0.01, -0.02, 0.015, 0.0, -0.01, 0.02)
    rows = [Row("nfe_forward", 26 + growth * k + noise[k], "evaluations", 10 * (k + 1)) for k in range(6)]
    for seed in range(2):
        make_run(results, TABLE1, "odenet", [*rows, *error_rows(60)], seed=seed)
    assert verdicts(results)["node-evaluations-grow"] == expected


def test_rk_nets_stand_beside_the_growth_and_do_not_judge_it(results):
    for seed in range(2):
        rows = [Row("nfe_forward", 20.0 + 2 * k, "evaluations", 10 * (k + 1)) for k in range(4)]
        make_run(results, TABLE1, "odenet", [*rows, *error_rows(60)], seed=seed)
    flat = [Row("nfe_forward", 20.0, "evaluations", 10 * (k + 1)) for k in range(4)]
    make_run(results, TABLE1, "rknet", [*flat, *error_rows(60)])
    judgement = judgements(results)["node-evaluations-grow"]
    assert judgement.verdict == "reproduced"
    assert judgement.evidence.endswith("2 seeds; rknet, the same network and solver, 20.0 and 20.0")


def test_one_seed_alone_says_at_most_partly_that_evaluations_grow(results):
    rows = [Row("nfe_forward", 26.0 + 3 * k, "evaluations", 10 * (k + 1)) for k in range(6)]
    make_run(results, TABLE1, "odenet", [*rows, *error_rows(60)])
    assert verdicts(results)["node-evaluations-grow"] == "partly"


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


# --- arrays, pictures, animations ------------------------------------------------------------------------------------

FLOW = "ffjord/a_flow"
MARKERS = (
    "before\n<!-- generated:figures:neural_ode/fig3 -->\n<!-- end:figures:neural_ode/fig3 -->\nbetween\n"
    "<!-- generated:figures:ffjord/ -->\nold\n<!-- end:figures:ffjord/ -->\nafter\n"
    "<!-- generated:figures:neural_ode/table -->\n<!-- end:figures:neural_ode/table -->\n"
)


def draw_flow(rows):
    """A density's last state.

    Nobody reads this line.
    """
    arrays = load_arrays(rows, FLOW, "only")
    if arrays is None:
        return None
    figure, axes = panels.grid_figure(1, 1, ["density"], ["t = 1"])
    panels.density_panel(axes[0][0], arrays["densities"][-1], 1.0)
    return figure


def animate_flow(rows):
    """A density on its way."""
    arrays = load_arrays(rows, FLOW, "only")
    return arrays and Animation(panels.density_frames(arrays["densities"], None, 1.0, 2), 100)


@pytest.fixture
def flow(results, monkeypatch, whole_readme):
    """A registered artefact that draws arrays, and a README that shows it."""
    same = {tier: lambda config: config for tier in ("smoke", "small")}
    experiment = Experiment(
        artefact="FFJORD, Figure 99",
        cells={"only": Config()},
        tiers=same,
        measure=lambda config, context: iter(()),
        draw={"flow": draw_flow},
        animate={"flow": animate_flow},
    )
    monkeypatch.setitem(EXPERIMENTS, FLOW, experiment)
    numbers = PUBLISHED.read_text().splitlines(keepends=True)
    (results / "published.csv").write_text("".join(numbers[:4]))  # the others would only take time
    (results.parent / "README.md").write_text(whole_readme(MARKERS))
    return results


def make_flow(results, *, source="runs", tier="small", arrays=True):
    make_run(results, FLOW, "only", [Row("x", 1.0, "")], source=source, tier=tier)
    folder = next((results / source / FLOW).glob("only-*/machine-seed0"))
    if arrays:
        x = np.linspace(-1, 1, 20)
        densities = np.stack([np.exp(-(x[:, None] ** 2 + (x - shift) ** 2) / 0.1) for shift in (-0.5, 0.0, 0.5)])
        save_arrays(folder / ARRAYS, {"densities": densities})
    return folder


def pictures(results):
    return sorted(path.name for path in (results / "figures").glob("flow*"))


def block(results, prefix):
    text = (results.parent / "README.md").read_text()
    return re.findall(rf"<!-- generated:figures:{prefix} -->\n(.*?)<!-- end:", text, re.DOTALL)[0].strip()


def test_runs_with_arrays_are_drawn_and_animated(flow):
    make_flow(flow)
    build(flow, local=False, write=True)
    assert pictures(flow) == ["flow.gif", "flow.png", "flow.svg"]
    assert read_gif((flow / "figures" / "flow.gif").read_bytes()).frames.shape == (3, 40, 40, 3)
    assert build(flow, local=False, write=False) == []


def test_own_runs_are_animated_beside_the_published_ones(flow):
    make_flow(flow, source="local", tier="smoke")
    build(flow, local=True, write=True)
    assert (flow / "local" / "figures" / "flow.gif").exists()
    assert not (flow / "figures").exists()


def test_runs_without_arrays_write_nothing_and_show_nothing(flow):
    make_flow(flow, arrays=False)
    build(flow, local=False, write=True)
    assert pictures(flow) == []
    assert block(flow, "ffjord/") == "No published run yet."


def test_a_picture_that_lost_its_arrays_is_removed(flow):
    folder = make_flow(flow)
    build(flow, local=False, write=True)
    (folder / ARRAYS).unlink()
    stale = {flow / "figures" / name for name in pictures(flow)}
    assert flow / "figures" / "flow.gif" in stale
    assert stale < set(build(flow, local=False, write=True))
    assert pictures(flow) == []


def test_blocks_of_the_readme_show_the_pictures_of_their_experiments(flow):
    make_flow(flow)
    make_run(flow, FIG3, "dopri5", sweep(1.0))
    build(flow, local=False, write=True)
    assert block(flow, "ffjord/").split("\n\n") == [
        "![A density's last state.](results/figures/flow.svg)",
        "![A density on its way.](results/figures/flow.gif)",
    ]
    assert re.fullmatch(r"!\[[^]]+\]\(results/figures/fig3_solver_stats.svg\)", block(flow, "neural_ode/fig3"))
    assert block(flow, "neural_ode/table") == "No published run yet."
    text = (flow.parent / "README.md").read_text()
    assert text.startswith("before\n<!-- ")
    assert "-->\nbetween\n<!--" in text
    assert "-->\nafter\n<!--" in text


def test_an_animation_that_only_is_encoded_otherwise_is_not_changed(flow):
    make_flow(flow)
    build(flow, local=False, write=True)
    path = flow / "figures" / "flow.gif"
    shown = read_gif(path.read_bytes())
    first, *rest = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in shown.frames]
    first.save(path, save_all=True, append_images=rest, duration=shown.durations, optimize=True, disposal=2, loop=0)
    before = path.read_bytes()
    assert np.array_equal(read_gif(before).frames, shown.frames)
    assert build(flow, local=False, write=True) == []
    assert path.read_bytes() == before


def test_an_animation_that_shows_something_else_is_found_and_replaced(flow):
    make_flow(flow)
    build(flow, local=False, write=True)
    path = flow / "figures" / "flow.gif"
    good = path.read_bytes()
    first, *rest = [Image.fromarray(frame) for frame in read_gif(good).frames]
    first.putpixel((5, 5), (1, 2, 3))
    first.save(path, save_all=True, append_images=rest, duration=[100, 100, 1600], loop=0)
    assert build(flow, local=False, write=False) == [path]
    path.write_bytes(good[:100])
    assert build(flow, local=False, write=False) == [path]
    build(flow, local=False, write=True)
    assert path.read_bytes() == good


def with_image(svg, change):
    """The SVG with its one image stored without compression, after a change of its pixels."""
    (data,) = re.findall(rb'base64,\s*([^"]*)"', svg)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    buffer = io.BytesIO()
    change(image).save(buffer, format="png", compress_level=0)
    svg = svg.replace(data, base64.b64encode(buffer.getvalue()))
    return re.sub(rb'id="image\w+"', b'id="image123abc"', svg)


def test_an_image_inside_a_figure_is_compared_by_its_pixels(flow):
    make_flow(flow)
    build(flow, local=False, write=True)
    path = flow / "figures" / "flow.svg"
    svg = path.read_bytes()
    path.write_bytes(with_image(svg, lambda image: image))
    assert path.read_bytes() != svg
    assert build(flow, local=False, write=False) == []
    path.write_bytes(with_image(svg, lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    assert build(flow, local=False, write=False) == [path, path.with_suffix(".png")]
    path.write_bytes(with_image(svg, lambda image: image).replace(b"</svg>", b"<g/></svg>"))
    assert path in build(flow, local=False, write=False)


def test_names_of_animations_are_unique_and_fit_for_a_path():
    names = [name for experiment in EXPERIMENTS.values() for name in experiment.animate]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)
