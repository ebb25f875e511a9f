"""The report in a real headless Chromium: sorting, filtering, width, contrast, no errors; `make test-report`.

Pages are opened from disk, as readers do. A script appended to a copy of a page acts on it and tells what it found.
Pictures of some pages go to the folder in REPRO_SCREENSHOTS, where a person can look at them.
"""

import json
import os
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
  [...document.images].filter((image) => !image.alt.trim() || (image.complete && !image.naturalWidth)).length,
  ], '*'))</script></body>"""
HEAR = """<!doctype html><body>
<script>addEventListener('message', (e) => document.body.append(`<<${JSON.stringify(e.data)}>>`))</script>"""
DO = """<script>addEventListener('load', () => {
  let answer; SCRIPT; document.body.dataset.answer = JSON.stringify(answer) })</script></body>"""


SCHEMES = {"dark": "--blink-settings=preferredColorScheme=0", "light": "--blink-settings=preferredColorScheme=1"}
PAGES = (
    "index",
    "neural_ode-table1_mnist",
    "ffjord-fig2_toy2d",
    "benchmark-solvers",
    "choose",
    "numbers",
    "reference",
    "reference-ode",
)
CONTRAST = """
  const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true }), known = new Map();
  const parsed = (text) => {
    if (!known.has(text)) {
      pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = text; pixel.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
      known.set(text, [r, g, b, a / 255]);
    }
    return known.get(text);
  };
  const over = (top, alpha, ground) => ground.map((part, i) => alpha * top[i] + (1 - alpha) * part);
  const ground = (element) => {
    const colour = element ? parsed(getComputedStyle(element).backgroundColor) : parsed('Canvas');
    return element && colour[3] < 1 ? over(colour, colour[3], ground(element.parentElement)) : colour.slice(0, 3);
  };
  const opacity = (element) => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
  const linear = (part) => part <= 10.31475 ? part / 3294.6 : ((part / 255 + .055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const faults = []; let checked = 0;
  const check = (element, style, text, alpha) => {
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const behind = ground(element), ink = parsed(style.color);
    const [high, low] = [behind, over(ink, ink[3] * alpha, behind)].map(luminance).sort((a, b) => b - a);
    const ratio = (high + .05) / (low + .05); checked += 1;
    if (ratio < (large ? 3 : 4.5)) faults.push([text.trim().slice(0, 30), element.tagName, ratio.toFixed(2)]);
  };
  for (const element of document.body.querySelectorAll('*:not(script)')) {
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join('');
    const text = own + (element.matches('input, select') ? element.value : '');
    if (text.trim()) check(element, getComputedStyle(element), text, opacity(element));
    for (const part of ['::before', '::after']) {
      const style = getComputedStyle(element, part), content = style.content.match(/^"(.*[^ ].*)"$/);
      if (content) check(element, style, content[1], style.opacity * opacity(element));
    }
  }
  answer = [matchMedia('(prefers-color-scheme: dark)').matches, checked, faults.slice(0, 12)]"""


def opened(path, *switches):
    """The page after its scripts have run, and what was written to the console."""
    command = [CHROMIUM, *SWITCHES, *switches, "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def changed(folder, name, end):
    """A copy of a page with another end of its body."""
    copy = folder / f"copy-{name}"
    copy.write_text((folder / name).read_text().replace("</body>", end))
    return copy


def found(folder, name, script, *switches):
    """What a script finds on a page after the page's own scripts; it leaves its answer in `answer`."""
    text, console = opened(changed(folder, name, DO.replace("SCRIPT", script)), *switches)
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


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_every_text_stands_out_from_its_ground(folder, name, scheme):
    is_dark, checked, faults = found(folder, f"{name}.html", CONTRAST, SCHEMES[scheme])
    assert is_dark == (scheme == "dark")
    assert checked > 20
    assert faults == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_have_pictures_to_look_at(folder, tmp_path, width, scheme):
    target = Path(os.environ.get("REPRO_SCREENSHOTS") or tmp_path).resolve()
    target.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        frame = f'<iframe src="{name}.html" style="width:{width}px;height:2400px;border:0"></iframe>'
        (folder / "host.html").write_text(f'<!doctype html><body style="margin:0">{frame}</body>')
        picture = target / f"{name}-{width}-{scheme}.png"
        size = f"--window-size={max(width, 500)},2400"  # no window is narrower
        command = [CHROMIUM, *SWITCHES, size, "--hide-scrollbars", SCHEMES[scheme], f"--screenshot={picture}"]
        subprocess.run([*command, (folder / "host.html").as_uri()], capture_output=True, timeout=120, check=True)
        assert picture.stat().st_size > 10_000
