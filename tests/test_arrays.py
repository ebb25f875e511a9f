"""Arrays come back as they were, the same arrays give the same bytes, and a damaged file is named."""

import json
import time

import numpy as np
import pytest

from repro.arrays import ARRAYS, ArraysError, load_arrays, save_arrays
from repro.results import Row, load, results_root, write_rows

ODD = {
    "float64": np.array([0.1, -0.0, 5e-324, np.inf, -np.inf, np.nan, 2.0**53 + 1]),
    "float16": np.linspace(-1, 1, 24, dtype=np.float16).reshape(2, 3, 4),
    "bytes": np.arange(256, dtype=np.uint8).reshape(16, 16),
    "truth": np.array([True, False]),
    "words": np.array(["target", "ours"]),
    "empty": np.zeros((0, 2)),
    "file": np.array(3),  # names that are also parameters of NumPy's own writer
    "allow_pickle": np.array(1.5),
}


def make_run(cell, arrays, *, source="runs", machine="m", seed=0, status="ok"):
    folder = results_root() / source / "a" / "b" / f"{cell}-d" / f"{machine}-seed{seed}"
    folder.mkdir(parents=True)
    write_rows(folder / "rows.csv", [Row("x", 1.0, "")])
    keys = {"experiment": "a/b", "cell": cell, "tier": "small", "seed": seed, "machine": machine, "threads": 1}
    (folder / "run.json").write_text(json.dumps(keys | {"digest": "d", "status": status}))
    if arrays is not None:
        save_arrays(folder / ARRAYS, arrays)
    return folder


def rows():
    return load(results_root() / "runs", results_root() / "local")


def mark(value):
    return {"mark": np.array(value)}


def test_arrays_come_back_with_every_bit():
    make_run("c", ODD)
    back = load_arrays(rows(), "a/b", "c")
    assert back is not None
    assert set(back) == set(ODD)
    for name, array in ODD.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_equal_arrays_give_equal_bytes_whenever_and_in_whatever_order_and_layout(tmp_path, monkeypatch):
    save_arrays(tmp_path / "one", ODD)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(2e9))
    turned = {name: np.array(ODD[name], order="F") for name in reversed(ODD)}
    save_arrays(tmp_path / "two", turned)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    save_arrays(tmp_path / "three", ODD | {"file": np.array(4)})
    assert (tmp_path / "one").read_bytes() != (tmp_path / "three").read_bytes()


def test_it_is_compressed(tmp_path):
    save_arrays(tmp_path / "a", {"flat": np.zeros((200, 200))})
    assert (tmp_path / "a").stat().st_size < 200 * 200 * 8 / 50


def test_objects_are_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a"
    save_arrays(path, mark(1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Object arrays"):
        save_arrays(path, {"objects": np.array([{}, []], dtype=object)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_smallest_seed_that_succeeded_on_the_first_machine_counts():
    make_run("c", mark(0), seed=0, status="diverged")
    make_run("c", mark(2), seed=2)
    make_run("c", mark(12), seed=10, machine="a")
    make_run("c", mark(11), seed=1, machine="z")
    make_run("c", mark(21), seed=1, machine="b")
    make_run("other", mark(99), seed=0)
    assert load_arrays(rows(), "a/b", "c") == mark(21)
    assert load_arrays(rows(), "a/b", "c", seed=2) == mark(2)
    assert load_arrays(rows(), "a/b", "c", seed=10) == mark(12)


def test_own_runs_are_read_from_their_own_root():
    make_run("c", mark(1), source="local")
    assert load_arrays(rows(), "a/b", "c") == mark(1)


def test_without_a_run_or_arrays_there_are_none():
    assert load_arrays(rows(), "a/b", "c") is None
    make_run("c", None)
    make_run("d", mark(1), status="diverged")
    found = rows()
    assert load_arrays(found, "a/b", "c") is None
    assert load_arrays(found, "a/b", "d") is None
    assert load_arrays(found, "a/b", "c", seed=5) is None
    assert load_arrays(found, "other", "c") is None


def test_no_damaged_byte_changes_an_array_unseen():
    noise = np.random.default_rng(0).standard_normal((5, 7))
    path = make_run("c", {"a": noise, "b": np.arange(9)}) / ARRAYS
    good, found, caught = path.read_bytes(), rows(), 0
    for position in range(0, len(good), 3):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        try:
            back = load_arrays(found, "a/b", "c")
        except ArraysError:
            caught += 1
            continue
        assert back is not None
        kept = {name: array for name, array in back.items() if name in ("a", "b")}  # else the name itself was hit
        assert all(np.array_equal(array, {"a": noise, "b": np.arange(9)}[name]) for name, array in kept.items())
    assert caught > 0.7 * len(good) / 3


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"", lambda data: b"text, not a zip\n" * 9])
def test_a_damaged_file_is_named_in_one_line(damage):
    path = make_run("c", mark(1)) / ARRAYS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArraysError) as caught:
        load_arrays(rows(), "a/b", "c")
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert "\n" not in str(caught.value)
