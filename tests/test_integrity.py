"""Hashes of a run's files: every change of the folder after the run is one sentence."""

import hashlib
import json

import pytest

from repro.integrity import hash_files, verify_files


@pytest.fixture
def folder(tmp_path):
    """A run's folder with a file in a subfolder, a record, and what an interrupted write leaves."""
    run = tmp_path / "run"
    (run / "deep").mkdir(parents=True)
    for name in ("rows.csv", "model.safetensors", "deep/arrays.npz", "run.json", ".hidden", "rows.csv.partial"):
        (run / name).write_bytes(name.encode())
    return run


def test_every_file_but_the_record_and_unfinished_ones_has_its_sha_256(folder):
    names = ["deep/arrays.npz", "model.safetensors", "rows.csv"]
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    assert hash_files(folder) == expected
    assert list(hash_files(folder)) == names, "sorted: the record is the same on every file system"


def test_an_untouched_folder_has_no_problem(folder):
    record = json.loads(json.dumps({"files": hash_files(folder)}))
    assert verify_files(folder, record) == []


def test_each_change_is_one_sentence_that_names_the_file(folder):
    record = {"files": hash_files(folder)}
    (folder / "deep" / "arrays.npz").unlink()
    (folder / "rows.csv").write_bytes(b"rows.csW")
    (folder / "extra.txt").write_text("")
    assert verify_files(folder, record) == [
        "deep/arrays.npz is missing",
        "extra.txt is not listed in run.json",
        "rows.csv was changed after the run",
    ]


@pytest.mark.parametrize(
    "record", [{"schema": 1}, {}, {"schema": 2, "files": None}, {"schema": 2, "files": ["rows.csv"]}]
)
def test_a_record_without_hashes_is_a_problem(folder, record):
    (problem,) = verify_files(folder, record)
    assert "lists no hashes" in problem


def test_a_file_that_cannot_be_read_is_a_problem_and_no_traceback(folder):
    record = {"files": hash_files(folder)}
    (folder / "rows.csv").unlink()
    (folder / "rows.csv").symlink_to("nowhere")
    (problem,) = verify_files(folder, record)
    assert "cannot be read" in problem
