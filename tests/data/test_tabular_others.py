"""GAS, HEPMASS and BSDS300: the recipes on small files of the original formats; the originals were not to be had."""

import os
import pickle
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from repro.data import DataError
from repro.data import tabular_others as others
from repro.data.unpickling import unpickle_table


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in REPRO_DATA."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    for name in ("gas", "hepmass", "bsds300"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def gas():
    """A table whose column c repeats a, and e repeats b: the first of each pair goes."""
    columns = np.random.default_rng(0).normal(5, 2, (200, 3))
    a, b, d = columns.T
    table = pd.DataFrame({"Time": range(200), "Meth": 0.0, "Eth": 1.0, "a": a, "b": b, "c": 2 * a + 1, "d": d})
    return table.assign(e=b + 1e-3 * d)


def test_gas_loses_what_is_no_sensor_and_what_repeats_others(gas):
    rows = others.gas_rows(gas)
    kept = gas[["c", "d", "e"]]
    np.testing.assert_allclose(rows, ((kept - kept.mean()) / kept.std(ddof=1)).to_numpy())


def test_gas_of_another_size_is_refused_when_it_is_loaded(gas, folder):
    gas.to_pickle(folder / "gas" / "ethylene_CO.pickle")
    with pytest.raises(DataError, match=r"data set gas has parts of shapes \[\(162, 3\), \(18, 3\), \(20, 3\)\]"):
        others.load_gas()


def test_gas_without_its_columns_is_refused(gas):
    with pytest.raises(DataError, match="has no column Eth, Time"):
        others.gas_rows(gas.drop(columns=["Time", "Eth"]))


def test_a_truncated_pickle_is_named_in_one_line(gas, folder):
    (folder / "gas" / "ethylene_CO.pickle").write_bytes(pickle.dumps(gas)[:100])
    with pytest.raises(DataError, match=r"data file gas/ethylene_CO.pickle can't be read") as caught:
        others.load_gas()
    assert "\n" not in str(caught.value)


class Malicious:
    """What an ordinary unpickler would run."""

    def __reduce__(self):
        return os.system, ("touch planted",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_names_anything_else_runs_nothing_and_is_named_in_one_line(gas, folder, protocol, monkeypatch):
    monkeypatch.chdir(folder)
    poisoned = gas.astype(object)
    poisoned.iloc[0, 0] = Malicious()
    for content in (Malicious(), [Malicious()], poisoned, getattr, pd.read_pickle, np.load):
        (folder / "gas" / "ethylene_CO.pickle").write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(DataError, match=r"UnpicklingError: it names .*, which no table needs") as caught:
            others.load_gas()
        assert "\n" not in str(caught.value)
        assert not (folder / "planted").exists()


def test_a_name_with_a_dot_reaches_no_attribute():
    """Protocol 4 takes `DataFrame.to_csv` for an attribute of an admitted class."""
    named = b"\x80\x04\x8c\x06pandas\x8c\x10DataFrame.to_csv\x93."
    assert pickle.loads(named) is pd.DataFrame.to_csv
    with pytest.raises(pickle.UnpicklingError, match=r"it names pandas.DataFrame.to_csv"):
        unpickle_table(BytesIO(named))


@pytest.mark.parametrize("protocol", range(6))
def test_a_table_of_this_pandas_comes_back(gas, protocol):
    raw = pickle.dumps(gas, protocol=protocol)
    pd.testing.assert_frame_equal(unpickle_table(BytesIO(raw)), gas)


OLD_MODULES = {  # of pandas 0.19 and of Python 2
    b"pandas.core.indexes.base": b"pandas.indexes.base",
    b"pandas.core.indexes.range": b"pandas.indexes.range",
    b"pandas.core.internals.managers": b"pandas.core.internals",
    b"builtins": b"__builtin__",
    b"copyreg": b"copy_reg",
}


def test_a_table_of_pandas_before_0_20_comes_back(gas):
    """The same opcodes with the modules of then."""
    raw = pickle.dumps(gas.set_axis(pd.Index(list(gas.columns), dtype=object), axis=1), protocol=2)
    for new, old in OLD_MODULES.items():
        raw = raw.replace(b"c" + new + b"\n", b"c" + old + b"\n")
    assert b"pandas.indexes.base" in raw
    with pytest.raises(ModuleNotFoundError):
        pd.read_pickle(BytesIO(raw))
    np.testing.assert_array_equal(unpickle_table(BytesIO(raw)).to_numpy(float), gas.to_numpy(float))


@pytest.mark.parametrize("content", [[1, 2], {"Time": 0}, pd.DataFrame({"Time": [0], "Meth": 0, "Eth": 0, "a": "x"})])
def test_a_pickle_of_something_else_is_named_in_one_line(content, folder):
    (folder / "gas" / "ethylene_CO.pickle").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"data file gas/ethylene_CO.pickle can't be read") as caught:
        others.load_gas()
    assert "\n" not in str(caught.value)


@pytest.fixture
def hepmass():
    """Training and test table: label, three features of which the second has a floor, and a broken test column."""
    generator = np.random.default_rng(0)

    def table(n):
        values = generator.normal(size=(n, 3))
        values[:, 1] = np.maximum(values[:, 1], 0)
        return pd.DataFrame(values, columns=["f0", "f1", "f2"]).assign(label=generator.integers(0, 2, n))[
            ["label", "f0", "f1", "f2"]
        ]

    return table(100), table(60).assign(mass=0.5)


def test_hepmass_keeps_the_signal_and_drops_the_floor(hepmass):
    train, test = hepmass
    parts = others.hepmass_parts(train, test)
    signal = train[train["label"] == 1][["f0", "f2"]]
    expected = ((signal - signal.mean()) / signal.std(ddof=1)).to_numpy()
    n_validation = len(signal) // 10
    np.testing.assert_allclose(parts[0], expected[:-n_validation])
    np.testing.assert_allclose(parts[1], expected[-n_validation:])
    unseen = test[test["label"] == 1][["f0", "f2"]]
    np.testing.assert_allclose(parts[2], ((unseen - signal.mean()) / signal.std(ddof=1)).to_numpy())


def test_a_smallest_value_may_occur_five_times(hepmass):
    train, test = hepmass
    signal = train.index[train["label"] == 1]
    train["f1"] = np.random.default_rng(1).normal(size=len(train))
    train.loc[signal[:5], "f1"] = -9
    assert others.hepmass_parts(train, test)[0].shape[1] == 3
    train.loc[signal[5], "f1"] = -9
    assert others.hepmass_parts(train, test)[0].shape[1] == 2


def test_hepmass_is_read_from_two_csv_files(hepmass, folder):
    for table, name in zip(hepmass, ("1000_train.csv", "1000_test.csv"), strict=True):
        table.to_csv(folder / "hepmass" / name, index=False)
    with pytest.raises(DataError, match=r"data set hepmass has parts of shapes .* rows of 21 columns"):
        others.load_hepmass()
    (folder / "hepmass" / "1000_test.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"1000_test.csv can't be read as csv"):
        others.load_hepmass()


def test_a_word_among_hepmass_numbers_is_named_in_one_line(hepmass, folder):
    for table, name in zip(hepmass, ("1000_train.csv", "1000_test.csv"), strict=True):
        table.astype(object).replace(table.iloc[0, 1], "x").to_csv(folder / "hepmass" / name, index=False)
    with pytest.raises(DataError, match=r"1000_train.csv can't be read as csv .*'x'") as caught:
        others.load_hepmass()
    assert "\n" not in str(caught.value)


def test_hepmass_files_that_do_not_fit_together_are_refused(hepmass):
    train, test = hepmass
    with pytest.raises(DataError, match=r"3 columns in .*2 in"):
        others.hepmass_parts(train, test.drop(columns="f2"))


def test_bsds300_that_is_no_hdf5_is_named_in_one_line(folder):
    (folder / "bsds300" / "BSDS300.hdf5").write_bytes(b"no hdf5")
    with pytest.raises(DataError, match=r"data file bsds300/BSDS300.hdf5 can't be read") as caught:
        others.load_bsds300()
    assert "\n" not in str(caught.value)


def test_bsds300_is_read_as_stored(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "bsds300" / "BSDS300.hdf5", "w") as file:
        for name, n in (("train", 5), ("validation", 2), ("test", 3)):
            file[name] = np.zeros((n, 63))
    with pytest.raises(DataError, match=r"data set bsds300 has parts of shapes \[\(5, 63\), \(2, 63\), \(3, 63\)\]"):
        others.load_bsds300()
