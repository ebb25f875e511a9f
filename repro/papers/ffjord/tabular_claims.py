"""What FFJORD says of its tabular densities, and how the rows are judged; thresholds stand here, before any run.

Only all the cells that a claim is about can give "reproduced" (`repro.cases`). The other models' numbers are the
published ones. What a training cut short has not reached says nothing of the model: below the tier `paper` such a set
counts as one without a run, its number standing in the evidence; if no other set is left, the claim is inconclusive.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pandas as pd

from repro.cases import Cases, at_most_partly, final_cases, paired_cases
from repro.experiment import Claim, Judgement, graded
from repro.published import Published, load_published
from repro.results import final_values, results_root

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
    """Our mean test NLL is at most the printed one plus three of its spreads, on every set.

    A training cut short decides only where it holds.
    """

    def holds(name: str, ours: float) -> bool:
        return ours <= value_of(name, "FFJORD") + 3 * (published_nlls(name)["FFJORD"].spread or 0.0)

    return _likelihoods(rows, SETS, holds, lambda name: f" against {published_nlls(name)['FFJORD'].printed}")


def beats_maf(rows: pd.DataFrame) -> Judgement:
    """Our mean test NLL is below MAF's printed one on every set but GAS, where it is above.

    A training cut short decides only where it holds.
    """

    def holds(name: str, ours: float) -> bool:
        return (ours < value_of(name, "MAF")) == (name != "gas")

    return _likelihoods(rows, SETS, holds, lambda name: f", MAF {value_of(name, 'MAF'):.2f}")


def beats_tan(rows: pd.DataFrame) -> Judgement:
    """Our mean test NLL on MINIBOONE is below TAN's printed one. A training cut short decides only where it holds."""

    def holds(name: str, ours: float) -> bool:
        return ours < value_of(name, "TAN")

    return _likelihoods(rows, ("miniboone",), holds, lambda name: f", TAN {value_of(name, 'TAN'):.2f}")


def _likelihoods(
    rows: pd.DataFrame, sets: Sequence[str], holds: Callable[[str, float], bool], beside: Callable[[str], str]
) -> Judgement:
    """The verdict on our mean test NLLs of some sets."""
    found = final_cases(rows, TABLE2, {name: name for name in sets}, "test_nll")
    ours = {name: fmean(values) for name, values in found.found.items()}
    text = "test NLL in nats: " + ", ".join(f"{name} {nll:.2f}{beside(name)}" for name, nll in ours.items())
    return _judged(rows, found, {name: holds(name, nll) for name, nll in ours.items()}, text)


def _judged(rows: pd.DataFrame, found: Cases[list[float]], holds: dict[str, bool], text: str) -> Judgement:
    """The verdict on what each set says; what a training cut short says counts only where it holds."""
    full = set(rows.loc[rows["experiment"] == TABLE2, "tier"]) == {"paper"}
    verdicts = {name: held for name, held in holds.items() if held or full}
    if holds and not verdicts:
        return Judgement("inconclusive", f"{text}; the training was cut short")
    counted = {name: found.found[name] for name in verdicts}
    return replace(found, found=counted).judged(graded(verdicts.values()), text)


def probes_add_little(rows: pd.DataFrame) -> Judgement:
    """The probes' variance of the mean over the validation set is below 1e-4 on every set, in every seed.

    A training cut short decides only where it holds.
    """
    found = final_cases(rows, TABLE2, {name: name for name in SETS}, "probe_variance")
    largest = {name: max(values) for name, values in found.found.items()}
    text = "variance in nats²: " + ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
    return _judged(rows, found, {name: value < 1e-4 for name, value in largest.items()}, text)


def estimator_suffices(rows: pd.DataFrame) -> Judgement:
    """Training on POWER with the estimator ends less than 0.05 nats above training with the exact trace.

    An update with the exact trace takes about three times as long. At most partly reproduced where it had fewer
    updates, as in the tier `small`, which gives both about the same time.
    """
    pair = paired_cases(rows, TABLE2, {"power": ("power_exact", "power")}, "test_nll")
    updates = [final_values(rows, TABLE2, cell, "steps") for cell in ("power_exact", "power")]
    exact, estimated = (max(values, default=0.0) for values in updates)
    holds = graded([b - a < 0.05 for a, b in pair.found.values()])
    text = ", ".join(
        f"{name} {a:.3f} after {exact:,.0f} exact updates, {b:.3f} after {estimated:,.0f} estimated ones"
        for name, (a, b) in pair.found.items()
    )
    return pair.judged(holds if exact >= estimated else at_most_partly(holds), f"test NLL in nats: {text}")


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
