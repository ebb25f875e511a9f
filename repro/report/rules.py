"""The page of rules: text from `rules.md`, margins and words from the code that applies them."""

from pathlib import Path

import pandas as pd

from repro.evaluation.margins import TABLE, Margins
from repro.evaluation.verdicts import MEANING
from repro.papers import EXPERIMENTS
from repro.report.pages import NOTE, table_lines

TEXT = Path(__file__).with_name("rules.md")
PRINTED = {
    "neural_ode/table2_spirals": "Neural ODE, Table 2",
    "ffjord/table2_images": "FFJORD, Table 2 (images)",
    "ffjord/table3_vae": "FFJORD, Table 3",
}
"""Artefacts with margins that no experiment covers yet."""


def rules_page() -> str:
    """Print the rules of verdicts as Markdown."""
    words = pd.DataFrame([{"verdict": f"`{word}`", "meaning": meaning} for word, meaning in MEANING.items()])
    margins = pd.DataFrame([_line(*key, margins) for key, margins in TABLE.items()])
    tables = {"margins": table_lines(margins), "words": table_lines(words)}
    return TEXT.read_text(encoding="utf-8").format(note=NOTE, **tables)


def _line(name: str, cell: str, metric: str, margins: Margins) -> dict[str, str]:
    artefact = EXPERIMENTS[name].artefact if name in EXPERIMENTS else PRINTED[name]
    return {
        "artefact": artefact if cell == "*" else f"{artefact}, {cell}",
        "metric": metric,
        "completeness margin": _margin(margins.completeness, margins, "stopping rule only"),
        "agreement margin": _margin(margins.agreement, margins, "-"),
        "seeds": str(margins.seeds),
    }


def _margin(value: float | None, margins: Margins, missing: str) -> str:
    if value is None:
        return missing
    return f"{100 * value:g} %" if margins.relative else f"{value:g}"
