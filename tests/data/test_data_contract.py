"""What every data set of the register owes its users."""

import hashlib
import re
import subprocess
import sys

import pytest
import torch

from repro.data import DATASETS, DataError, Labelled, Splits, files, read_verified
from repro.data.fetch import MEMBERS
from repro.data.tabular import SIZES

every_dataset = pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
SHIPPED = {name: dataset for name, dataset in DATASETS.items() if all(file.ships for file in dataset.files)}
every_shipped = pytest.mark.parametrize("dataset", SHIPPED.values(), ids=SHIPPED)


@every_dataset
def test_it_is_registered_under_its_name_and_says_whom_to_cite_and_under_which_terms(dataset):
    assert DATASETS[dataset.name] is dataset
    assert dataset.citation
    assert dataset.licence
    assert "\n" not in dataset.citation + dataset.licence


@every_dataset
def test_its_files_are_described(dataset):
    assert dataset.files
    assert len({file.path for file in dataset.files}) == len(dataset.files)
    for file in dataset.files:
        assert file.path.startswith(f"{dataset.name}/")
        if file.ships:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.size > 0
        else:
            assert "REPRO_DATA" in file.how_to_get
            assert (f"data fetch {dataset.name}" in file.how_to_get) == (dataset.name in MEMBERS)
        assert file.contents
        assert file.how_to_get
        assert "\n" not in file.how_to_get


@every_shipped
def test_what_ships_has_a_licence_note_that_lists_each_file_with_its_md5(dataset):
    note = (files.EMBEDDED / dataset.name / "LICENSE.md").read_text(encoding="utf-8")
    for file in dataset.files:
        assert file.path.split("/")[-1] in note
        assert hashlib.md5(read_verified(file)).hexdigest() in note


@every_shipped
def test_it_loads_with_verified_hashes(dataset):
    splits = dataset.load()
    assert isinstance(splits, Splits)
    assert splits.sha256 == {file.path: file.sha256 for file in dataset.files}
    for part in (splits.train, splits.validation, splits.test):
        assert len(part) > 0
        if isinstance(part, Labelled):
            assert len(part) == len(part.images) == len(part.labels)
        else:
            assert part.dtype == torch.float32
            assert part.shape[1] == SIZES[dataset.name][0]


def test_the_sets_of_the_literature_have_sizes_and_a_source():
    assert set(SIZES) <= set(DATASETS)
    assert set(MEMBERS) <= set(SIZES)


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - SHIPPED.keys()))
def test_a_set_that_does_not_ship_says_so_in_one_line(name):
    with pytest.raises(DataError, match="absent") as caught:
        DATASETS[name].load()
    assert "\n" not in str(caught.value)


def test_importing_reads_no_data():
    program = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import repro.data\n"
        "assert not [path for path in opened if 'embedded' in path]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
