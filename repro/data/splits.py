"""What loading a data set returns, and what the register of data sets knows about each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Int64, UInt8
from torch import Tensor

from repro.data.files import DataFile


@dataclass(frozen=True)
class Labelled:
    """Images with their labels; `len` counts images.

    Attributes:
        images: As in the source, not normalised: conversion to floats in [0, 1] belongs to training.
        labels: Class of each image.
    """

    images: UInt8[Tensor, "n height width"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """A data set in three parts.

    Attributes:
        train: What gradients see.
        validation: What chooses between models and stops training; empty if none was asked for.
        test: What is reported, and nothing else.
        sha256: SHA-256 of each source file by its relative path, for a run's record.
    """

    train: Labelled
    validation: Labelled
    test: Labelled
    sha256: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An entry of the register of data sets.

    Attributes:
        name: Its key in the register and its folder's name.
        load: Reads, verifies and splits it.
        files: All files that `load` reads.
        citation: Whom to cite.
        licence: Terms of use, one line; the folder's LICENSE.md says more.
    """

    name: str
    load: Callable[..., Splits]
    files: tuple[DataFile, ...]
    citation: str
    licence: str
