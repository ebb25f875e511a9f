"""The report of the reproduction says what ledger, numbers and runs say, each once."""

import json

import pandas as pd
import pytest

from repro.papers import EXPERIMENTS
from repro.published import Published
from repro.report.site import Material, as_markdown, reproduction
from repro.report.site.reproduction import VERDICTS
from repro.results import Row, load, write_rows

TABLE1, FIG2 = "neural_ode/table1_mnist", "ffjord/fig2_toy2d"
CLAIMS = pd.DataFrame(
    [
        {"claim": f"Claim {i}.", "source": f"Section {i}", "verdict": verdict, "evidence": "", "origin": origin}
        for i, (verdict, origin) in enumerate([*((v, "paper") for v in [*VERDICTS, "reproduced"]), ("partly", "suite")])
    ]
)


def number(cell):
    return Published(TABLE1, cell, "test_error", "m", "0.42", "", "%", "lower", "Neural ODE, Table 1", "")


NUMBERS = [number("odenet"), number("resnet"), number("rknet")]
COMPARISON = pd.DataFrame(
    {
        "verdict": ["agrees", "not run", "cited"],
        "ours": ["0.42", "-", "-"],
        "cell": ["odenet", "resnet", "rknet"],
    }
)


@pytest.fixture
def root(tmp_path):
    def make(name, cell, seed, hours, *, status="ok", resumed=(), rows=()):
        experiment = EXPERIMENTS[name]
        digest = experiment.digest(experiment.config(cell, "small"))
        folder = tmp_path / "runs" / name / f"{cell}-{digest}" / f"machine-seed{seed}"
        folder.mkdir(parents=True)
        write_rows(folder / "rows.csv", [Row("parameters", 1.0, "parameters"), *rows])
        keys = {"experiment": name, "cell": cell, "tier": "small", "seed": seed, "machine": "machine"}
        keys |= {
            "digest": digest,
            "threads": 1,
            "status": status,
            "resumed": list(resumed),
            "cpu": "CPU",
            "cpu_count": 2,
        }
        times = {"start": "2026-01-01T00:00:00+00:00", "end": f"2026-01-01T{hours:02d}:00:00+00:00"}
        (folder / "run.json").write_text(json.dumps({**keys, **times}))

    make(TABLE1, "odenet", 0, 2, rows=[Row("budget_share", 0.05, "")])
    make(TABLE1, "odenet", 1, 1, status="diverged")
    # it lay still for most of twenty hours
    make(FIG2, "8gaussians", 0, 20, resumed=[{}], rows=[Row("wall_time", 1800.0, "s"), Row("budget_share", 1.0, "")])
    return tmp_path / "runs"


def material(root, numbers, comparison, claims, tiers=("small", "paper")):
    rows = load(root)
    return Material(root, "..", "", root, rows, numbers, comparison, rows, claims, {}, [], [], tiers)


@pytest.fixture
def parts(root):
    return {part.heading: part for part in reproduction(material(root, NUMBERS, COMPARISON, CLAIMS))}


def test_each_claim_stands_once_below_its_verdict(parts):
    for i, verdict in enumerate([*VERDICTS, "reproduced"]):
        where = [heading for heading, part in parts.items() if any(lead == f"Claim {i}." for lead, _ in part.points)]
        assert where == [VERDICTS[verdict]]
    assert "6 claims that can be tested, 2 reproduced, 1 partly, 1 not reproduced" in parts["Scope"].paragraphs[0]


def test_a_question_of_the_suite_stands_and_counts_apart(parts):
    where = [heading for heading, part in parts.items() if any(lead == "Claim 6." for lead, _ in part.points)]
    assert where == ["Questions of this suite"]


def test_numbers_are_counted_without_those_that_are_only_cited(parts):
    said = parts["Scope"].paragraphs[1]
    assert "we run ourselves 2 numbers are printed; 1 stand beside" in said
    assert "1 with a verdict" in said


def test_artefacts_have_their_runs_and_budget(parts):
    lines = parts["Scope"].table.set_index("artefact")
    assert len(lines) == len(EXPERIMENTS)
    assert lines.loc["Neural ODE, Table 1", "runs"] == "2"
    assert lines.loc["Neural ODE, Table 1", "share of the budget"] == "5 %"
    assert lines.loc["FFJORD, Figure 2", "share of the budget"] == "100 %"
    assert lines.loc["FFJORD, Table 2", "tiers"] == "not run"


def test_hours_are_summed_without_what_lay_still_and_failures_are_counted(parts):
    lines = parts["Compute"].table.set_index("artefact")
    assert lines.loc["Neural ODE, Table 1", "runs"] == "2, 1 failed"
    assert float(lines.loc["Neural ODE, Table 1", "hours"]) == 3
    assert float(lines.loc["FFJORD, Figure 2", "hours"]) == 0.5
    assert "3.5 hours of runs in all, on: CPU, 2 cores." in parts["Compute"].paragraphs[0]


def test_every_part_is_on_the_page_and_nothing_is_a_stray_number(parts):
    text = as_markdown(list(parts.values()), "note")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(parts)
    assert "nan" not in text
    for heading in ("Method", "What was easy", "What was hard", "Communication with the authors"):
        shown = " ".join([*parts[heading].paragraphs, *(text for point in parts[heading].points for text in point)])
        words = shown.replace("Table 1", "").replace("float64", "")
        assert not any(letter.isdigit() for letter in words), f"{heading}: numbers come from runs"


def test_without_runs_it_says_so(tmp_path):
    empty = reproduction(material(tmp_path, [], COMPARISON[:0], CLAIMS[:0]))
    assert "No run yet." in as_markdown(empty, "note")


def test_a_users_own_runs_are_said_to_be_theirs_and_nothing_is_said_of_how_ours_were_made(root):
    own = root.rename(root.with_name("local"))
    found = {
        part.heading: part for part in reproduction(material(own, NUMBERS, COMPARISON, CLAIMS, ("smoke", "small")))
    }
    assert "from 3 runs of this machine" in found["Scope"].paragraphs[0]
    assert len(found["Compute"].paragraphs) == 1
    assert found["Scope"].table.set_index("artefact").loc["Neural ODE, Table 1", "tiers"] == "small"
