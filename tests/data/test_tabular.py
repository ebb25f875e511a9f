"""What the tabular sets share: the cuts, the standardisation, and what is refused."""

import numpy as np
import pytest
import torch

from repro.data import DATASETS, DataError, DataFile
from repro.data.files import EMBEDDED
from repro.data.tabular import SIZES, finished, parsed, standardised, tenths


@pytest.fixture
def sized(monkeypatch):
    """A set of 3 columns with 4, 2 and 2 rows."""
    monkeypatch.setitem(SIZES, "toy", (3, 4, 2, 2))
    return tuple(np.random.default_rng(n).normal(size=(n, 3)) for n in (4, 2, 2))


@pytest.mark.parametrize(("name", "total"), [("power", 2_049_280), ("gas", 1_052_065), ("miniboone", 36_488)], ids=str)
def test_tenths_give_the_sizes_of_the_literature(name, total):
    parts = tenths(np.arange(float(total)).reshape(-1, 1))
    assert tuple(len(part) for part in parts) == SIZES[name][1:]
    assert np.array_equal(np.concatenate(parts).ravel(), np.arange(total))


def test_standardising_makes_training_and_validation_rows_together_standard():
    generator = np.random.default_rng(0)
    parts = [generator.normal(3, 5, (n, 2)) for n in (50, 20, 10)]
    train, validation, test = standardised(*parts)
    known = np.concatenate([train, validation])
    np.testing.assert_allclose(known.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(known.std(0), 1)
    before = np.concatenate(parts[:2])
    np.testing.assert_allclose(test * before.std(0) + before.mean(0), parts[2])


def test_finished_parts_are_float32_tensors(sized):
    splits = finished("toy", sized, {"a": "b"})
    assert splits.sha256 == {"a": "b"}
    for part, rows in zip((splits.train, splits.validation, splits.test), sized, strict=True):
        assert part.dtype == torch.float32
        np.testing.assert_allclose(part.numpy(), rows, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_counted_in_one_line(sized, bad):
    sized[1][1, 2] = bad
    with pytest.raises(DataError, match="data set toy: 1 of 2 validation rows hold numbers that are not finite"):
        finished("toy", sized, {})


@pytest.mark.parametrize("cut", [lambda x: x[:-1], lambda x: x[:, :2]], ids=["rows", "columns"])
def test_another_shape_is_refused_in_one_line(sized, cut):
    with pytest.raises(DataError, match=r"data set toy has parts of shapes .*expected \[4, 2, 2\] rows of 3 columns"):
        finished("toy", (*sized[:2], cut(sized[2])), {})


@pytest.mark.parametrize("name", ["power", "miniboone_partial"])
def test_a_truncated_npz_names_its_file(name):
    (file,) = DATASETS[name].files
    raw = (EMBEDDED / file.path).read_bytes()[:5000]
    with pytest.raises(DataError, match=f"data file {file.path} can't be read as npz") as caught:
        parsed(file, raw, lambda content: np.load(content)["voltage_cV"])
    assert "\n" not in str(caught.value)


def test_a_parsers_own_words_become_one_line():
    def parse(content):
        raise ValueError("first\nsecond")

    with pytest.raises(DataError) as caught:
        parsed(DataFile("toy/a", None, None, "bytes", "ask"), b"", parse)
    assert str(caught.value) == "data file toy/a can't be read as bytes (ValueError: first)"
