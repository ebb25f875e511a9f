"""MINIBOONE: canonical validation and test rows, and a training part that says it is not whole."""

import numpy as np
import pytest
import torch

from repro.data import DATASETS, DataError, files
from repro.data import tabular_miniboone as miniboone
from repro.data.tabular import SIZES


@pytest.fixture(scope="module")
def partial():
    return miniboone.load_partial()


@pytest.fixture
def full(tmp_path, monkeypatch):
    """A folder in REPRO_DATA, and the path of its miniboone/data.npy."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    (tmp_path / "miniboone").mkdir()
    return tmp_path / miniboone.FULL.path


def test_the_partial_set_is_one_of_its_own_that_no_published_number_belongs_to(partial):
    assert DATASETS["miniboone_partial"].load is not DATASETS["miniboone"].load
    assert len(partial.train) == 1_523 < SIZES["miniboone"][1]
    assert SIZES["miniboone_partial"][2:] == SIZES["miniboone"][2:]


def test_validation_and_test_rows_are_standardised_by_the_whole_set(partial):
    # 3,284 of the 32,840 rows that mean and deviation are of: close to standard, not standard
    for part in (partial.validation, partial.test):
        assert part.mean(0).abs().max() < 0.12
        assert (part.std(0) - 1).abs().max() < 0.35
        assert (part.std(0) != 1).all()


def test_a_full_gaussian_fitted_to_what_is_there_has_a_likelihood_near_mafs(partial):
    known = torch.cat([partial.train, partial.validation]).double()
    gaussian = torch.distributions.MultivariateNormal(known.mean(0), known.T.cov())
    found = gaussian.log_prob(partial.test.double())
    assert found.mean().item() == pytest.approx(-37.24, abs=1.5)


def test_the_full_set_is_cut_in_file_order_and_standardised(full):
    rows = np.random.default_rng(0).normal(2, 3, (36_488, 43))
    np.save(full, rows)
    splits = miniboone.load()
    assert [tuple(part.shape) for part in (splits.train, splits.validation, splits.test)] == [
        (29_556, 43),
        (3_284, 43),
        (3_648, 43),
    ]
    known = rows[: 29_556 + 3_284]
    expected = (rows[-3_648:] - known.mean(0)) / known.std(0)
    np.testing.assert_allclose(splits.test.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert set(splits.sha256) == {"miniboone/data.npy"}
    assert len(splits.sha256["miniboone/data.npy"]) == 64


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "can't be read as npy"),
        (b"no numbers", "can't be read as npy"),
        (np.lib.format.magic(1, 0), "can't be read as npy"),
    ],
    ids=["empty", "text", "header"],
)
def test_a_file_that_is_no_npy_is_named_in_one_line(full, content, complaint):
    full.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        miniboone.load()
    assert "miniboone/data.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_number_of_columns_is_refused(full):
    np.save(full, np.zeros((36_488, 50)) + np.arange(50))
    with np.errstate(all="ignore"), pytest.raises(DataError, match="rows of 43 columns"):
        miniboone.load()


def test_an_absent_file_says_how_to_get_it(full):
    with pytest.raises(DataError, match=r"is absent: .*data fetch miniboone"):
        miniboone.load()
    assert files.check(miniboone.FULL).status == "absent"
    assert files.check(miniboone.FULL).sound
