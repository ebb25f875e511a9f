"""Checks of arguments name the argument and say what is allowed."""

import math

import pytest
import torch

from repro.checks import check_finite, check_name, check_positive_counts


def test_names():
    check_name("colour", "red", {"red": 1, "blue": 2})
    with pytest.raises(ValueError, match="colour must be one of: red, blue; got 'green'"):
        check_name("colour", "green", ("red", "blue"))


def test_counts():
    check_positive_counts(dim=1, width=2)
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        check_positive_counts(dim=1, width=0)


def test_finite_numbers():
    check_finite(torch.zeros(2), "z")
    with pytest.raises(ValueError, match=r"^z must be finite; 2 of its numbers are not"):
        check_finite(torch.tensor([1.0, math.nan, -math.inf]), "z")
