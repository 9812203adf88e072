"""The run folder: what is saved comes back, and what is not whole is refused."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import xarray as xr

from plot import results as made
from report.pages import HOSTILE, compared
from repsim import InputError, StateError
from repsim.report import load_results, save_result

RESULTS = {
    "compare": compared(),
    "attention": made.attention(),
    "subsets": made.subsets(),
    "fields": made.fields(),
    "ratios": made.ratios(),
    "localisation": made.localized(),
    "probes": made.probes(single=3),
    "scales": made.scales(),
}

ATTRIBUTES = {
    "text": "a name",
    "empty": "",
    "lines": "two\nlines, é, 猫, \t",
    "integer": 7,
    "beyond 32 bits": 2**40,
    "negative": -(2**31),
    "real": 0.1,
    "nan": float("nan"),
    "infinite": float("-inf"),
    "yes": True,
    "none": None,
    "list": ["norm", "head"],
    "nothing": [],
    "tuple": (14, 14),
    "nested": {"a": [1, (2.5, None)], "b": {}},
    "numpy scalar": np.float32(0.1),
    "numpy integer": np.int64(2**60),
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    # Names that the format, SciPy or xarray would take for their own.
    "mode": "rademacher",
    "units": "days since the start",
    "_FillValue": 3,
    "dtype": "bool",
    "scale_factor": 2.0,
    "coordinates": "layer",
    "calendar": "x",
    "variables": "x",
    "0 a/b": "c",
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_every_result_comes_back_as_it_was_in_the_order_saved(tmp_path):
    for name, result in reversed(RESULTS.items()):
        save_result(tmp_path, name, result)
    back = load_results(tmp_path)
    assert list(back) == list(reversed(RESULTS))
    for name, result in RESULTS.items():
        xr.testing.assert_identical(back[name], result)
        for key, variable in result.variables.items():
            if variable.dtype.kind != "U":  # text comes back as text of any length
                assert back[name][key].dtype == variable.dtype, key


@pytest.mark.parametrize("key", ATTRIBUTES)
def test_attributes_of_any_kind_come_back(tmp_path, key):
    value = ATTRIBUTES[key]
    result = xr.Dataset({"x": ("k", [1.0, 2.0], {key: value})}, attrs={key: value, "last": 1})
    save_result(tmp_path, "result", result)
    back = load_results(tmp_path)["result"]
    assert list(back.attrs) == [key, "last"]
    assert list(back.x.attrs) == [key]
    assert same(back.attrs[key], value)
    assert same(back.x.attrs[key], value)


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False]),
        np.array([1, -(2**31)], dtype=np.int64),
        np.array([1, 255], dtype=np.uint8),
        np.array([0.1, np.nan], dtype=np.float32),
        np.array([0.5, np.inf], dtype=np.float16),
        np.array(["", "é\n"], dtype=object),
        np.array(["", ""], dtype=object),
        np.array([0.1, 0.2], dtype=">f8"),
    ],
)
def test_values_keep_their_dtype(tmp_path, values):
    save_result(tmp_path, "result", xr.Dataset({"x": ("k", values)}))
    back = load_results(tmp_path)["result"].x
    assert back.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back.values, values)


def test_other_programs_read_the_file(tmp_path):
    path = save_result(tmp_path, "result", compared())
    with xr.open_dataset(path, engine="scipy") as file:
        np.testing.assert_array_equal(file.cka, compared().cka)
        assert file.layer_x.values.tolist() == compared().layer_x.values.tolist()
        assert file.attrs["kernel"] == "Linear()"
        assert file.attrs["n_samples"] == 2048


@pytest.mark.parametrize(
    "name", ["ViT with CNN", "a/b\\c", "..", ".hidden", "é猫", "a%2Fb", HOSTILE, "CON", "x" * 150]
)
def test_any_name_is_a_file_of_the_folder(tmp_path, name):
    folder = tmp_path / "run"
    path = save_result(folder, name, compared(2, 2))
    assert path.parent == folder
    assert [path] == list(folder.iterdir())
    assert list(load_results(folder)) == [name]
    assert save_result(folder, "a b", compared(2, 2)) != path
    assert len(load_results(folder)) == 2


def test_a_result_saved_again_replaces_and_is_last(tmp_path):
    save_result(tmp_path, "a", compared(2, 2))
    save_result(tmp_path, "b", compared(2, 2))
    save_result(tmp_path, "a", compared(3, 2))
    back = load_results(tmp_path)
    assert list(back) == ["b", "a"]
    assert back["a"].cka.shape == (3, 2)


def test_an_array_is_a_dataset_of_one_variable(tmp_path):
    array = compared().cka
    save_result(tmp_path, "named", array)
    save_result(tmp_path, "unnamed", array.rename(None))
    back = load_results(tmp_path)
    xr.testing.assert_identical(back["named"].cka, array)
    xr.testing.assert_identical(back["unnamed"].value.rename(None), array.rename(None))


def test_a_failure_leaves_what_was_saved(tmp_path, monkeypatch):
    save_result(tmp_path, "result", compared(2, 2))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_result(tmp_path, "result", compared(3, 3))
    assert load_results(tmp_path)["result"].cka.shape == (2, 2)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_files_are_passed_over(tmp_path):
    save_result(tmp_path, "result", compared(2, 2))
    (tmp_path / "report.html").write_text("page")
    (tmp_path / "folder").mkdir()
    assert list(load_results(tmp_path)) == ["result"]


def test_no_folder_and_an_empty_one(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        load_results(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there is no result in the folder"):
        load_results(tmp_path)


def test_foreign_and_damaged_files_are_refused_by_name(tmp_path):
    whole = save_result(tmp_path, "whole", compared(6, 5))
    data = whole.read_bytes()
    compared(2, 2).to_netcdf(tmp_path / "foreign.nc", engine="scipy")
    with pytest.raises(StateError, match=r"foreign\.nc is not written by save_result"):
        load_results(tmp_path)
    (tmp_path / "foreign.nc").write_text("no NetCDF")
    with pytest.raises(StateError, match=r"foreign\.nc is damaged, or no NetCDF-3 file"):
        load_results(tmp_path)
    (tmp_path / "foreign.nc").unlink()
    for cut in (0, 3, len(data) // 3, len(data) - 8):
        whole.write_bytes(data[:cut])
        with pytest.raises(StateError, match=r"whole\.nc is damaged"):
            load_results(tmp_path)
    for flipped in (len(data) - 20, len(data) // 2):
        whole.write_bytes(data[:flipped] + bytes([data[flipped] ^ 1]) + data[flipped + 1 :])
        with pytest.raises(StateError, match=r"whole\.nc"):
            load_results(tmp_path)


@pytest.mark.parametrize(
    ("result", "match"),
    [
        (np.zeros(3), "must be an xarray.Dataset or DataArray"),
        (xr.Dataset({"x": ("k", [2**40])}), "integers beyond 32 bits"),
        (xr.Dataset({"x": ("k", [1j])}), "complex128"),
        (xr.Dataset({"x": ("k", [None, "a"])}), "object"),
        (xr.Dataset({"x": ("k", np.array(["2020-01-01"], "M8[ns]"))}), "datetime64"),
        (xr.Dataset(attrs={"model": object()}), "attribute 'model' of 'it'"),
    ],
)
def test_what_a_file_cannot_hold_is_said(tmp_path, result, match):
    with pytest.raises(InputError, match=match):
        save_result(tmp_path, "it", result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "  ", 3, "x" * 300])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(InputError, match="name"):
        save_result(tmp_path, name, compared(2, 2))


def test_order_does_not_follow_the_clock_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    save_result(tmp_path, "b", compared(2, 2))
    save_result(tmp_path, "a", compared(2, 2))
    assert sorted(load_results(tmp_path)) == ["a", "b"]
