"""Exports: every number and claim with a verdict, the same bytes for the same runs, and tables in other formats."""

import json
import re
import shutil
from pathlib import Path

import pytest

from repro.evaluation.verdicts import MEANING
from repro.integrity import hash_files
from repro.papers import EXPERIMENTS
from repro.published import load_published
from repro.report.export import export, number_ids, rule_changes, to_json
from repro.report.subjects import judged
from repro.results import Row, results_root, write_rows

CHECKOUT = Path(__file__).parents[2]
TABLE1 = "neural_ode/table1_mnist"
NUMBER_KEYS = {"id", "experiment", "cell", "metric", "method", "unit", "better", "source", "paper", "ours", "complete"}
NUMBER_KEYS |= {"open", "trusted", "verdict", "margin", "reason", "runs", "command"}
CLAIM_KEYS = {
    "id",
    "paper",
    "source",
    "text",
    "rule",
    "origin",
    "rule_changes",
    "verdict",
    "evidence",
    "tier",
    "runs",
    "command",
}


@pytest.fixture
def results():
    root = results_root()
    root.mkdir(parents=True)
    shutil.copy(CHECKOUT / "results" / "published.csv", root)
    return root


def make_run(cell, seed, error, source="runs"):
    experiment = EXPERIMENTS[TABLE1]
    digest = experiment.digest(experiment.config(cell, "small"))
    folder = results_root() / source / TABLE1 / f"{cell}-{digest}" / f"machine-seed{seed}"
    folder.mkdir(parents=True)
    rows = [Row("test_images", 10_000.0, "images"), Row("test_error", error, "%"), Row("budget_share", 0.05, "")]
    rows.append(Row("parameters", 208_266.0, "parameters"))
    write_rows(folder / "rows.csv", rows)
    keys = {"experiment": TABLE1, "cell": cell, "tier": "small", "seed": seed, "machine": "machine", "threads": 1}
    (folder / "run.json").write_text(json.dumps({**keys, "digest": digest, "status": "ok"}))


def test_every_number_and_claim_has_a_verdict_and_all_keys(results):
    content = export(results)
    assert set(content) == {"schema", "suite", "runs", "numbers", "claims"}
    assert set(content["suite"]) == {"version", "commit", "dirty"}
    assert len(content["numbers"]) == 166
    for record in content["numbers"]:
        assert set(record) == NUMBER_KEYS
        assert record["verdict"] in MEANING
        assert record["ours"] is None
    for record in content["claims"]:
        assert set(record) == CLAIM_KEYS
        assert record["verdict"] == "not attempted"


def test_ids_are_unique_and_the_suite_s_method_has_the_short_one():
    published = load_published(CHECKOUT / "results" / "published.csv")
    ids = number_ids(published)
    assert len(set(ids)) == len(ids)
    assert "neural_ode/table1_mnist/odenet/test_error" in ids
    assert "ffjord/table2_tabular/power/test_nll" in ids
    assert "ffjord/table2_tabular/power/test_nll/real-nvp-10" in ids


def test_a_number_rests_on_its_runs(results):
    for seed, error in enumerate((0.9, 0.92, 0.88, 0.9, 0.9)):
        make_run("odenet", seed, error)
    (record,) = [r for r in export(results)["numbers"] if r["id"] == f"{TABLE1}/odenet/test_error"]
    assert record["verdict"] == "incomplete"
    assert record["ours"]["value"] == pytest.approx(0.9)
    assert record["ours"]["seeds"] == [0, 1, 2, 3, 4]
    assert record["ours"]["interval"][0] < 0.9 < record["ours"]["interval"][1]
    assert record["ours"]["budget_share"] == 0.05
    assert "optimiser" in record["open"]
    assert len(record["runs"]) == 5
    assert record["command"] == f"python -m repro run {TABLE1} odenet --tier small --seed 0 1 2 3 4"
    assert record["complete"]["by"] == ""


def test_the_same_runs_give_the_same_bytes_with_sorted_keys(results):
    make_run("resnet", 0, 0.5)
    first, second = (to_json(export(results)) for _ in range(2))
    assert first == second
    assert json.dumps(json.loads(first), indent=2, sort_keys=True, ensure_ascii=False) + "\n" == first
    assert not re.search(r"NaN|Infinity", first)


def test_local_runs_never_mix_with_published_ones(results):
    make_run("odenet", 0, 0.9, source="local")
    published, local = ({r["id"]: r for r in export(results, local=flag)["numbers"]} for flag in (False, True))
    key = f"{TABLE1}/odenet/test_error"
    assert published[key]["ours"] is None
    assert local[key]["ours"]["value"] == 0.9


def test_a_run_whose_files_were_changed_gets_no_verdict_but_a_sentence(results, capsys):
    for seed in range(2):
        make_run("odenet", seed, 0.9)
    folders = sorted((results / "runs" / TABLE1).glob("odenet-*/*"))
    for folder in folders:
        record = json.loads((folder / "run.json").read_text()) | {"files": hash_files(folder)}
        (folder / "run.json").write_text(json.dumps(record))
    key = f"{TABLE1}/odenet/test_error"

    def seeds():
        (record,) = [r for r in export(results)["numbers"] if r["id"] == key]
        return record["ours"] and record["ours"]["seeds"]

    assert seeds() == [0, 1]
    rows = folders[0] / "rows.csv"
    rows.write_text(rows.read_text().replace("0.9", "0.42"))
    assert seeds() == [1]
    line = f"left out: runs/{folders[0].relative_to(results / 'runs')}: rows.csv was changed after the run\n"
    assert capsys.readouterr().err == line


def test_the_command_prints_a_part_or_writes_a_file(results, call, tmp_path):
    code, out, _ = call("export", "--claims")
    assert code == 0
    assert set(json.loads(out)) == {"schema", "suite", "runs", "claims"}
    assert call("export", "-o", tmp_path / "verdicts.json")[:2] == (0, "")
    assert set(json.loads((tmp_path / "verdicts.json").read_text())) >= {"numbers", "claims"}


def test_tables_come_as_latex_markdown_and_csv(results, call):
    (results / "tables").mkdir()
    (results / "tables" / "errors_small.csv").write_text("network,error_%\nODE-Net & co,0.42 ± 0.01\n")
    code, out, _ = call("export", "--table", "errors_small")
    assert code == 0
    assert "\\toprule" in out
    assert "ODE-Net \\& co & 0.42 ± 0.01 \\\\" in out
    assert "error\\_\\%" in out
    assert call("export", "--table", "errors_small", "--format", "md")[1].startswith("| network")
    assert call("export", "--table", "errors_small", "--format", "csv")[1].startswith("network,error_%\n")
    code, out, err = call("export", "--table", "error_smal")
    assert (code, out) == (2, "")
    assert err == "error: no table 'error_smal' in tables/; did you mean 'errors_small'? there are: errors_small\n"


def test_changes_of_rules_are_read_from_the_changelog_and_name_claims_that_exist():
    changes = rule_changes(CHECKOUT / "CHANGELOG.md")
    ids = {claim.id for experiment in EXPERIMENTS.values() for claim in experiment.claims}
    ids |= {claim.id for claim in judged(())}
    assert changes
    assert set(changes) <= ids
    assert all(f"`{id_}`" in entry for id_, entries in changes.items() for entry in entries)
    assert rule_changes(CHECKOUT / "no-changelog.md") == {}
