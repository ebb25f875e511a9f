"""Margins of completeness and agreement, and numbers of seeds, for each metric that the papers print.

Fixed before the runs that they decide on; a later change is a line under *Rules* in CHANGELOG.md.
"""

from dataclasses import dataclass

from repro.published import Published

RECONSTRUCTION_LIMIT = 1e-2
"""Largest relative reconstruction error of a trusted number."""


@dataclass(frozen=True)
class Margins:
    """Margins of one metric.

    Attributes:
        completeness: Gain, in the metric's unit, that a training to the full budget may still bring; None where only
            the paper's stopping rule makes a training complete.
        agreement: Half-width of the equivalence region, in the metric's unit; None where no number is printed.
        seeds: Number of seeds that a verdict needs.
        relative: Both margins are fractions of the published value.
        keeps_tolerance: The number is quoted at the paper's tolerance even where it is not trusted, with a flag.
    """

    completeness: float | None
    agreement: float | None
    seeds: int
    relative: bool = False
    keeps_tolerance: bool = False

    def scaled(self, value: float | None) -> "Margins":
        """Turn relative margins into absolute ones for a published value."""
        if not self.relative or value is None:
            return self
        scale = abs(value)
        completeness = None if self.completeness is None else self.completeness * scale
        agreement = None if self.agreement is None else self.agreement * scale
        return Margins(completeness, agreement, self.seeds, keeps_tolerance=self.keeps_tolerance)


TABLE: dict[tuple[str, str, str], Margins] = {
    ("neural_ode/table1_mnist", "*", "test_error"): Margins(0.10, 0.25, 5, keeps_tolerance=True),
    ("neural_ode/table2_spirals", "*", "test_rmse"): Margins(0.10, 0.15, 10, relative=True),
    ("neural_ode/fig4_nf_vs_cnf", "*", "kl"): Margins(0.02, None, 3),
    ("neural_ode/fig5_noise_to_data", "*", "test_nll"): Margins(0.02, None, 3),
    ("ffjord/fig1_density1d", "*", "test_nll"): Margins(0.02, None, 3),
    ("ffjord/fig2_toy2d", "*", "test_nll"): Margins(0.02, None, 3),
    ("ffjord/table2_tabular", "*", "test_nll"): Margins(0.02, 0.03, 3),
    ("ffjord/table2_images", "*", "bits_per_dim"): Margins(0.01, 0.02, 2),
    ("ffjord/table3_vae", "caltech101", "negative_elbo"): Margins(None, 1.0, 3),
    ("ffjord/table3_vae", "mnist", "negative_elbo"): Margins(None, 0.5, 3),
    ("ffjord/table3_vae", "omniglot", "negative_elbo"): Margins(None, 0.5, 3),
    ("ffjord/table3_vae", "freyfaces", "negative_elbo"): Margins(None, 0.05, 3),
}
"""By experiment, cell (`*`: all) and metric."""


def margins_of(experiment: str, cell: str, metric: str) -> Margins | None:
    """Look up the margins of a metric of a cell; None where the table has none."""
    return TABLE.get((experiment, cell, metric)) or TABLE.get((experiment, "*", metric))


def published_margins(number: Published) -> Margins | None:
    """Look up the margins of a published number, in its unit; None for what is compared exactly or not at all."""
    margins = margins_of(number.experiment, number.cell, number.metric)
    return None if margins is None else margins.scaled(number.value)


def required_seeds(experiment: str) -> int:
    """Look up the number of seeds that an experiment's verdicts need; 1 where it has no trained number."""
    return max((margins.seeds for (name, _, _), margins in TABLE.items() if name == experiment), default=1)
