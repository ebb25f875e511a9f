"""Per-point files: what was saved is read back, in order, from a run's folder, and equal results give equal bytes."""

import numpy as np
import pytest
import torch

from repro.arrays import ArraysError
from repro.per_point import (
    MAX_POINTS,
    PER_POINT,
    load_correct,
    load_log_density,
    load_log_ratio,
    save_correct,
    save_log_density,
    save_log_ratio,
)


@pytest.mark.parametrize("n", [1, 7, 8, 10_001])
def test_correct_images_are_read_back_in_order(tmp_path, n):
    correct = torch.rand(n, generator=torch.Generator().manual_seed(0)) < 0.9
    save_correct(tmp_path, correct)
    found = load_correct(tmp_path)
    assert found.dtype == bool
    assert found.tolist() == correct.tolist()
    with np.load(tmp_path / PER_POINT) as arrays:
        assert set(arrays.files) == {"correct", "n"}
        assert arrays["correct"].dtype == np.uint8
        assert len(arrays["correct"]) == -(-n // 8), "a bit per image"


@pytest.mark.parametrize(("save", "load"), [(save_log_density, load_log_density), (save_log_ratio, load_log_ratio)])
def test_the_first_values_are_read_back_to_half_precision(tmp_path, save, load):
    values = torch.linspace(-3, 2, MAX_POINTS + 3, dtype=torch.float64)
    save(tmp_path, values)
    found = load(tmp_path)
    assert (found.dtype, found.shape) == (np.float16, (MAX_POINTS,))
    np.testing.assert_allclose(found.astype(float), values[:MAX_POINTS].numpy(), rtol=5e-4, atol=1e-7)


def test_values_beyond_half_precision_become_infinite(tmp_path):
    save_log_density(tmp_path, torch.tensor([-1e6, torch.nan, 1.0]))
    np.testing.assert_array_equal(load_log_density(tmp_path), [-np.inf, np.nan, 1.0])


def test_equal_results_give_equal_bytes(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        save_correct(tmp_path / name, torch.arange(100) % 3 > 0)
    assert (tmp_path / "a" / PER_POINT).read_bytes() == (tmp_path / "b" / PER_POINT).read_bytes()


def test_a_file_of_another_kind_a_damaged_one_and_none_are_named(tmp_path):
    with pytest.raises(OSError, match=PER_POINT):
        load_correct(tmp_path)
    save_log_ratio(tmp_path, torch.zeros(3))
    for load in (load_correct, load_log_density):
        with pytest.raises(ArraysError, match=rf"{PER_POINT} holds log_ratio, no "):
            load(tmp_path)
    (tmp_path / PER_POINT).write_bytes(b"PK")
    with pytest.raises(ArraysError, match="is damaged"):
        load_log_ratio(tmp_path)
