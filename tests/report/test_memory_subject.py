"""Memory's slopes, crossover, finding, claim and picture, from entries whose answers are known."""

import inspect
import json

import pytest

from benchmarks import tasks
from repro.report.memory import BATCHES, BY_PHASE, COLUMNS, bracket, claims, finding, load_memory, memory
from repro.report.memory_figure import draw_memory

MIB = 2**20


def entry(workload, axis, value, way, peak, status="ok"):
    known = {"memory": axis, "workload": workload, "value": value, "way": way, "status": status}
    if status == "ok":
        known |= {"peak_bytes": peak * MIB, "saved_bytes": peak * MIB // 2, "meter": "bytes (ru_maxrss over baseline)"}
    return {"extra_info": known, "stats": {"median": 0.1}}


@pytest.fixture
def write(tmp_path):
    def written(*found):
        (tmp_path / "machine").mkdir(exist_ok=True)
        (tmp_path / "machine" / "memory.json").write_text(json.dumps({"benchmarks": list(found)}))
        return load_memory(tmp_path)

    return written


def deep(flat=0):
    return [
        entry("CNF", "solver steps", steps, way, peak)
        for steps in (2, 4, 8)
        for way, peak in (("backprop", 10 + 3 * steps), ("adjoint", 5 + flat * steps))
    ]


def wide(factor=1):
    return [
        entry("field", "width", width, way, peak)
        for width in (16, 64, 256)
        for way, peak in (("backprop", width), ("adjoint", factor * width * width / 32))
    ]


def test_slopes_are_found_with_their_units(write):
    table = memory(write(*deep()))
    assert tuple(table.columns) == tuple(name for name in COLUMNS if name != BY_PHASE)
    backprop, adjoint = table.to_dict("records")
    assert (backprop["way"], adjoint["way"]) == ("backprop", "adjoint")
    assert backprop["peak"] == "16 MiB at 2 to 34 MiB at 8"
    assert backprop["peak per unit, 95 % interval"] == "3072 [3072, 3072] KiB per solver step or block"
    assert adjoint["peak per unit, 95 % interval"].startswith("0 [0, 0]")


def test_phases_are_shown_where_they_were_told_apart(write):
    new = entry("CNF", "solver steps", 16, "adjoint", 9)
    new["extra_info"] |= {"held_bytes": 2 * MIB, "backward_peak_bytes": 9 * MIB, "left_bytes": MIB}
    table = memory(write(*deep(), new))
    assert tuple(table.columns) == COLUMNS
    assert table[BY_PHASE].tolist() == ["", "2 held, 9 in backward, 1 left (MiB at 16)"]
    new["extra_info"] |= {"reserved_bytes": 20 * MIB}
    assert memory(write(new))[BY_PHASE].item() == "2 held, 9 in backward, 1 left, 20 reserved (MiB at 16)"
    assert memory(write(*deep(), entry("CNF", "solver steps", 2, "ResNet", 0, "failed")))["peak"].iloc[0] == "-"


def test_the_larger_peak_begins_between_two_measured_widths(write):
    assert str(bracket(write(*wide()))) == "between 16 and 64"
    assert str(bracket(write(*wide(factor=9)))) == "16"
    assert bracket(write(*wide(factor=1e-3))) is None
    assert bracket(write(*deep())) is None


def test_batches_are_those_of_the_benchmarks():
    steps = {"ODE-Net": tasks.classifier, "CNF": tasks.flow}
    assert {name: inspect.signature(step).parameters["batch"].default for name, step in steps.items()} == BATCHES


def test_the_finding_has_the_numbers(write):
    said = finding(write(*deep(), *wide()))
    assert said.startswith(
        "A solver step adds 3.00 [3.00, 3.00] MiB to the peak of CNF, batch 256, by backprop and 0.00 [0.00, 0.00] MiB "
        "by the adjoint (95 % intervals);"
    )
    assert "is the larger one from between 16 and 64 hidden units on" in said


@pytest.mark.parametrize(("flat", "verdict"), [(0, "reproduced"), (1, "not reproduced")])
def test_the_claim_is_judged_from_the_slopes(write, flat, verdict):
    (claim,) = claims(write(*deep(flat)))
    assert claim.judgement.verdict == verdict
    assert "backprop 3.00 [3.00, 3.00]" in claim.judgement.evidence


def test_without_depths_the_claim_is_not_attempted(write):
    assert claims(write(*wide()))[0].judgement.verdict == "not attempted"
    assert claims(write())[0].judgement.evidence == "not measured from a clean commit"


def test_what_failed_is_told_and_left_out(write):
    out = entry("CNF", "solver steps", 16, "backprop", 0, "out of memory")
    table = memory(write(*deep(), out))
    assert table["failed"].iloc[0] == "16: out of memory"
    assert table["peak"].iloc[0] == "16 MiB at 2 to 34 MiB at 8"


def test_solvers_are_listed_by_name(write):
    found = write(*(entry("CNF", "solver", name, "adjoint", 4) for name in ("rk4", "dopri5")))
    assert memory(found)["peak"].iloc[0] == "rk4 4, dopri5 4 MiB"
    figure = draw_memory(found)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["rk4", "dopri5"]


def test_the_figure_has_a_panel_an_axis(write):
    figure = draw_memory(write(*deep(), *wide()))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["a  CNF: solver steps", "b  field: width"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["backprop", "adjoint"]
    assert draw_memory(write()) is None
