"""What FFJORD says of its tabular densities, and how the rows are judged; thresholds stand here, before any run.

Only all the cells that a claim is about can give "reproduced" (`repro.cases`). The other models' numbers are the
published ones. A likelihood that a training cut short has not reached says nothing of the model: below the tier `paper`
such a set counts as one without a run, its number standing in the evidence.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pandas as pd

from repro.cases import final_cases, paired_cases
from repro.experiment import Claim, Judgement, graded
from repro.published import Published, load_published
from repro.results import results_root

TABLE2 = "ffjord/table2_tabular"
SETS = ("power", "gas", "hepmass", "miniboone", "bsds300")


def published_nlls(cell: str) -> dict[str, Published]:
    """The published test NLLs of a data set, by method."""
    numbers = load_published(results_root() / "published.csv")
    return {n.method: n for n in numbers if (n.experiment, n.cell, n.metric) == (TABLE2, cell, "test_nll")}


def value_of(cell: str, method: str) -> float:
    """A published test NLL, in nats.

    Raises:
        ValueError: There is none in the table of published numbers.
    """
    number = published_nlls(cell).get(method)
    if number is None or number.value is None:
        raise ValueError(f"published.csv has no test_nll of {method} on {cell}")
    return number.value


def reaches_the_table(rows: pd.DataFrame) -> Judgement:
    """Our mean test NLL is at most the printed one plus three of its spreads, on every set."""

    def holds(name: str, ours: float) -> bool:
        return ours <= value_of(name, "FFJORD") + 3 * (published_nlls(name)["FFJORD"].spread or 0.0)

    return _judged(rows, SETS, holds, lambda name: f" against {published_nlls(name)['FFJORD'].printed}")


def beats_maf(rows: pd.DataFrame) -> Judgement:
    """Our mean test NLL is below MAF's printed one on every set but GAS, where it is above."""

    def holds(name: str, ours: float) -> bool:
        return (ours < value_of(name, "MAF")) == (name != "gas")

    return _judged(rows, SETS, holds, lambda name: f", MAF {value_of(name, 'MAF'):.2f}")


def beats_tan(rows: pd.DataFrame) -> Judgement:
    """Our mean test NLL on MINIBOONE is below TAN's printed one."""

    def holds(name: str, ours: float) -> bool:
        return ours < value_of(name, "TAN")

    return _judged(rows, ("miniboone",), holds, lambda name: f", TAN {value_of(name, 'TAN'):.2f}")


def _judged(
    rows: pd.DataFrame, sets: Sequence[str], holds: Callable[[str, float], bool], beside: Callable[[str], str]
) -> Judgement:
    """The verdict on our mean test NLLs of some sets; those of a training cut short count only where they hold."""
    found = final_cases(rows, TABLE2, {name: name for name in sets}, "test_nll")
    ours = {name: fmean(values) for name, values in found.found.items()}
    text = "test NLL in nats: " + ", ".join(f"{name} {nll:.2f}{beside(name)}" for name, nll in ours.items())
    full = set(rows.loc[rows["experiment"] == TABLE2, "tier"]) == {"paper"}
    verdicts = {name: ok for name, nll in ours.items() if (ok := holds(name, nll)) or full}
    if ours and not verdicts:
        return Judgement("not attempted", f"{text}; the training was cut short")
    counted = {name: found.found[name] for name in verdicts}
    return replace(found, found=counted).judged(graded(verdicts.values()), text)


def probes_add_little(rows: pd.DataFrame) -> Judgement:
    """The probes' variance of the mean over the validation set is below 1e-4 on every set, in every seed."""
    found = final_cases(rows, TABLE2, {name: name for name in SETS}, "probe_variance")
    largest = {name: max(values) for name, values in found.found.items()}
    text = ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
    return found.judged(graded([value < 1e-4 for value in largest.values()]), f"variance in nats²: {text}")


def estimator_suffices(rows: pd.DataFrame) -> Judgement:
    """Training on POWER with the estimator ends at most 0.05 nats above training with the exact trace.

    The exact one costs more per update; in the tier `small` it gets fewer updates, at about equal time.
    """
    pair = paired_cases(rows, TABLE2, {"power": ("power_exact", "power")}, "test_nll")
    holds = [estimated - exact < 0.05 for exact, estimated in pair.found.values()]
    text = ", ".join(f"{name} {a:.3f} exact, {b:.3f} estimated" for name, (a, b) in pair.found.items())
    return pair.judged(graded(holds), f"test NLL in nats at about equal time: {text}")


TABLE2_CLAIMS = (
    Claim(
        id="ffjord-table2-likelihoods",
        statement="FFJORD reaches the likelihoods that Table 2 prints for five tabular data sets.",
        source="FFJORD, Section 4.2 and Tables 2 and 6",
        check=reaches_the_table,
    ),
    Claim(
        id="ffjord-beats-maf-but-on-gas",
        statement="FFJORD has higher likelihoods than MAF on all tabular data sets except GAS.",
        source="FFJORD, Section 4.2 and Table 2",
        check=beats_maf,
    ),
    Claim(
        id="ffjord-beats-tan-on-miniboone",
        statement="FFJORD has a higher likelihood than TAN on MINIBOONE.",
        source="FFJORD, Section 4.2 and Table 2",
        check=beats_tan,
    ),
    Claim(
        id="ffjord-probe-variance",
        statement="The trace estimator's noise changes the validation log-likelihood by a variance below 1e-4.",
        source="FFJORD, Section 4",
        check=probes_add_little,
    ),
    Claim(
        id="ffjord-estimator-suffices-on-power",
        statement="Training with the trace estimator costs no likelihood on tabular data.",
        source="FFJORD, Section 3.1",
        check=estimator_suffices,
    ),
)
