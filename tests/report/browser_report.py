"""The report in a real headless Chromium: sorting, filtering, width, no errors on the console; `make test-report`.

Pages are opened from disk, as readers do. A script appended to a copy of a page acts on it and tells what it found.
"""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[2] / "results" / "report"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not (REPORT / "index.html").exists(), reason="there is no report: python -m repro report"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the report beside the figures."""
    root = tmp_path_factory.mktemp("results")
    shutil.copytree(REPORT, root / "report")
    (root / "figures").symlink_to(REPORT.parent / "figures")
    return root / "report"


SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--window-size=1280,900")
TELL = """<script>addEventListener('load', () => parent.postMessage([
  document.title, innerWidth, document.documentElement.scrollWidth,
  [...document.images].filter((image) => image.complete && !image.naturalWidth).length], '*'))</script></body>"""
HEAR = """<!doctype html><body>
<script>addEventListener('message', (e) => document.body.append(`<<${JSON.stringify(e.data)}>>`))</script>"""
DO = """<script>addEventListener('load', () => {
  let answer; SCRIPT; document.body.dataset.answer = JSON.stringify(answer) })</script></body>"""


def opened(path):
    """The page after its scripts have run, and what was written to the console."""
    command = [CHROMIUM, *SWITCHES, "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def changed(folder, name, end):
    """A copy of a page with another end of its body."""
    copy = folder / f"copy-{name}"
    copy.write_text((folder / name).read_text().replace("</body>", end))
    return copy


def found(folder, name, script):
    """What a script finds on a page after the page's own scripts; it leaves its answer in `answer`."""
    text, console = opened(changed(folder, name, DO.replace("SCRIPT", script)))
    assert console == []
    return json.loads(unescape(re.findall(r'data-answer="([^"]*)"', text[text.index("<body") :])[0]))


@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_fits_the_window_and_shows_its_images_without_errors(folder, width):
    names = sorted(path.name for path in REPORT.glob("*.html"))
    copies = [changed(folder, name, TELL).name for name in names]
    frames = [f'<iframe src="{copy}" style="width:{width}px;height:900px;border:0"></iframe>' for copy in copies]
    (folder / "host.html").write_text("".join([HEAR, *frames, "</body>"]))
    text, console = opened(folder / "host.html")
    told = [json.loads(part) for part in re.findall(r"&lt;&lt;(.*?)&gt;&gt;", text)]
    assert len(told) == len(names)
    assert [page for page in told if page[1] != width or page[2] > width or page[3]] == []
    assert console == []


def test_buttons_in_headers_sort_both_ways(folder):
    script = """
      const table = document.querySelector('#artefacts table');
      const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === 'runs');
      const read = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].textContent));
      const button = table.tHead.rows[0].cells[column].querySelector('button');
      button.click(); const up = read(); button.click();
      answer = [up, read(), button.parentElement.ariaSort]"""
    up, down, state = found(folder, "index.html", script)
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)
    assert state == "descending"


def test_the_ledger_is_filtered_by_words_and_by_verdict(folder):
    script = """
      const tools = document.querySelector('#claims .tools'), rows = [...document.querySelectorAll('#claims tbody tr')];
      const shown = () => rows.filter((row) => !row.hidden).length;
      const search = tools.querySelector('input'), choice = tools.querySelector('select');
      search.value = 'no such words'; search.dispatchEvent(new Event('input')); const none = shown();
      search.value = ''; choice.value = choice.options[1].value; choice.dispatchEvent(new Event('change'));
      answer = [none, shown(), rows.length]"""
    none, some, everything = found(folder, "index.html", script)
    assert none == 0
    assert 0 < some < everything


def test_the_reader_s_values_find_the_nearest_lines(folder):
    script = """
      const form = document.getElementById('yours');
      form.elements.dimension.value = '100'; form.elements.memory.value = '1e-9';
      form.dispatchEvent(new Event('input'));
      answer = [[...document.querySelectorAll('tr.near[data-axis=dimension]')].map((row) => row.dataset.value),
                document.querySelectorAll('td.over').length === document.querySelectorAll('td[data-mib]').length,
                document.getElementById('answers').children.length]"""
    near, over, answers = found(folder, "choose.html", script)
    assert set(near) == {"128"}
    assert over
    assert answers > 0
