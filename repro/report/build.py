"""Puts all generated files together, and compares them with what is there."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from repro import plotting
from repro.animation import gif_bytes
from repro.durability import write_atomically
from repro.errors import Failure
from repro.evaluation.selection import rows_at
from repro.experiment import TIERS, Tier
from repro.papers import EXPERIMENTS
from repro.published import load_published
from repro.report import ledger, listing, pages
from repro.report.audit import find_changed_runs
from repro.report.benchmarks import UNMEASURED, Measured, origins
from repro.report.comparison import comparison
from repro.report.differences import changed
from repro.report.evidence import levels_of, select_evidence
from repro.report.rules import rules_page
from repro.report.site import Material, as_markdown, reproduction, site
from repro.report.subjects import SUBJECTS, Subject, judged, measured
from repro.results import load

PUBLISHED_TIERS: tuple[Tier, ...] = ("small", "paper")
"""Tiers whose numbers mean something; smoke runs are shown on the machine that made them only."""

Tables = dict[str, tuple[str, pd.DataFrame]]
"""Title and content of each laid-out table, by its file's name, which ends in the level."""


class ReportError(Failure, ValueError):
    """A report that can't be made; the message names the file and what is wrong with it."""


def build(results: Path, *, local: bool, write: bool) -> list[Path]:
    """Regenerate everything that is generated.

    Args:
        results: the results/ folder.
        local: instead make the same of this machine's own runs, in results/local/, beside the published numbers; it
            leaves tracked files alone.
        write: whether to write; otherwise only compare.

    Returns:
        The files that changed or would change, those that nothing generates any more included.

    Raises:
        ReportError: if README.md lacks a marker and is to be written; nothing has been written then.
        OSError: if a file can't be written; each is the old or the new one.
    """
    target, readme = (results / "local", None) if local else (results, results.parent / "README.md")
    marker = pages.find_missing_marker(readme.read_text(encoding="utf-8")) if readme and readme.exists() else None
    if marker and write:
        raise ReportError(f"{readme} lacks the marker {marker}: put it back; nothing was written")
    files = dict(_local(results) if local else _published(results))
    earlier = listing.read_list(target)
    stale = [path for path in earlier if path not in files and path.is_file()]
    generated = files | {target / listing.NAME: listing.encode_list(target, files)}
    different = changed(generated)
    if marker and readme and readme not in different:
        different.append(readme)
    if write:
        _write(generated, different, stale, target)
    return different + stale


def _write(generated: dict[Path, bytes], different: Sequence[Path], stale: Sequence[Path], target: Path) -> None:
    """Write what changed, each file whole or not at all, and delete what nothing generates any more.

    The list of generated files grows first and shrinks last, so that no kill leaves a file that it does not name.
    """
    listed = target / listing.NAME
    if listed in different:
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(listed, listing.encode_list(target, {*generated, *stale} - {listed}))
    for path in different:
        if path != listed:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, generated[path])
    for path in stale:
        path.unlink()
    if listed in different:
        write_atomically(listed, generated[listed])
    for path in generated:  # what a killed report left half-written
        path.with_name(f"{path.name}.partial").unlink(missing_ok=True)


def load_runs(root: Path) -> pd.DataFrame:
    """Load the runs that tables, figures and verdicts may rest on: `valid_runs` whose files are those of their records.

    A run that was changed after it ended is left out, with one sentence on stderr.

    Args:
        root: results/runs or results/local.
    """
    rows, changed_runs = valid_runs(load(root)), find_changed_runs(root)
    for run in sorted(changed_runs.keys() & set(rows["run"])):
        print(f"left out: {root.name}/{run}: {changed_runs[run]}", file=sys.stderr)
    return rows[~rows["run"].isin(list(changed_runs))]


def valid_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs whose settings are those of a cell in a tier today; ablations and overridden runs stay out."""
    known = {
        (name, cell, tier, experiment.digest(experiment.config(cell, tier)))
        for name, experiment in EXPERIMENTS.items()
        for cell in experiment.cells
        for tier in TIERS
    }
    keys = zip(rows["experiment"], rows["cell"], rows["tier"], rows["digest"], strict=True)
    return rows[pd.Series([key in known for key in keys], index=rows.index, dtype=bool)]


def _published(results: Path) -> Iterator[tuple[Path, bytes]]:
    rows = load_runs(results / "runs")
    numbers = load_published(results / "published.csv")
    table = comparison(numbers, rows, None)
    found = list(measured(results / "benchmarks"))
    claims = ledger.ledger(rows, PUBLISHED_TIERS, judged(found))
    tables = _laid_out(rows, PUBLISHED_TIERS, "")
    pictures = [*_pictures(rows, PUBLISHED_TIERS), *_measured_pictures(found)]
    yield from _files(results, pictures, table, claims, tables)
    deviations = pages.markdown("As published, as released, as we run it", ledger.deviations())
    yield results / "tables" / "deviations.md", deviations.encode()
    yield results / "pages" / "rules.md", rules_page().encode()
    yield from _measured_pages(results / "tables", found, results / "benchmarks")
    for subject in SUBJECTS:
        if subject.name not in {other.name for other, _ in found}:
            yield results / "tables" / f"{subject.name}.md", f"# {subject.title}\n\n{UNMEASURED}\n".encode()
    shown = (rows, numbers, table, rows, claims, tables, pictures, found, PUBLISHED_TIERS)
    runs, beside = results / "runs", ("../runs", "../published.csv")
    yield from _report(results, Material(runs, *beside, results / "benchmarks", *shown))
    readme = results.parent / "README.md"
    if readme.exists():
        said = [text for texts in ledger.remarks(rows, PUBLISHED_TIERS).values() for text in texts]
        briefs = {subject.name: subject.brief(entries) for subject, entries in found if subject.brief}
        yield (
            readme,
            pages.readme(
                readme.read_text(encoding="utf-8"), tables, claims, table, rows, pictures, briefs, said
            ).encode(),
        )


def _pictures(rows: pd.DataFrame, tiers: tuple[Tier, ...]) -> Iterator[pages.Picture]:
    """Every figure and animation that the runs are enough for, experiment by experiment."""
    for name, experiment in EXPERIMENTS.items():
        chosen, level = select_evidence(rows, name, tiers)
        if level is None:
            continue
        for file, draw in experiment.draw.items():
            if (figure := draw(chosen)) is not None:
                yield pages.Picture(name, _words(draw), _formats(file, figure))
        for file, animate in experiment.animate.items():
            if (animation := animate(chosen)) is not None:
                yield pages.Picture(name, _words(animate), {f"{file}.gif": gif_bytes(animation)})


def _measured_pictures(found: Sequence[tuple[Subject, Measured]]) -> Iterator[pages.Picture]:
    """The benchmarks' figures; the README asks for those of a subject by `figures:benchmarks/` and its name.

    What all machines' figures show stands above the first of them.
    """
    for subject, entries in found:
        finding = subject.finding(entries)
        for drawn in subject.drawn(entries):
            words = f"{_words(subject.draw)}{f' Measured on {drawn.machine}.' if drawn.named else ''}"
            files = _formats(drawn.file, drawn.figure)
            yield pages.Picture(f"benchmarks/{subject.name}", words, files, finding, drawn.machine)
            finding = ""


def _measured_pages(
    folder: Path, found: Sequence[tuple[Subject, Measured]], files: Path
) -> Iterator[tuple[Path, bytes]]:
    """The benchmarks' tables, for people and for programs; above the former, by which commits they were measured."""
    for subject, entries in found:
        table = subject.table(entries)
        brief = pages.table_lines(subject.brief(entries)) if subject.brief else ""
        parts = (subject.finding(entries), origins(files, subject.word or subject.name), brief)
        words = "\n\n".join(part for part in parts if part)
        yield folder / f"{subject.name}.md", pages.markdown(subject.title, table, words).encode()
        yield folder / f"{subject.name}.csv", table.to_csv(index=False, lineterminator="\n").encode()


def _formats(file: str, figure: Figure) -> dict[str, bytes]:
    return {f"{file}.{kind}": content for kind, content in plotting.picture(figure).items()}


def _words(draw: Callable[..., Any] | None) -> str:
    """A picture's alternative text: the first line of its function's docstring."""
    return (draw.__doc__ or "").strip().splitlines()[0]


def _local(results: Path) -> Iterator[tuple[Path, bytes]]:
    rows, own = load_runs(results / "runs"), load_runs(results / "local")
    numbers = load_published(results / "published.csv")
    table = comparison(numbers, rows, own)
    found = list(measured(results / "local" / "benchmarks"))
    claims = ledger.ledger(own, PUBLISHED_TIERS, judged(found))
    tables = _laid_out(own, TIERS, " (this machine)")
    pictures = [*_pictures(own, TIERS), *_measured_pictures(found)]
    yield from _files(results / "local", pictures, table, claims, tables)
    yield from _measured_pages(results / "local" / "tables", found, results / "local" / "benchmarks")
    shown = (own, numbers, table, rows, claims, tables, pictures, found, TIERS)
    target, beside = results / "local", ("..", "../../published.csv")
    yield from _report(target, Material(target, *beside, target / "benchmarks", *shown))


def _laid_out(rows: pd.DataFrame, tiers: tuple[Tier, ...], suffix: str) -> Tables:
    """Make every laid-out table at the best level and in every other tier with runs, so that none hides another."""
    tables: Tables = {}
    for name, experiment in EXPERIMENTS.items():
        best_first = levels_of(rows, name, tiers)
        for level in [*best_first[:1], *(level for level in best_first[1:] if level.multiple == 1)]:
            title = f"{experiment.artefact}, {level.title}{suffix}"
            for file, make in experiment.tables.items():
                tables[f"{file}_{level.slug}"] = (title, make(rows_at(rows, name, experiment.variants, level)))
    return tables


def _files(
    target: Path, pictures: Sequence[pages.Picture], table: pd.DataFrame, claims: pd.DataFrame, tables: Tables
) -> Iterator[tuple[Path, bytes]]:
    everything = {"comparison": ("Every published number beside ours", table), **tables}
    for file, (title, content) in everything.items():
        yield target / "tables" / f"{file}.md", pages.markdown(title, content).encode()
        yield target / "tables" / f"{file}.csv", content.to_csv(index=False, lineterminator="\n").encode()
    yield target / "tables" / "claims.md", pages.markdown("Do the papers' claims hold?", claims).encode()
    for picture in pictures:
        for file, content in picture.files.items():
            yield target / "figures" / file, content


def _report(target: Path, material: Material) -> Iterator[tuple[Path, bytes]]:
    """The pages that people look at, in the folder report/ beside tables/ and figures/, and their summary beside it."""
    yield target / "reproduction.md", as_markdown(reproduction(material), pages.NOTE).encode()
    for name, content in site(material):
        yield target / "report" / name, content
