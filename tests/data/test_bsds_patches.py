"""BSDS300's patches from its photographs: as the literature has them, always the same, no photograph in two parts."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repro.data import DATASETS, DataError, bsds_patches
from repro.data.tabular import SIZES

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "bsds300" / "bsds300_images.tar"


def archive(path, counts=(200, 100), shape=(16, 24)):
    """An archive of the original's layout, whose photographs are of one grey each: 0 to 199, and 200 and more."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for part, n in zip(("train", "test"), counts, strict=True):
            for i in range(n):
                level = i if part == "train" else 200 + i // 2
                file = io.BytesIO()
                Image.fromarray(np.full((*shape, 3), level, np.uint8)).save(file, "JPEG", quality=100)
                member = tarfile.TarInfo(f"BSDS300/images/{part}/{1000 + i}.jpg")
                member.size = file.tell()
                file.seek(0)
                tar.addfile(member, file)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    monkeypatch.setitem(SIZES, "bsds300_patches", (63, 400, 40, 100))
    return tmp_path


def test_patches_are_windows_with_noise_of_one_grey_level_centred_and_one_pixel_short():
    ramp = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    drawn = bsds_patches.patches([ramp, ramp + 10], 500, np.random.default_rng(0))
    assert drawn.shape == (500, 63)
    whole = np.concatenate([drawn, -drawn.sum(1, keepdims=True)], 1).reshape(-1, 8, 8) * 256
    inner = np.add.outer(20 * np.arange(8), np.arange(8))
    noise = whole - (inner - inner.mean())
    assert np.abs(noise).max() < 1  # uniform in [0, 1), less its mean in the patch
    assert noise.std() == pytest.approx((63 / 64 / 12) ** 0.5, rel=0.02)


def test_every_photograph_and_every_place_is_drawn():
    """Each photograph is a ramp of its own slope with a bright spot: a patch tells which one it is and whence."""
    slopes, (height, width) = (1, 3, 5), (12, 17)
    photographs = []
    for slope in slopes:
        photograph = np.add.outer(slope * np.arange(height), np.zeros(width)).astype(np.uint8)
        photograph[0, 0] = 255
        photographs.append(photograph)
    drawn = bsds_patches.patches(photographs, 6_000, np.random.default_rng(1)) * 256
    whole = np.concatenate([drawn, -drawn.sum(1, keepdims=True)], 1).reshape(-1, 8, 8)
    found = np.rint(whole[:, 2:, 2:].mean(2) @ (np.arange(6) - 2.5) / 17.5).astype(int)
    assert [np.mean(found == slope) for slope in slopes] == pytest.approx([1 / 3] * 3, abs=0.03)
    spotted = whole[:, 0, 0] - whole[:, 0, 1] > 100
    assert np.mean(spotted) == pytest.approx(1 / ((height - 7) * (width - 7)), rel=0.35)


def test_no_photograph_is_in_two_parts_and_the_draw_is_the_same_each_time(folder, monkeypatch):
    archive(folder / "bsds300_patches" / "bsds300_images.tar")
    seen = []
    original = bsds_patches.patches
    monkeypatch.setattr(
        bsds_patches, "patches", lambda photos, n, stream: seen.append(photos) or original(photos, n, stream)
    )
    first, second = bsds_patches.load(), bsds_patches.load()
    levels = [{int(photo[0, 0]) for photo in part} for part in seen[:3]]
    assert [len(part) for part in seen[:3]] == [180, 20, 100]
    assert levels[0].isdisjoint(levels[1])
    assert levels[0] | levels[1] == set(range(200))
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert first.train.shape == (400, 63)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: archive(path, counts=(3, 2)), "3 photographs for training and 2 for testing"),
        (lambda path: (path.parent.mkdir(), path.write_bytes(b"no tar")), "can't be read as tar"),
    ],
)
def test_what_is_no_such_archive_is_refused_in_one_line(folder, spoil, said):
    spoil(folder / "bsds300_patches" / "bsds300_images.tar")
    with pytest.raises(DataError, match=said) as caught:
        bsds_patches.load()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason=f"the photographs are not at {os.path.relpath(ARCHIVE)}")
def test_a_gaussian_has_the_likelihood_of_the_literature(tmp_path, monkeypatch):
    """MAF's Table 1 has 96.67 ± 0.25 nats for its patches; these are others of the same photographs."""
    (tmp_path / "bsds300_patches").mkdir()
    (tmp_path / "bsds300_patches" / "bsds300_images.tar").symlink_to(ARCHIVE)
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    monkeypatch.setitem(SIZES, "bsds300_patches", (63, 200_000, 20_000, 100_000))
    splits = DATASETS["bsds300_patches"].load()
    train, test = splits.train.double(), splits.test.double()
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), torch.cov(train.T, correction=0))
    known = float(gaussian.log_prob(test).mean())
    assert known == pytest.approx(96.67, abs=0.75)
    # the photographs that validate are the smoother ones: why any model's validation looks better than its test
    assert float(gaussian.log_prob(splits.validation.double()).mean()) > known + 5
