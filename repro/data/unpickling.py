"""Read a pickled pandas table without trust in where it comes from: only the classes that a table is made of.

An ordinary unpickler imports and calls whatever a file names. This one looks every name up in a list before it imports
anything, and knows today's names of the modules of pandas before 0.20.
"""

import pickle
from io import BytesIO
from typing import Any

import pandas as pd
from pandas.compat import pickle_compat  # pyright: ignore[reportMissingImports] (not in the stubs)

_TABLE = {"pandas": ("DataFrame", "Index", "RangeIndex", "StringDtype"), "pandas.core.frame": ("DataFrame",)}
_BLOCKS = {
    "pandas.core.internals": ("BlockManager",),
    "pandas.core.internals.managers": ("BlockManager",),
    "pandas.core.internals.blocks": ("new_block",),
    "pandas._libs.internals": ("_unpickle_block",),
}
_INDEXES = {
    "pandas.core.indexes.base": ("Index", "_new_Index"),
    "pandas.core.indexes.range": ("RangeIndex",),
    "pandas.core.indexes.numeric": ("Float64Index", "Int64Index", "UInt64Index"),
}
_NAMES_OF_COLUMNS = {
    "pandas._libs.arrays": ("__pyx_unpickle_NDArrayBacked",),
    "pandas.arrays": ("ArrowStringArray", "StringArray"),
    "pandas.core.arrays.string_": ("StringArray", "StringDtype"),
    "pandas.core.arrays.string_arrow": ("ArrowStringArray",),
}
_ARRAYS = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
}
_PYTHON = {"builtins": ("object", "slice"), "copyreg": ("_reconstructor",), "_codecs": ("encode",)}
ADMITTED = frozenset(
    (module, name)
    for group in (_TABLE, _BLOCKS, _INDEXES, _NAMES_OF_COLUMNS, _ARRAYS, _PYTHON)
    for module, names in group.items()
    for name in names
)
"""Module and name of all that a pickle may name; none of it opens files, imports or runs what it is given."""
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "pandas.core.index": "pandas.core.indexes.base"}
"""Modules of Python 2 and of pandas before 0.17, by today's names."""
OLD_INDEXES = "pandas.indexes."
"""Package of the indexes before pandas 0.20."""


class _TableUnpickler(pickle_compat.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (whatever is admitted)
        module = RENAMED.get(module, module)
        if module.startswith(OLD_INDEXES):
            module = f"pandas.core.indexes.{module.removeprefix(OLD_INDEXES)}"
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table needs")
        return super().find_class(module, name)


def unpickle_table(file: BytesIO) -> pd.DataFrame:
    """Read a pickled table.

    Args:
        file: written by any version of pandas under Python 2 or 3.

    Raises:
        UnpicklingError: The file names something that no table is made of; nothing of it was imported or run.
        TypeError: It holds something else than a table.
    """
    table = _TableUnpickler(file, encoding="latin1").load()  # Python 2's strings are bytes
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"it holds a {type(table).__name__}")
    return table
