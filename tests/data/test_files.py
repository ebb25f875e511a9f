"""Data files: found, verified, and every fault named in one line."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from repro.data import DATASETS, DataError, DataFile, FileStatus, check, check_all, files, read_verified

ALL_FILES = [
    pytest.param(dataset, file, id=file.path) for dataset in DATASETS.values() for file in dataset.files if file.ships
]
CONTENT = b"not many bytes"
SMALL = DataFile("toy/small.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "bytes", "ask the author")


@pytest.fixture
def override(tmp_path, monkeypatch):
    """A folder named by REPRO_DATA."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    return tmp_path


def put(root: Path, file: DataFile, content: bytes) -> Path:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def broken(file: DataFile, fault: str) -> bytes:
    content = bytearray((files.EMBEDDED / file.path).read_bytes())
    match fault.split():
        case ["truncated"]:
            del content[len(content) // 2 :]
        case ["shortened"]:
            del content[-1]
        case ["empty"]:
            content.clear()
        case ["extended"]:
            content.append(0)
        case ["flipped", place]:
            content[int(float(place) * (len(content) - 1))] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    "fault",
    ["truncated", "shortened", "empty", "extended", *(f"flipped {place}" for place in (0, 0.001, 0.3, 0.7, 1))],
)
@pytest.mark.parametrize(("dataset", "file"), ALL_FILES)
def test_a_broken_file_is_named_in_one_clear_line(dataset, file, fault, override):
    content = broken(file, fault)
    path = put(override, file, content)
    with pytest.raises(DataError) as caught:
        read_verified(file)
    message = str(caught.value)
    assert "\n" not in message
    for part in (file.path, "corrupt", str(path), f"found {len(content)} bytes", hashlib.sha256(content).hexdigest()):
        assert part in message
    for part in (f"expected {file.size} bytes", file.sha256, file.how_to_get):
        assert part in message
    assert check(file).status == "corrupt"


@pytest.mark.parametrize(("dataset", "file"), ALL_FILES)
def test_a_broken_file_stops_the_load(dataset, file, override):
    put(override, file, broken(file, "flipped 0.5"))
    with pytest.raises(DataError, match=file.path):
        dataset.load()


@pytest.mark.parametrize(("dataset", "file"), ALL_FILES)
def test_a_file_missing_in_both_places_stops_the_load_with_one_clear_line(
    dataset, file, override, tmp_path_factory, monkeypatch
):
    empty = tmp_path_factory.mktemp("embedded")
    for other in [shipped for each in DATASETS.values() for shipped in each.files if shipped.ships]:
        if other != file:
            put(empty, other, (files.EMBEDDED / other.path).read_bytes())
    monkeypatch.setattr(files, "EMBEDDED", empty)
    with pytest.raises(DataError) as caught:
        dataset.load()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("missing", str(override / file.path), str(empty / file.path), file.sha256, file.how_to_get):
        assert part in message
    statuses = {entry.path: found.status for _, entry, found in check_all()}
    assert [path for path, status in statuses.items() if status not in ("ok", "absent")] == [file.path]


def test_check_all_finds_every_file_sound():
    report = check_all()
    assert {name for name, _, _ in report} == set(DATASETS)
    assert [file for _, file, _ in report] == [file for dataset in DATASETS.values() for file in dataset.files]
    assert all(found.status == ("ok" if file.ships else "absent") and found.sound for _, file, found in report)


def test_the_override_takes_precedence_and_the_embedded_file_fills_the_gaps(override, tmp_path_factory, monkeypatch):
    embedded = tmp_path_factory.mktemp("embedded")
    monkeypatch.setattr(files, "EMBEDDED", embedded)
    put(embedded, SMALL, CONTENT)
    assert check(SMALL) == FileStatus("ok", str(embedded / SMALL.path))
    put(override, SMALL, CONTENT)
    assert check(SMALL) == FileStatus("ok", str(override / SMALL.path))
    put(override, SMALL, b"wrong")
    assert check(SMALL).status == "corrupt"
    assert check(SMALL, root=embedded).status == "ok"


def test_no_override_or_an_empty_one_means_the_embedded_folder(monkeypatch):
    for setting in (None, ""):
        monkeypatch.delenv("REPRO_DATA", raising=False)
        if setting is not None:
            monkeypatch.setenv("REPRO_DATA", setting)
        assert files.search_path(SMALL) == (files.EMBEDDED / SMALL.path,)


def test_an_override_that_is_no_folder_is_named_instead_of_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "dta"))
    with pytest.raises(DataError, match=r"REPRO_DATA names .*dta, which is no folder"):
        DATASETS["power"].load()
    assert {found.status for _, _, found in check_all()} == {"missing"}


def test_a_folder_in_the_files_place_is_an_error_of_ours(tmp_path):
    (tmp_path / SMALL.path).mkdir(parents=True)
    assert check(SMALL, tmp_path).status == "corrupt"
    with pytest.raises(DataError, match="cannot be read"):
        read_verified(SMALL, tmp_path)


def test_a_file_in_the_folders_place_counts_as_missing(tmp_path):
    (tmp_path / "toy").write_bytes(CONTENT)
    assert check(SMALL, tmp_path).status == "missing"


def test_the_bytes_verified_are_the_bytes_returned(tmp_path, monkeypatch):
    # a file that changes after its first read must not matter: it is read once
    reads = []

    def read_once(path):
        reads.append(path)
        assert len(reads) == 1
        return CONTENT

    monkeypatch.setattr(Path, "read_bytes", read_once)
    assert read_verified(SMALL, tmp_path) == CONTENT


def test_right_size_alone_or_right_hash_alone_does_not_pass(tmp_path):
    put(tmp_path, SMALL, CONTENT)
    assert check(dataclasses.replace(SMALL, size=SMALL.size + 1), tmp_path).status == "corrupt"
    assert check(dataclasses.replace(SMALL, sha256="0" * 64), tmp_path).status == "corrupt"


EXTERNAL = DataFile("toy/large.bin", None, None, "bytes", "fetch it")


def test_a_file_that_does_not_ship_is_taken_from_the_override_as_it_is(override):
    assert check(EXTERNAL).status == "absent"
    path = put(override, EXTERNAL, CONTENT)
    assert check(EXTERNAL) == FileStatus("ok", str(path))
    assert read_verified(EXTERNAL) == CONTENT


def test_a_fetched_file_must_have_the_noted_hash():
    path = put(files.fetched_root(), EXTERNAL, CONTENT)
    files.note_of(path).write_text(hashlib.sha256(CONTENT).hexdigest() + "\n")
    assert read_verified(EXTERNAL) == CONTENT
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="corrupt"):
        read_verified(EXTERNAL)
