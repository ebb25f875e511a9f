"""What FFJORD says of its tabular densities, and how the rows are judged.

Thresholds stood here before any run; CHANGELOG's Rules tell what was changed after one was seen. Only all the cells
that a claim is about can give "reproduced" (`repro.cases`). The other models' numbers are the published ones. What was
cut short (below the tier `paper`) decides only what more updates would not turn: a likelihood that is reached already.
Else the set counts as one without a run, its number standing in the evidence; if no other set is left, the claim is
inconclusive.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pandas as pd

from repro.cases import Cases, final_cases, paired_cases
from repro.evaluation.budgets import Variants
from repro.evaluation.margins import required_seeds
from repro.evaluation.selection import strongest_source
from repro.experiment import SUITE, Claim, Judgement, graded
from repro.published import Published, load_published
from repro.results import final_values, results_root

TABLE2 = "ffjord/table2_tabular"
SETS = ("power", "gas", "hepmass", "miniboone", "bsds300")
MULTIPLES = {"power": {8: "power_long"}}
"""Cells with a multiple of another cell's updates, in the tier `small`; see `Budget.multiples`."""


def strongest_cells(rows: pd.DataFrame, sets: Sequence[str]) -> dict[str, str]:
    """Select for each data set the cell of the largest budget with enough seeds, in rows of one tier."""
    variants, seeds = Variants(multiples=MULTIPLES), required_seeds(TABLE2)
    return {name: strongest_source(rows, TABLE2, name, variants, seeds) for name in sets}


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

    A training cut short decides only where it holds; on POWER the one with the most updates counts.
    """

    def reached(name: str, ours: float) -> bool:
        return ours <= value_of(name, "FFJORD") + 3 * (published_nlls(name)["FFJORD"].spread or 0.0)

    return _likelihoods(rows, SETS, reached, lambda name: f" against {published_nlls(name)['FFJORD'].printed}")


def beats_maf(rows: pd.DataFrame) -> Judgement:
    """Our mean test NLL is below MAF's printed one on every set but GAS, where it is above.

    A training cut short decides only where it is below, on GAS too; on POWER the one with the most updates counts.
    """

    def below(name: str, ours: float) -> bool:
        return ours < value_of(name, "MAF")

    return _likelihoods(rows, SETS, below, lambda name: f", MAF {value_of(name, 'MAF'):.2f}", above=("gas",))


def beats_tan(rows: pd.DataFrame) -> Judgement:
    """Our mean test NLL on MINIBOONE is below TAN's printed one. A training cut short decides only where it holds."""

    def below(name: str, ours: float) -> bool:
        return ours < value_of(name, "TAN")

    return _likelihoods(rows, ("miniboone",), below, lambda name: f", TAN {value_of(name, 'TAN'):.2f}")


def _likelihoods(
    rows: pd.DataFrame,
    sets: Sequence[str],
    reached: Callable[[str, float], bool],
    beside: Callable[[str], str],
    above: Sequence[str] = (),
) -> Judgement:
    """The verdict on our mean test NLLs of some sets: all reach their bounds but those that should stay above."""
    cells = strongest_cells(rows, sets)
    found = final_cases(rows, TABLE2, cells, "test_nll")
    ours = {name: fmean(values) for name, values in found.found.items()}
    text = "test NLL in nats: " + ", ".join(f"{name} {nll:.2f}{beside(name)}" for name, nll in ours.items())
    settled = {name: reached(name, nll) for name, nll in ours.items()}
    holds = {name: good != (name in above) for name, good in settled.items()}
    return _judged(rows, found, holds, settled, text)


def _judged(
    rows: pd.DataFrame, found: Cases[list[float]], holds: dict[str, bool], settled: dict[str, bool], text: str
) -> Judgement:
    """The verdict on what each set says; of trainings cut short only what more updates would not turn counts."""
    full = set(rows.loc[rows["experiment"] == TABLE2, "tier"]) == {"paper"}
    verdicts = {name: held for name, held in holds.items() if settled[name] or full}
    if holds and not verdicts:
        return Judgement("inconclusive", f"{text}; the training was cut short")
    counted = {name: found.found[name] for name in verdicts}
    return replace(found, found=counted).judged(graded(verdicts.values()), text)


def probes_add_little(rows: pd.DataFrame) -> Judgement:
    """The probes' variance of the mean over the validation set is below 1e-4 for the models of MNIST and CIFAR10.

    The paper says so of these models alone, which were tested with the estimator; its tables were tested with the exact
    trace. The suite has no image models.
    """
    del rows
    return Judgement("not attempted", "the suite has no image models")


def measure_probes(rows: pd.DataFrame) -> str:
    """Say what the probes' variance is on tables, on which no paper says anything of it."""
    variances = final_cases(rows, TABLE2, strongest_cells(rows, SETS), "probe_variance").found
    if not variances:
        return ""
    text = ", ".join(f"{name} {max(values):.1e}" for name, values in variances.items())
    return (
        "FFJORD reports the variance that the trace estimator's probes bring into a validation log-likelihood for its "
        "MNIST and CIFAR10 models (below 1e-4). On tables, which it tested with the exact trace, one probe a row gives "
        f"our flows a variance, in nats², of {text}."
    )


def compare_with_gaussian(rows: pd.DataFrame) -> str:
    """Say on which data a trained flow ends above one full-covariance Gaussian."""
    lost = []
    for cell in dict.fromkeys(rows.loc[rows["experiment"] == TABLE2, "cell"]):
        nlls, gaussians = (final_values(rows, TABLE2, str(cell), metric) for metric in ("test_nll", "gaussian_nll"))
        if nlls and gaussians and (excess := fmean(nlls) - fmean(gaussians)) > 0:
            updates = final_values(rows, TABLE2, str(cell), "steps")
            after = f", after {fmean(updates):,.0f} updates" if updates else ""
            lost.append(f"{cell} {excess:.1f} nats (test NLL {fmean(nlls):.2f} against {fmean(gaussians):.2f}{after})")
    return f"Trained flows that are worse than one Gaussian with a full covariance: {'; '.join(lost)}." if lost else ""


def estimator_suffices(rows: pd.DataFrame) -> Judgement:
    """Training on POWER with the estimator ends less than 0.05 nats above training with the exact trace.

    Inconclusive where the exact trace had fewer updates, as in the tier `small`: its updates take longer.
    """
    pair = paired_cases(rows, TABLE2, {"power": ("power_exact", "power")}, "test_nll")
    updates = [final_values(rows, TABLE2, cell, "steps") for cell in ("power_exact", "power")]
    exact, estimated = (max(values, default=0.0) for values in updates)
    holds = graded([b - a < 0.05 for a, b in pair.found.values()])
    text = ", ".join(
        f"{name} {a:.3f} after {exact:,.0f} exact updates, {b:.3f} after {estimated:,.0f} estimated ones"
        for name, (a, b) in pair.found.items()
    )
    if pair.found and exact < estimated:
        return Judgement("inconclusive", f"test NLL in nats: {text}; the exact trace had fewer updates")
    return pair.judged(holds, f"test NLL in nats: {text}")


TABLE2_REMARKS = (compare_with_gaussian, measure_probes)
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
        statement="On MNIST and CIFAR10 the estimator's noise gives the validation likelihood a variance below 1e-4.",
        source="FFJORD, Section 4",
        check=probes_add_little,
    ),
    Claim(
        id="ffjord-estimator-suffices-on-power",
        statement="Does training with the trace estimator cost likelihood on POWER?",
        source=SUITE,
        check=estimator_suffices,
        origin="suite",
    ),
)
