"""Of several machines each has its figure and its sentence, and a claim must hold on all of them."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from repro import plotting
from repro.experiment import Judgement
from repro.papers import EXPERIMENTS
from repro.report import build
from repro.report.benchmarks import MeasuredClaim, find_unclean_files, machines, of_machine
from repro.report.export import export
from repro.report.ledger import join_measured
from repro.report.machines import drawn, judged, listed, said
from repro.report.subjects import SUBJECTS, measured

MIB = 2**20
RESULTS = Path(__file__).parents[2] / "results"
MEMORY = next(subject for subject in SUBJECTS if subject.name == "memory")
README = "<!-- generated:figures:benchmarks/memory -->\n<!-- end:figures:benchmarks/memory -->\n"


def cell(steps, way, peak):
    known = {"memory": "solver steps", "workload": "CNF", "value": steps, "way": way, "status": "ok"}
    known |= {"peak_bytes": peak * MIB, "saved_bytes": MIB, "meter": "bytes"}
    return {"extra_info": known, "stats": {"median": 0.1}}


def write(folder, machine, flat=0, steep=3):
    """The memory of a machine: what a step adds by the adjoint and by backprop, in MiB."""
    cells = [
        cell(steps, way, 10 + slope * steps)
        for steps in (2, 4, 8)
        for way, slope in (("adjoint", flat), ("backprop", steep))
    ]
    (folder / machine).mkdir(parents=True, exist_ok=True)
    (folder / machine / "memory.json").write_text(json.dumps({"benchmarks": cells}))


@pytest.fixture
def house(tmp_path, monkeypatch, whole_readme):
    root = tmp_path / "house" / "results"
    root.mkdir(parents=True)
    shutil.copy(RESULTS / "published.csv", root)
    (root.parent / "README.md").write_text(whole_readme(README))
    monkeypatch.setenv("REPRO_RESULTS", str(root))
    return root


def figures(root):
    return sorted(path.name for path in (root / "figures").glob("memory*"))


def test_a_machine_alone_is_not_named(house):
    write(house / "benchmarks", "cpu")
    build(house, local=False, write=True)
    assert figures(house) == ["memory.png", "memory.svg"]
    readme, claims = (house.parent / "README.md").read_text(), (house / "tables" / "claims.md").read_text()
    assert "A solver step adds 3.00 [3.00, 3.00] MiB" in readme
    assert "MiB of the peak per RK4 step" in claims
    assert "on cpu" not in (readme + claims).lower()


def test_a_second_machine_has_a_figure_a_sentence_and_a_say(house):
    write(house / "benchmarks", "cpu")
    write(house / "benchmarks", "gpu", flat=2, steep=5)
    build(house, local=False, write=True)
    assert figures(house) == ["memory.png", "memory.svg", "memory_gpu.png", "memory_gpu.svg"]
    assert (house / "figures" / "memory.svg").read_bytes() != (house / "figures" / "memory_gpu.svg").read_bytes()
    readme = (house.parent / "README.md").read_text()
    assert "On cpu: A solver step adds 3.00 [3.00, 3.00] MiB" in readme
    assert "On gpu: A solver step adds 5.00 [5.00, 5.00] MiB" in readme
    assert readme.count("On gpu: ") == 1  # above the first figure alone
    assert "Measured on gpu.](results/figures/memory_gpu.svg)" in readme
    claim = next(
        line for line in (house / "tables" / "claims.md").read_text().splitlines() if "constant-memory" in line
    )
    assert "| partly " in claim
    assert "on cpu (reproduced): MiB" in claim
    assert "on gpu (not reproduced): MiB" in claim
    page = (house / "report" / "benchmark-memory.html").read_text()
    first, second = page.split("../figures/memory_gpu.svg", 1)
    assert "cpu/memory.json" in first.partition("</figure>")[0]
    assert "gpu/memory.json" in (caption := second.partition("</figure>")[0])
    assert "cpu/memory.json" not in caption


def test_the_first_figure_does_not_change_with_a_second_machine(house):
    write(house / "benchmarks", "cpu")
    build(house, local=False, write=True)
    alone = (house / "figures" / "memory.svg").read_bytes()
    write(house / "benchmarks", "gpu", steep=9)
    build(house, local=False, write=True)
    assert (house / "figures" / "memory.svg").read_bytes() == alone


def test_a_machine_that_goes_takes_its_figure_along(house):
    for machine in ("cpu", "gpu"):
        write(house / "benchmarks", machine)
    build(house, local=False, write=True)
    shutil.rmtree(house / "benchmarks" / "gpu")
    build(house, local=False, write=True)
    assert figures(house) == ["memory.png", "memory.svg"]


def test_machines_that_say_the_same_say_it_once(tmp_path):
    for machine in ("a", "b", "c"):
        write(tmp_path, machine, steep=4 if machine == "b" else 3)
    text = MEMORY.finding(MEMORY.load(tmp_path))
    assert text.startswith("On a and c: A solver step adds 3.00 [3.00, 3.00] MiB")
    assert text.count("On b: ") == 1
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert said(lambda _: "", MEMORY.load(tmp_path)) == ""


def claims_of(verdicts, found):
    """What a machine judges, by its name."""
    (machine,) = machines(found)
    return [MeasuredClaim("id", "statement", "source", Judgement(verdicts[machine], f"numbers of {machine}"), "rule")]


@pytest.mark.parametrize(
    ("a", "b", "together", "evidence"),
    [
        ("reproduced", "reproduced", "reproduced", "on a: numbers of a; on b: numbers of b"),
        (
            "reproduced",
            "not reproduced",
            "partly",
            "on a (reproduced): numbers of a; on b (not reproduced): numbers of b",
        ),
        ("not reproduced", "not reproduced", "not reproduced", "on a: numbers of a; on b: numbers of b"),
        ("partly", "partly", "partly", "on a: numbers of a; on b: numbers of b"),
        ("not attempted", "reproduced", "reproduced", "on b: numbers of b"),
        ("not attempted", "not attempted", "not attempted", "numbers of a"),
    ],
)
def test_a_verdict_is_that_of_all_machines(a, b, together, evidence):
    found = [{"machine": "a"}, {"machine": "b"}, {"machine": "a"}]
    (claim,) = judged(partial(claims_of, {"a": a, "b": b}), found)
    assert claim.judgement == Judgement(together, evidence)


def test_a_machine_without_a_picture_leaves_the_name_to_the_next():
    found = [{"machine": "a", "ok": False}, {"machine": "b", "ok": True}, {"machine": "c", "ok": True}]

    def draw(entries):
        return plotting.new_figure()[0] if entries[0]["ok"] else None

    pictures = list(drawn("x", draw, found))
    assert [(picture.file, picture.machine, picture.named) for picture in pictures] == [
        ("x", "b", True),
        ("x_c", "c", True),
    ]


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_subject_bears_a_copied_machine(subject, tmp_path):
    """The published machine twice: the same sentence and verdict as alone, said of both."""
    folders = sorted(folder for folder in (RESULTS / "benchmarks").iterdir() if folder.is_dir())
    alone = subject.load(RESULTS / "benchmarks")
    published = next((folder for folder in folders if folder.name in machines(alone)), None)
    if published is None:
        pytest.skip("nothing of it is published")
    for machine in ("first", "second"):
        shutil.copytree(published, tmp_path / machine)
    found = subject.load(tmp_path)
    alone = of_machine(found, "first")
    assert machines(found) == ["first", "second"]
    assert len(subject.table(found)) == 2 * len(subject.table(alone))
    said_alone = subject.finding(alone)
    assert subject.finding(found) == (f"On first and second: {said_alone}" if said_alone else "")
    for both, one in zip(subject.claims(found), subject.claims(alone), strict=True):
        assert both.judgement.verdict == one.judgement.verdict
        assert both.judgement.evidence == f"on first: {one.judgement.evidence}; on second: {one.judgement.evidence}"


def test_subjects_without_files_are_left_out(tmp_path):
    write(tmp_path, "cpu")
    assert [subject.name for subject, _ in measured(tmp_path)] == ["memory"]


def state(folder, machine, **facts):
    """Let a machine's file say how clean the tree was that it was measured on."""
    path = folder / machine / "memory.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine_info": {"suite": facts}}))


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"commit": "0123456789abcdef", "dirty": True}, "measured with changes after commit 0123456789"),
        ({"commit": None, "dirty": None}, "measured without a commit"),
    ],
)
def test_a_file_from_no_clean_commit_is_left_out_and_the_claim_is_not_attempted(house, capsys, facts, problem):
    write(house / "benchmarks", "cpu")
    state(house / "benchmarks", "cpu", **facts)
    build(house, local=False, write=True)
    assert f"left out: cpu/memory.json: {problem}\n" in capsys.readouterr().err
    assert figures(house) == []
    assert "Not measured from a clean commit." in (house.parent / "README.md").read_text()
    assert (house / "tables" / "memory.md").read_text().endswith("\n\nNot measured from a clean commit.\n")
    assert "Not measured from a clean commit." in (house / "report" / "benchmark-memory.html").read_text()
    assert judgement_of(house) == "not attempted"


def test_a_clean_file_of_another_machine_takes_over(house):
    for machine in ("cpu", "gpu"):
        write(house / "benchmarks", machine)
    state(house / "benchmarks", "cpu", commit="0123456789abcdef", dirty=True)
    state(house / "benchmarks", "gpu", commit="0123456789abcdef", dirty=False)
    build(house, local=False, write=True)
    assert figures(house) == ["memory.png", "memory.svg"]
    assert judgement_of(house) == "reproduced"
    assert "cpu/memory.json" not in (house / "report" / "benchmark-memory.html").read_text()


def test_a_users_own_file_is_shown_with_its_changes(tmp_path):
    write(tmp_path / "local" / "benchmarks", "cpu")
    state(tmp_path / "local" / "benchmarks", "cpu", commit="0123456789abcdef", dirty=True)
    assert [subject.name for subject, _ in measured(tmp_path / "local" / "benchmarks")] == ["memory"]


def test_every_published_benchmark_is_from_a_clean_commit():
    assert find_unclean_files(RESULTS / "benchmarks") == {}


def judgement_of(house):
    return {line["id"]: line["verdict"] for line in export(house, numbers=False)["claims"]}["node-constant-memory"]


def test_a_claim_of_runs_and_a_benchmark_is_one_line_that_both_judge(house):
    write(house / "benchmarks", "cpu", flat=2)
    (line,) = [line for line in export(house, numbers=False)["claims"] if line["id"] == "node-constant-memory"]
    assert (line["verdict"], line["tier"]) == ("not reproduced", "benchmark")
    assert line["evidence"].startswith("benchmark: MiB of the peak per RK4 step")
    claim = next(claim for claim in EXPERIMENTS["neural_ode/table1_cost"].claims if claim.id == line["id"])
    found = next(one for one in MEMORY.claims(MEMORY.load(house / "benchmarks")) if one.id == claim.id)
    both = join_measured(claim, Judgement("reproduced", "MiB kept"), "small", found)
    assert (both.judgement.verdict, both.level) == ("partly", "small, benchmark")
    assert both.judgement.evidence.startswith("runs (reproduced): MiB kept; benchmark (not reproduced): MiB")
