"""The pages are well formed, escape what they show, link only to what exists, and say where figures come from."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from repro.papers import EXPERIMENTS
from repro.report import build
from repro.report.pages import Picture
from repro.report.site.figures import figure
from repro.report.site.markup import ARXIV, VOID, Markup, page, section, tag
from repro.report.site.numbers import file_of
from repro.report.site.reference.contents import INDEX, TOPICS
from repro.report.site.tables import SIGNS, badge, counts, frame, table
from repro.report.subjects import SUBJECTS
from repro.results import Row, write_rows

HOUSE = Path(__file__).parents[2]
SITE = HOUSE / "repro" / "report" / "site"
TABLE1, FIG3 = "neural_ode/table1_mnist", "neural_ode/fig3_solver_stats"
MIB = 2**20


class Reader(HTMLParser):
    """Reads a page: its links and images, and whether every element is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.images, self.headers, self.faults = [], [], [], [], [], []
        self.feed(text)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.ids += [known["id"]] if "id" in known else []
        self.links += [known[name] for name in ("href", "src") if name in known]
        if tag == "img":
            self.images.append(known)
        if tag == "th":
            self.headers.append(known)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")


@pytest.fixture
def results(tmp_path, monkeypatch):
    root = tmp_path / "results"
    root.mkdir()
    lines = (HOUSE / "results" / "published.csv").read_text().splitlines(keepends=True)
    (root / "published.csv").write_text("".join(lines[:16]))
    monkeypatch.setenv("REPRO_RESULTS", str(root))
    return root


def make_run(results, name, cell, rows, *, source="runs", inputs=(), seed=0):
    experiment = EXPERIMENTS[name]
    digest = experiment.digest(experiment.config(cell, "small"))
    folder = results / source / name / f"{cell}-{digest}" / f"machine-seed{seed}"
    folder.mkdir(parents=True)
    write_rows(folder / "rows.csv", rows)
    keys = {"experiment": name, "cell": cell, "tier": "small", "seed": seed, "machine": "machine", "digest": digest}
    known = {"threads": 1, "status": "ok", "start": f"2026-01-0{1 + seed}T00:00:00+00:00", "cpu": "a <b>CPU</b> & more"}
    known |= {"command": "python -m repro run 'x' && <script>alert(1)</script>", "cpu_count": 2}
    (folder / "run.json").write_text(json.dumps({**keys, **known, "inputs": dict.fromkeys(inputs, "0")}))
    return folder


def errors(number):
    names = {"test_images": 10_000.0, "test_errors": number, "test_error": number / 100, "budget_share": 0.05}
    return [Row(name, value, "%") for name, value in names.items()]


def sweep():
    names = ("error", "nfe_forward", "nfe_backward", "forward_time")
    curves = [("tolerance", [1e-1, 1e-2, 1e-3]), *((name, [0.1, 0.2, 0.3]) for name in names)]
    return [Row(name, value, "", step) for name, values in curves for step, value in enumerate(values)]


def entry(extra, seconds=0.01):
    return {"extra_info": extra, "stats": dict.fromkeys(("median", "iqr", "q1", "q3"), seconds)}


def measure(results):
    """A file of benchmarks of memory and of gradients."""
    cells = [
        {"memory": "batch", "workload": "CNF", "value": batch, "way": way, "status": "ok", "peak_bytes": peak * MIB}
        | {"saved_bytes": MIB, "meter": "rss"}
        for batch in (128, 512, 2048)
        for way, peak in (("backprop", batch / 8), ("adjoint", 10))
    ]
    cells += [
        {"gradients": "toy", "way": way, "tolerance": tolerance, "status": "ok", "gradient_error": 10 * tolerance}
        | {"nfe_forward": 20, "nfe_backward": None, "saved_bytes": 2 * MIB, "peak_bytes": peak * MIB}
        for tolerance in (1e-3, 1e-5)
        for way, peak in (("backprop", 40), ("adjoint", 4))
    ]
    path = results / "benchmarks" / "machine" / "both.json"
    path.parent.mkdir(parents=True)
    suite = {"cpu": "EPYC <i>", "cpu_count": 2, "commit": "0123456789abcdef"}
    content = {"datetime": "2026-02-03T00:00:00+00:00", "machine_info": {"suite": suite}}
    path.write_text(json.dumps({**content, "benchmarks": [entry(cell) for cell in cells]}))


@pytest.fixture
def full(results):
    """A folder of results with runs and benchmarks, built."""
    trained = make_run(results, TABLE1, "odenet", errors(63))
    for seed in (0, 1):
        make_run(results, TABLE1, "resnet", errors(50 + 10 * seed), seed=seed)
    weights = (trained / "model.safetensors").relative_to(results).as_posix()
    make_run(results, FIG3, "dopri5", sweep(), inputs=[weights])
    measure(results)
    build(results, local=False, write=True)
    return results


def pages(results):
    return {path.name: path.read_text() for path in sorted((results / "report").glob("*.html"))}


def plain(text):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def check_pages(results):
    """Every page is well formed, and leads only to files that exist, or to the papers."""
    found = {name: Reader(text) for name, text in pages(results).items()}
    for name, reader in found.items():
        assert reader.faults == [], name
        assert len(set(reader.ids)) == len(reader.ids), name
        assert all(image["alt"] for image in reader.images)
        assert all(header["scope"] in ("col", "row") for header in reader.headers)
        for link in set(reader.links) - {*ARXIV.values(), "data:,"}:
            path, _, place = link.partition("#")
            target = results / "report" / (path or name)
            assert target.resolve().is_relative_to(results.resolve()), link
            assert target.exists(), f"{name}: {link}"
            assert not place or place in found[target.name].ids, f"{name}: {link}"
    return found


def test_there_is_a_page_for_each_artefact_and_each_subject_and_all_are_reached_from_the_front(full):
    found = check_pages(full)
    expected = {file_of(name) for name in EXPERIMENTS} | {f"benchmark-{subject.name}.html" for subject in SUBJECTS}
    reference = {INDEX} | {topic.file for topic in TOPICS}
    assert set(found) == expected | reference | {"index.html", "numbers.html", "choose.html", "reproduction.html"}
    assert reference <= set(found[INDEX].links)
    assert expected <= set(found["index.html"].links)


def test_an_empty_folder_gives_whole_pages_too(results):
    build(results, local=False, write=True)
    check_pages(results)
    assert "Not run yet." in pages(results)[file_of(TABLE1)]
    assert "Not measured from a clean commit." in pages(results)["benchmark-memory.html"]
    assert "make bench SUBSET=gradients" in pages(results)["choose.html"]


def test_one_s_own_runs_get_a_report_of_their_own(full):
    folder = make_run(full, TABLE1, "odenet", errors(80), source="local")
    build(full, local=True, write=True)
    check_pages(full / "local" / "..")
    text = (full / "local" / "report" / file_of(TABLE1)).read_text()
    assert "0.800 (small)" in text
    reader = Reader(text)
    assert f"../{(folder / 'run.json').relative_to(full / 'local').as_posix()}" in reader.links
    for link in set(reader.links) - {*ARXIV.values(), "data:,"}:
        assert (full / "local" / "report" / link.partition("#")[0]).exists(), link


def test_building_again_gives_the_same_bytes_and_edited_or_stale_pages_are_found(full):
    assert build(full, local=False, write=False) == []
    page, stale, listed = full / "report" / "index.html", full / "report" / "old.html", full / ".generated.json"
    page.write_text(page.read_text().replace("reproduced", "REPRODUCED"))
    stale.write_text("")  # as if an earlier version had made it
    listed.write_text(json.dumps({"files": [*json.loads(listed.read_text())["files"], "report/old.html"]}))
    assert set(build(full, local=False, write=False)) == {page, stale, listed}
    before = pages(full)
    shutil.rmtree(full / "report")
    build(full, local=False, write=True)
    after = pages(full)
    assert {name: text for name, text in after.items() if name != "index.html"} == {
        name: text for name, text in before.items() if name not in ("index.html", "old.html")
    }


def test_what_runs_and_benchmarks_say_is_escaped(full):
    text = "".join(pages(full).values())
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "a &lt;b&gt;CPU&lt;/b&gt; &amp; more, 2 cores" in text
    assert "EPYC &lt;i&gt;" in text


def test_texts_attributes_and_tables_are_escaped():
    assert tag("p", "<b>", Markup("<i></i>"), title='"><x') == '<p title="&quot;&gt;&lt;x">&lt;b&gt;<i></i></p>'
    shown = frame(pd.DataFrame({"<b>": ["<b>"], "verdict": ["<i>"]}), "<b>")
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "<b>" not in page("x.html", "<b>", section("<b>", "<b>")).decode()


def test_nothing_is_shown_where_there_is_nothing():
    assert table(("a",), [], "caption") == ""
    assert section("heading", None, []) == ""
    assert counts([]) == "-"


def test_verdicts_differ_by_word_and_sign():
    assert len({sign for _, sign in SIGNS.values()}) >= len({kind for kind, _ in SIGNS.values()})
    assert plain(badge("not reproduced")).split() == ["✗", "not", "reproduced"]


def test_an_artefact_s_page_has_numbers_with_intervals_and_provenance(full):
    text = plain(pages(full)[file_of(TABLE1)])
    assert "0.630 [0.493, 0.805]" in text  # one seed: Wilson's
    assert "0.550 ± 0.071 [-0.085, 1.185]" in text  # two seeds: Student's with one degree of freedom
    assert "Share of the budget 5 %" in text
    assert "Run on 2026-01-01 to 2026-01-02" in text
    assert f"python -m repro run {TABLE1} --tier paper" in text
    assert "implicit Adams" in text


def test_a_figure_names_its_runs_and_those_whose_weights_they_read(full):
    text = plain(pages(full)[file_of(FIG3)])
    assert re.search(r"Drawn in tier small from 1 run of Neural ODE, Figure 3 \([^)]+2026-01-01\)", text)
    assert re.search(r", 1 run of Neural ODE, Table 1 \([^)]+2026-01-01\)", text)


def test_a_benchmark_names_its_files(full):
    text = pages(full)["benchmark-memory.html"]
    assert 'href="../benchmarks/machine/both.json"' in text
    assert "2026-02-03, commit 0123456789" in text


def test_every_subject_that_is_measured_finds_its_files():
    readers = {path.stem: path.read_text() for path in (HOUSE / "repro" / "report").glob("*.py")}
    for subject in SUBJECTS:
        assert f'entries(folder, "{subject.word or subject.name}")' in readers[subject.name]


def test_choices_are_made_from_the_measured_figures(full):
    text = pages(full)["choose.html"]
    assert "at 2048 the least is adjoint (10 MiB)" in text
    assert re.search(r'<td data-mib="256">256</td><td data-mib="10"><strong>10</strong></td><td>adjoint</td>', text)
    assert "Gradient within 0.01 on the toy: quickest backprop or adjoint (10 ms), leanest adjoint (4 MiB)." in text


def test_drawings_of_lines_change_ground_in_the_dark_and_pictures_of_densities_do_not(full):
    assert 'class="drawing"' in pages(full)[file_of(FIG3)]
    drawn, coloured, moving = b"<svg><path/></svg>", b'<svg><image href="data:"/></svg>', b"GIF89a"
    files = {"a.svg": drawn, "a.png": b""}, {"a.svg": coloured, "a.png": b""}, {"a.gif": moving}
    shown = [figure(Picture("x", "words", each), "runs") for each in files]
    assert ['class="drawing"' in each for each in shown] == [True, False, False]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_in_both_schemes(scheme):
    blocks = re.findall(r":root \{(.*?)\}", (SITE / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))
    kinds = [(kind, f"{kind}-wash") for kind in ("good", "mixed", "bad", "open")]
    texts = [(ink, ground) for ink in ("ink", "muted", "accent") for ground in ("paper", "raised", "marked")]
    for ink, ground in kinds + texts:
        high, low = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def test_style_and_script_ask_nobody_else():
    for name in ("style.css", "report.js"):
        assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|innerHTML", (SITE / name).read_text())
