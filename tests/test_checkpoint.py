"""Checkpoints: the whole old state or the whole new one, and no damaged file is taken for a good one."""

import json
import os
import random

import pytest
import torch
from safetensors.torch import save

from repro.checkpoint import CheckpointError, load_tensors, save_tensors
from repro.durability import write_atomically

TENSORS = {
    "weight": torch.arange(12, dtype=torch.float32).reshape(3, 4).t(),  # not contiguous
    "half": torch.tensor([0.1, float("nan"), float("inf")], dtype=torch.bfloat16),
    "double": torch.tensor(1 / 3, dtype=torch.float64),  # no axes
    "flags": torch.tensor([True, False]),
    "stream": torch.Generator().manual_seed(1).get_state(),
    "empty": torch.zeros(0, 3),
}
VALUES = {"step": 3, "seconds": 0.1 + 0.2, "none": None, "nan": float("nan"), "rows": [["a", 5e-324, "%", None]]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_tensors(path, TENSORS, VALUES)
    return path


def test_tensors_and_values_come_back_bit_for_bit(path):
    tensors, values = load_tensors(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        raw = (t.contiguous().reshape(-1).view(torch.uint8) for t in (tensors[name], tensor))
        assert torch.equal(*raw)
    assert repr(values) == repr(VALUES)


def test_a_failing_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device.*checkpoint\.safetensors"):
        save_tensors(path, {"other": torch.ones(3)}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path], "no half-written file stays behind"


def test_several_that_write_at_once_do_not_meet(path):
    """Each has a file of its own beside it; what is there in the end is one of them, whole."""
    contents = [bytes([n]) * 2**20 for n in range(8)]
    children = []
    for content in contents:
        children.append(os.fork())
        if not children[-1]:
            try:
                for _ in range(5):
                    write_atomically(path, content)
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_is_deleted_and_what_a_running_one_writes_is_not(path):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    dead = path.with_name(f"{path.name}.{child}-00000000.partial")
    alive = path.with_name(f"{path.name}.{os.getpid()}-00000000.partial")
    for partial in (dead, alive):
        partial.write_bytes(b"half")
    write_atomically(path, b"new")
    assert sorted(path.parent.iterdir()) == sorted([path, alive])


def test_a_leftover_of_a_killed_write_is_ignored_and_overwritten(path):
    leftover = path.with_name(path.name + ".partial")
    leftover.write_bytes(b"half a fi")
    assert load_tensors(path)[1]["step"] == 3
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert not leftover.exists()


def test_every_flipped_bit_and_every_cut_is_noticed_in_one_line_that_names_the_file(path):
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    draw = random.Random(0)
    flips = [*draw.sample(range(header), 150), *draw.sample(range(header, len(whole)), 100)]
    damaged = [whole[:i] + bytes([whole[i] ^ (1 << draw.randrange(8))]) + whole[i + 1 :] for i in flips]
    damaged += [whole[:n] for n in (0, 1, 7, 8, header - 1, header, len(whole) - 1)]
    complaints = []
    for raw in damaged:
        path.write_bytes(raw)
        try:
            tensors, values = load_tensors(path)
        except CheckpointError as error:
            complaints.append(str(error))
        else:  # a flip in padding changes nothing that is read
            assert repr(values) == repr(VALUES)
            assert tensors.keys() == TENSORS.keys()
            assert all(torch.equal(tensors[name].view(torch.uint8), TENSORS[name].contiguous().view(torch.uint8))
                       for name in ("weight", "stream"))  # fmt: skip
    assert len(complaints) > len(damaged) - 20
    for complaint in complaints:
        assert complaint.startswith(f"{path} is damaged")
        assert "\n" not in complaint


def test_a_file_of_another_kind_is_refused(path):
    path.write_bytes(save({"a": torch.ones(2)}))
    with pytest.raises(CheckpointError):
        load_tensors(path)


def test_a_file_without_a_hash_is_read(path):
    """Weights that were published before there was one."""
    path.write_bytes(save({"a": torch.ones(2)}, metadata={"repro": json.dumps({"model": "mlp"})}))
    tensors, values = load_tensors(path)
    assert torch.equal(tensors["a"], torch.ones(2))
    assert values == {"model": "mlp"}
