"""MNIST: the right images in the right split, and a parser that trusts nothing."""

import hashlib
import struct

import numpy as np
import pytest
import torch

from repro.data import DataError, mnist

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(scope="module")
def splits():
    return mnist.load()


@pytest.fixture(scope="module")
def public():
    """The public code's protocol: nothing held out."""
    return mnist.load(validation=False)


def counts(labels):
    return torch.bincount(labels, minlength=10).tolist()


def test_sizes_shapes_and_types(splits):
    for part, n in ((splits.train, 50_000), (splits.validation, 10_000), (splits.test, 10_000)):
        assert len(part) == n
        assert part.images.shape == (n, 28, 28)
        assert part.images.dtype == torch.uint8
        assert part.labels.shape == (n,)
        assert part.labels.dtype == torch.int64


def test_without_validation_all_training_images_keep_the_sources_order(public):
    assert (len(public.train), len(public.validation), len(public.test)) == (60_000, 0, 10_000)
    assert public.validation.images.shape == (0, 28, 28)
    assert public.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert public.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_label_counts_are_the_known_ones(splits, public):
    assert counts(public.train.labels) == TRAIN_COUNTS
    assert counts(public.test.labels) == counts(splits.test.labels) == TEST_COUNTS
    together = torch.cat([splits.train.labels, splits.validation.labels])
    assert counts(together) == TRAIN_COUNTS


def test_pixel_mean_and_deviation_are_the_known_ones(public):
    share = torch.bincount(public.train.images.flatten(), minlength=256).double() / (60_000 * 784)
    grey = torch.arange(256) / 255
    mean = (share * grey).sum()
    assert mean.item() == pytest.approx(0.13066, abs=5e-6)
    assert (share * (grey - mean) ** 2).sum().sqrt().item() == pytest.approx(0.30811, abs=5e-6)


def test_training_and_validation_are_disjoint_and_complete():
    train, validation = mnist.split_indices()
    assert (len(train), len(validation)) == (50_000, 10_000)
    assert not set(train) & set(validation)
    assert sorted([*train, *validation]) == list(range(60_000))


def test_images_and_labels_follow_the_split_together(splits, public):
    for part, rows in zip((splits.train, splits.validation), mnist.split_indices(), strict=True):
        assert torch.equal(part.images, public.train.images[rows])
        assert torch.equal(part.labels, public.train.labels[rows])


def test_validation_has_every_class_in_proportion(splits):
    share = torch.tensor(counts(splits.validation.labels)) / torch.tensor(TRAIN_COUNTS)
    assert ((share - 1 / 6).abs() < 0.02).all()


def test_the_split_never_changes(splits):
    # pinned, because results depend on it: a change here is a change of every result with a validation set
    rows = np.concatenate(mnist.split_indices()).astype("<i8")
    assert hashlib.sha256(rows.tobytes()).hexdigest() == (
        "34f17b0110191a789d267b2293b0a742478c50208d1c1c5504e94dad547907cb"
    )
    again = mnist.load()
    assert torch.equal(again.train.images, splits.train.images)
    assert torch.equal(again.validation.labels, splits.validation.labels)


def test_the_split_depends_on_no_global_seed():
    before = mnist.split_indices()
    np.random.seed(7)
    torch.manual_seed(7)
    assert all(map(np.array_equal, before, mnist.split_indices()))


def test_no_two_calls_share_memory():
    one, two = mnist.load(), mnist.load()
    one.train.images.zero_()
    assert two.train.images.any()


def idx(values, *, zeros=0, kind=8, axes=None, shape=None):
    shape = values.shape if shape is None else shape
    header = struct.pack(f">HBB{len(shape)}I", zeros, kind, len(shape) if axes is None else axes, *shape)
    return header + values.tobytes()


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_the_parser_inverts_the_format(shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    parsed = mnist.parse_idx(idx(values), shape)
    assert np.array_equal(parsed, values)
    assert parsed.dtype == np.uint8
    assert parsed.flags.writeable


VALUES = np.arange(6, dtype=np.uint8).reshape(2, 3)
FAULTS = {
    "leading zeros": (idx(VALUES, zeros=1), "magic"),
    "type of floats": (idx(VALUES, kind=0x0D), "magic"),
    "number of axes": (idx(VALUES, axes=3), "magic"),
    "other shape": (idx(VALUES.T), "shape"),
    "swapped bytes": (b"\0\0\x08\x02" + struct.pack("<2I", 2, 3) + VALUES.tobytes(), "shape"),
    "too short": (idx(VALUES)[:-1], "5 values, expected 6"),
    "too long": (idx(VALUES) + b"\0", "7 values, expected 6"),
    "cut in the header": (idx(VALUES)[:9], "header"),
    "cut in the magic number": (idx(VALUES)[:3], "magic"),
    "empty": (b"", "magic number is absent"),
}


@pytest.mark.parametrize(("raw", "complaint"), FAULTS.values(), ids=FAULTS)
def test_the_parser_rejects(raw, complaint):
    with pytest.raises(DataError, match=complaint):
        mnist.parse_idx(raw, (2, 3))
