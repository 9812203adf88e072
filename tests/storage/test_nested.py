"""Nested states come back from flat arrays, for keys of any text."""

import numpy as np

from repsim.storage import from_arrays, to_arrays


def test_keys_of_any_kind_come_back():
    names = ("__array__", "__array___", "values", "array0", "\udcff", "nul\0", "")
    state = {name: {"__array__": np.arange(3)} for name in names}
    for each in (state, {"__array__": {"__array__": np.arange(2)}}, {"__array__": "array0"}):
        back = from_arrays(to_arrays(each))
        np.testing.assert_equal(back, each)
