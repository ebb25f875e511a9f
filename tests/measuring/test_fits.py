"""Slopes and exponents are found, with intervals that cover them."""

import numpy as np
import pytest

from repro.measuring.fits import deviation_interval, exponent, slope


def test_exact_laws_have_no_width():
    x = [1.0, 2.0, 4.0, 8.0]
    line, power = slope(x, [3 + 2 * value for value in x]), exponent(x, [5 * value**1.5 for value in x])
    assert (line.value, line.intercept) == pytest.approx((2, 3))
    assert (power.low, power.value, power.high) == pytest.approx((1.5, 1.5, 1.5))
    assert str(power) == "1.50 [1.50, 1.50]"


def test_intervals_cover_the_truth_in_95_of_100():
    stream = np.random.default_rng(0)
    x = np.arange(1.0, 7.0)
    fits = [slope(x.tolist(), (2 * x + stream.normal(size=6)).tolist()) for _ in range(2000)]
    assert np.mean([fit.low <= 2 <= fit.high for fit in fits]) == pytest.approx(0.95, abs=0.02)


def test_intervals_of_a_deviation_cover_the_truth_in_95_of_100():
    draws = np.random.default_rng(1).normal(scale=3, size=(2000, 20))
    ends = [deviation_interval(float(row.std(ddof=1)), 20) for row in draws]
    assert np.mean([low <= 3 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.02)
    with pytest.raises(ValueError, match="at least 2 draws; got 1"):
        deviation_interval(1.0, 1)


def test_what_cannot_be_fitted_is_named():
    with pytest.raises(ValueError, match="at least 3 points; got 2"):
        slope([1, 2], [1, 2])
    with pytest.raises(ValueError, match="positive"):
        exponent([1, 2, 3], [1, 0, 2])
