"""The table of published numbers: its schema, and spot values against the papers."""

from collections import Counter
from pathlib import Path

import pytest

from repro.published import HEADER, TEST_POINT_SPREAD, Published, PublishedError, load_published

TABLE = Path(__file__).parents[1] / "results" / "published.csv"


@pytest.mark.parametrize(
    ("printed", "half_unit"),
    [("1.60", 0.005), ("0.6", 0.05), ("-157.40", 0.005), ("0.3937", 5e-5), ("12", 0.5), ("44.0", 0.05), ("", 0.0)],
)
def test_half_a_unit_of_the_last_printed_digit(printed, half_unit):
    number = Published("paper/table", "cell", "metric", "method", printed, "", "nats", "lower", "FFJORD v3", "")
    assert number.printed_half_unit == pytest.approx(half_unit)


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return load_published(TABLE)


def find(table, experiment, cell, metric, method):
    (row,) = [r for r in table if (r.experiment, r.cell, r.metric, r.method) == (experiment, cell, metric, method)]
    return row


def test_every_experiment_has_the_rows_of_its_table(table):
    # Rows that NSF's and MAF's tables repeat from FFJORD's (FFJORD, NAF = MAF-DDSF, MADE) stand here once.
    assert Counter(row.experiment for row in table) == {
        "neural_ode/table1_mnist": 4 + 4 + 3 + 3,  # error, parameters; memory and time but for the MLP
        "neural_ode/table2_spirals": 2 * 3,
        "ffjord/table2_tabular": (7 + 8 + 7) * 5,  # FFJORD's own table, NSF's, MAF's
        "ffjord/table2_images": 2 * 5 + 1 + 2 + 3,  # FFJORD's; its single flow; NSF's bits/dim and parameters
        "ffjord/table3_vae": 5 * 4,
    }


def test_cells_and_metrics_are_the_agreed_ones(table):
    cells = {}
    for row in table:
        cells.setdefault((row.experiment, row.metric, row.unit), set()).add(row.cell)
    models = {"mlp", "resnet", "rknet", "odenet"}
    assert cells == {
        ("neural_ode/table1_mnist", "test_error", "%"): models,
        ("neural_ode/table1_mnist", "parameters", "M"): models,
        ("neural_ode/table1_mnist", "memory", ""): models - {"mlp"},
        ("neural_ode/table1_mnist", "time", ""): models - {"mlp"},
        ("neural_ode/table2_spirals", "test_rmse", "data units"): {"30", "50", "100"},
        ("ffjord/table2_tabular", "test_nll", "nats"): {"power", "gas", "hepmass", "miniboone", "bsds300"},
        ("ffjord/table2_images", "bits_per_dim", "bits/dim"): {"mnist", "cifar10"},
        ("ffjord/table2_images", "parameters", "M"): {"cifar10"},
        ("ffjord/table3_vae", "negative_elbo", "nats"): {"mnist", "omniglot", "caltech101"},
        ("ffjord/table3_vae", "negative_elbo", "bits/dim"): {"freyfaces"},
    }


@pytest.mark.parametrize(
    ("key", "printed", "spread"),
    [
        (("neural_ode/table1_mnist", "mlp", "test_error", "1-layer MLP"), "1.60", ""),
        (("neural_ode/table1_mnist", "odenet", "test_error", "ODE-Net"), "0.42", ""),
        (("neural_ode/table1_mnist", "rknet", "test_error", "RK-Net"), "0.47", ""),
        (("neural_ode/table1_mnist", "resnet", "parameters", "ResNet"), "0.60", ""),
        (("neural_ode/table1_mnist", "odenet", "memory", "ODE-Net"), "", ""),
        (("neural_ode/table2_spirals", "30", "test_rmse", "RNN"), "0.3937", ""),
        (("neural_ode/table2_spirals", "100", "test_rmse", "Latent ODE"), "0.1346", ""),
        (("ffjord/table2_tabular", "power", "test_nll", "FFJORD"), "-0.46", "0.01"),
        (("ffjord/table2_tabular", "miniboone", "test_nll", "FFJORD"), "10.43", "0.04"),
        (("ffjord/table2_tabular", "bsds300", "test_nll", "Real NVP"), "-153.28", "1.78"),
        (("ffjord/table2_tabular", "gas", "test_nll", "RQ-NSF (AR)"), "-13.09", ""),
        (("ffjord/table2_tabular", "bsds300", "test_nll", "Gaussian"), "-96.67", "0.25"),
        (("ffjord/table2_images", "mnist", "bits_per_dim", "FFJORD"), "0.99", ""),
        (("ffjord/table2_images", "mnist", "bits_per_dim", "FFJORD (encoder-decoder)"), "1.05", ""),
        (("ffjord/table2_images", "cifar10", "bits_per_dim", "Glow"), "3.35", ""),
        (("ffjord/table3_vae", "mnist", "negative_elbo", "FFJORD"), "82.82", "0.01"),
        (("ffjord/table3_vae", "caltech101", "negative_elbo", "No flow"), "110.80", "0.46"),
    ],
)
def test_spot_values_with_the_printed_digits(table, key, printed, spread):
    row = find(table, *key)
    assert (row.printed, row.printed_spread) == (printed, spread)


def test_log_likelihoods_changed_sign_and_say_so(table):
    others = [row for row in table if row.experiment == "ffjord/table2_tabular" and "FFJORD" not in row.source]
    assert len(others) == 15 * 5
    assert all("secondary source" in row.note and "sign changed" in row.note for row in others)
    # the same architecture in two papers: Real NVP of 10 layers is FFJORD's baseline on POWER
    ours, theirs = (find(table, "ffjord/table2_tabular", "power", "test_nll", m) for m in ("Real NVP", "Real NVP (10)"))
    assert ours.value == theirs.value


def test_lower_is_better_wherever_there_is_a_number(table):
    sizes = [row for row in table if row.metric == "parameters"]
    assert all(row.better == "" for row in sizes)
    assert all(row.better == ("lower" if row.printed else "") for row in table if row not in sizes)
    assert all(row.note.startswith("O(") for row in table if not row.printed)


def test_spreads_over_runs_are_told_from_those_over_test_points(table):
    for row in table:
        if row.method == "FFJORD" and row.printed_spread:
            assert row.n_runs == 3
        if row.method in ("MADE", "MAF", "Real NVP", "Gaussian") and row.printed_spread:
            assert row.n_runs is None
            assert TEST_POINT_SPREAD in row.note


# --- the schema -----------------------------------------------------------------------------------------------------

GOOD = "e,c,m,method,1.0,0.1,nats,lower,source,note"


@pytest.mark.parametrize(
    ("lines", "line", "complaint"),
    [
        ([], 1, "header"),
        (["experiment,cell"], 1, "header"),
        ([",".join((*HEADER[1:], HEADER[0])), GOOD], 1, "header"),
        ([",".join(HEADER), GOOD, GOOD], 3, "came before"),
        ([",".join(HEADER), GOOD, "e,c,m,other,2.0"], 3, "5 fields, expected 10"),
        ([",".join(HEADER), GOOD, ""], 3, "0 fields"),
        ([",".join(HEADER), GOOD + ",more"], 2, "11 fields"),
        ([",".join(HEADER), GOOD.replace("1.0", "1.0*")], 2, "value is '1.0*'"),
        ([",".join(HEADER), GOOD.replace("1.0", "\N{MINUS SIGN}1.0")], 2, "value is "),
        ([",".join(HEADER), GOOD.replace("1.0", "nan")], 2, "value is 'nan'"),
        ([",".join(HEADER), GOOD.replace("0.1", " .1")], 2, "spread is ' .1'"),
        ([",".join(HEADER), GOOD.replace("0.1", "-0.1")], 2, "negative"),
        ([",".join(HEADER), GOOD.replace("1.0", "")], 2, "needs a value"),
        ([",".join(HEADER), GOOD.replace("lower", "less")], 2, "better is 'less'"),
        ([",".join(HEADER), GOOD.replace("source", "")], 2, "may not be empty"),
        ([",".join(HEADER), GOOD.replace("note", '"two\nlines"'), GOOD], 4, "came before"),
    ],
)
def test_a_broken_table_is_rejected_with_the_line(tmp_path, lines, line, complaint):
    path = tmp_path / "published.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(PublishedError) as caught:
        load_published(path)
    assert f"{path}, line {line}: " in str(caught.value)
    assert complaint in str(caught.value)


def test_a_sound_table_is_read_as_printed(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text("\n".join([",".join(HEADER), GOOD, "e,c,m,none,,,,,source,"]) + "\n", encoding="utf-8")
    first, second = load_published(path)
    assert (first.value, first.spread, first.printed, first.printed_half_unit) == (1.0, 0.1, "1.0", 0.05)
    assert (second.value, second.spread, second.better) == (None, None, "")
