"""Which solver, which gradient, which divergence: decision tables from the benchmarks' measured figures.

Every table stands by itself. Its lines carry the value that they were measured at and a sentence that answers for it,
with which the page's script answers for the reader's own dimension, batch, memory and tolerance.
"""

from collections.abc import Callable, Mapping

import pandas as pd

from repro.report import gradients, solvers
from repro.report.benchmarks import Measured, first_machine, machines
from repro.report.site.figures import origin_of_files
from repro.report.site.markup import Markup, link, markup, page, paragraph, section, tag
from repro.report.site.material import Material
from repro.report.site.measurements import describe_missing, file_of_subject, sources_of
from repro.report.site.pivots import best_by_row, marked
from repro.report.site.tables import Line, table
from repro.report.subjects import SUBJECTS

FIELDS = (
    ("dimension", "Dimension D", "64"),
    ("batch", "Batch", "512"),
    ("memory", "Memory, MiB", "256"),
    ("tolerance", "Error asked for", "1e-3"),
)
ERRORS = (1e-1, 1e-2, 1e-3, 1e-4)
TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
OTHER_NETWORKS = ("ResNet",)
"""Measured beside the ways to a gradient, and none of them."""
ORACLES = ("brute force",)
"""Ways that are measured to compare with, and that nobody would take."""
ESTIMATES = ("Hutchinson", "Hutch++", "XTrace", "bottleneck")


def choice_page(material: Material) -> bytes:
    """The page of decision tables."""
    body = (
        paragraph(
            "What was measured, laid out to choose by. Strong figures are the least of their line. Times and peaks are "
            "of one machine and of small fields: ratios carry over better than figures.",
            class_="lead",
        ),
        _form(),
        section("Which gradient, for the error that it may have?", _part(material, "gradients", _gradients)),
        section("Which gradient, for the memory that there is?", _part(material, "memory", _memory)),
        section("Which divergence, by dimension?", _part(material, "divergence", _divergence)),
        section(
            "Which solver, by error?",
            paragraph("Of fixed-step methods it is the step that reaches the error, which nobody knows beforehand."),
            _part(material, "solvers", _solvers),
        ),
        section("What a training step takes, by size", _part(material, "scaling", _scaling)),
    )
    return page("choose.html", "Which solver, which gradient, which divergence?", *body)


def _form() -> Markup:
    """The reader's own values; without JavaScript there is nothing to fill in."""
    fields = [
        tag("label", words, tag("input", name_=name, value=value, inputmode="decimal", size=8))
        for name, words, value in FIELDS
    ]
    heading = tag("h2", "For yours", id="yours-heading")
    answers = tag("ul", id="answers", aria_live="polite")
    return tag("form", heading, tag("div", fields, class_="fields"), answers, id="yours", hidden=True)


def _part(material: Material, name: str, laid_out: Callable[[pd.DataFrame], Markup]) -> Markup:
    """A subject's decision tables with their source, or how to measure it."""
    subject = next(subject for subject in SUBJECTS if subject.name == name)
    entries = next((entries for other, entries in material.found if other.name == name), None)
    more = link(file_of_subject(subject), "figure, method and full table")
    if entries is None:
        command = tag("code", f"make bench SUBSET={name}")
        return paragraph(describe_missing(material), " Measure it by ", command, ".")
    origin = origin_of_files(sources_of(material, subject, machines(entries)[0]))
    return markup(laid_out(_first(entries)), paragraph(origin, " ", more, class_="origin"))


def _first(entries: Measured) -> pd.DataFrame:
    """What the first machine measured, without failures."""
    done = first_machine(entries)
    return done[done["status"] == "ok"] if "status" in done else done


def _gradients(cells: pd.DataFrame) -> Markup:
    lines = [
        line for work in dict.fromkeys(cells["workload"]) for error in ERRORS if (line := _gradient(cells, work, error))
    ]
    headers = ("error of the gradient", "training step of", "least time", "least memory")
    return table(headers, lines, "The cheapest way to a gradient of a relative error, interpolated between tolerances")


def _gradient(cells: pd.DataFrame, work: str, error: float) -> Line | None:
    time, memory = (_cheapest_gradient(cells, work, error, column) for column in ("ms", "memory"))
    if not time or not memory:
        return None
    answer = f"Gradient within {error:g} on the {work}: quickest {time}, leanest {memory}."
    return Line([f"{error:g}", work, time, memory], marked("tolerance", error, answer))


def _cheapest_gradient(cells: pd.DataFrame, work: str, error: float, column: str) -> str:
    found = gradients.cheapest(cells, work, column, error)
    unit = "MiB" if column == "memory" else "ms"
    return f"{gradients.in_words(found[0])} ({found[1]:.3g} {unit})" if found else ""


def _memory(cells: pd.DataFrame) -> Markup:
    parts = []
    for work, axis in (("CNF", "batch"), ("CNF", "solver steps"), ("ODE-Net", "solver steps"), ("field", "width")):
        chosen = cells[(cells["workload"] == work) & (cells["axis"] == axis) & ~cells["way"].isin(OTHER_NETWORKS)]
        caption = f"Peak of a training step in MiB, {work}, by {axis}"
        parts.append(best_by_row(chosen, axis, "value", "way", "peak_mib", caption, "MiB", "least memory"))
    return markup(parts)


def _divergence(cells: pd.DataFrame) -> Markup:
    costs = cells[
        (cells["axis"] == "dimension") & (cells["pass"] == "forward + backward") & ~cells["way"].isin(ORACLES)
    ]
    costs = costs.assign(ms=1e3 * costs["seconds"])
    noises = cells[(cells["axis"] == "products") & (cells["noise"] == "gaussian")]
    noises = noises.assign(percent=100 * noises["spread"])
    named = [way for way in ESTIMATES if way in set(costs["way"])]
    words = f"One evaluation with its backward pass in ms; {', '.join(named)} are estimates, the others are exact"
    return markup(
        best_by_row(costs, "dimension", "value", "way", "ms", words, "ms", "least time", _trace),
        paragraph("The closed form exists only where a field offers one; see its figures before the exact trace's."),
        best_by_row(
            noises,
            "products",
            "value",
            "way",
            "percent",
            "Noise of an estimate in % of ‖J‖, D = 128",
            "%",
            "least noise",
        ),
    )


def _trace(size: float | int, figures: Mapping[str, float]) -> str:
    """What a trace takes at a dimension, by the ways that one chooses between."""
    words = {"exact": "exact", "closed form": "in closed form, where a field has one,", "Hutchinson": "by Hutchinson"}
    parts = [f"{words[way]} {figures[way]:.3g} ms" for way in words if way in figures]
    return f"A trace with its backward pass at D = {size:g}: {', '.join(parts)}."


def _solvers(cells: pd.DataFrame) -> Markup:
    problems = sorted(set(cells["problem"]), key=lambda name: (name in solvers.CLOSED_FORMS, name))
    lines = [
        line
        for name in problems
        for error in TARGETS
        if (line := _solver(cells[cells["problem"] == name], name, error))
    ]
    headers = ("error", "problem", "quickest", "quickest outside the compiled engine", "fewest evaluations")
    return table(headers, lines, "The cheapest solver to a relative error, interpolated between settings", "filtered")


def _solver(cells: pd.DataFrame, problem: str, error: float) -> Line | None:
    plain = cells[cells["engine"] != "compiled"]
    once = cells[~cells["method"].str.endswith("_compiled")]  # whose evaluations are those of the same method beside it
    costs = [_ranked(cells, error, "ms"), _ranked(plain, error, "ms"), _ranked(once, error, "nfe_forward")]
    if not costs[0]:
        return None
    answer = f"Error {error:g} on {problem}: quickest {costs[0]}, fewest evaluations {costs[2] or 'none'}."
    own = problem not in solvers.CLOSED_FORMS
    return Line(
        [f"{error:g}", problem, *(c or "none" for c in costs)], marked("tolerance", error, answer if own else "")
    )


def _ranked(cells: pd.DataFrame, error: float, column: str) -> str:
    """The method that reaches an error at the least cost, with the cost."""
    found = solvers.ranked(cells, error, column)
    return f"{found[0].method} ({found[0].told}{' ms' if column == 'ms' else ''})" if found else ""


def _scaling(cells: pd.DataFrame) -> Markup:
    axes = list(dict.fromkeys(cells["axis"]))
    return markup(
        best_by_row(
            cells[cells["axis"] == axis],
            axis,
            "value",
            "way",
            "median",
            f"A CNF's training step in ms, by {axis}",
            "ms",
            "least time",
        )
        for axis in axes
    )
