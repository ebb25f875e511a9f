"""What loading a data set returns, and what the register of data sets knows about each."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jaxtyping import Float, Int64, UInt8
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


Table = Float[Tensor, "_ _"]
"""Rows of numbers, standardised."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class Splits(Generic[Part]):
    """A data set in three parts of one kind: `Labelled` images, or tables.

    Attributes:
        train: What gradients see.
        validation: What chooses between models and stops training; empty if none was asked for.
        test: What is reported, and nothing else.
        sha256: SHA-256 of each source file by its relative path, for a run's record.
    """

    train: Part
    validation: Part
    test: Part
    sha256: Mapping[str, str]


def hashes(files: Sequence[DataFile], *raw: bytes) -> dict[str, str]:
    """SHA-256 of files by path: the known ones of files that ship, those of the bytes read of others.

    Args:
        files: all that were read.
        raw: what was read of each, in their order; not needed where all of them ship.
    """
    found = raw or [b""] * len(files)
    pairs = zip(files, found, strict=True)
    return {file.path: file.sha256 or hashlib.sha256(content).hexdigest() for file, content in pairs}


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
    load: Callable[..., Splits[Any]]
    files: tuple[DataFile, ...]
    citation: str
    licence: str
