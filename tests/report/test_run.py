"""The run folder: saved results come back, and damaged files are refused."""

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
    "influences": made.influences(),
    "localisation": made.localized(),
    "probes": made.probes(single=3),
    "scales": made.scales(),
}

ATTRIBUTES = {
    "text": "a name",
    "empty": "",
    "lines": "two\nlines, é, 猫, \t",
    "integer": 7,
    "negative": -(2**31),
    "real_number": 0.1,
    "nan": float("nan"),
    "infinite": float("-inf"),
    "numbers": [14, 14],
    "reals": [0.5, 2.0],
    "nothing": [],
    # Names that xarray could follow.
    "units": "days since the start",
    "dtype": "x",
    "calendar": "x",
}

OF_NO_ATTRIBUTE = (
    2**40,
    True,
    None,
    ["norm", "head"],
    {"a": [1, (2.5, None)], "b": {}},
    np.arange(6).reshape(2, 3),
)

TAKEN = (
    ("result", "variables", "x"),  # by SciPy
    ("result", "coordinates", "layer"),  # by xarray, as are the next three
    ("variable", "coordinates", "layer"),
    ("variable", "_FillValue", 3),
    ("variable", "scale_factor", 2.0),
    ("result", "0 a/b", "c"),
)
"""Names of attributes that would be followed, or lost."""


def test_every_result_comes_back_unchanged_in_the_order_saved(tmp_path):
    for name, result in reversed(RESULTS.items()):
        save_result(tmp_path, name, result)
    back = load_results(tmp_path)
    assert list(back) == list(reversed(RESULTS))
    for name, result in RESULTS.items():
        xr.testing.assert_identical(back[name], result)
        for key, variable in result.variables.items():
            if variable.dtype.kind != "U":  # text comes back as text of any length
                assert back[name][key].dtype == variable.dtype, key


def test_attributes_come_back_with_their_types_and_in_their_order(tmp_path):
    result = xr.Dataset({"x": ("k", [1.0, 2.0], ATTRIBUTES)}, attrs=ATTRIBUTES)
    save_result(tmp_path, "result", result)
    back = load_results(tmp_path)["result"]
    xr.testing.assert_identical(back, result)
    for attrs in (back.attrs, back.x.attrs):
        assert list(attrs) == list(ATTRIBUTES)
        assert list(map(type, attrs.values())) == list(map(type, ATTRIBUTES.values()))


def test_attributes_that_would_come_back_changed_are_refused(tmp_path):
    values = [(place, "key", x) for place in ("result", "variable") for x in OF_NO_ATTRIBUTE]
    for place, key, value in (*values, *TAKEN):
        result = xr.Dataset({"x": ("k", [1.0, 2.0])})
        (result if place == "result" else result.x).attrs[key] = value
        with pytest.raises(InputError, match="cannot be kept in a NetCDF file"):
            save_result(tmp_path, "result", result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([True, False]), bool),
        (np.array([1, -(2**31)], dtype=np.int64), np.int64),
        (np.array([1, 127], dtype=np.uint8), np.int8),
        (np.array([0.1, np.nan], dtype=np.float32), np.float32),
        (np.array(["", "é\n"], dtype=object), object),
        (np.array(["", ""], dtype=object), object),
        (np.array([0.1, 0.2], dtype=">f8"), np.float64),
    ],
)
def test_values_come_back(tmp_path, values, dtype):
    save_result(tmp_path, "result", xr.Dataset({"x": ("k", values)}))
    back = load_results(tmp_path)["result"].x
    assert back.dtype == dtype
    np.testing.assert_array_equal(back.values, values)


def test_text_that_netcdf_lacks_comes_back(tmp_path):
    names = np.array(["\udcff", "nul\0", "a\0b", "repsim.escaped:", "line\nline", ""], dtype=object)
    result = xr.Dataset({"x": ("layer", np.arange(6.0))}, {"layer": names})
    result.attrs = {"model": "net\0", "dataset": "\ud800 ok"}
    result.x.attrs = {"long_name": 'repsim.escaped:"a'}
    path = save_result(tmp_path, "result", result)
    xr.testing.assert_identical(load_results(tmp_path)["result"], result)
    with xr.open_dataset(path, engine="scipy") as file:
        assert file.layer.values[1:4:2].tolist() == [
            'repsim.escaped:"nul\\u0000"',
            'repsim.escaped:"repsim.escaped:"',
        ]


def test_other_programs_read_the_file(tmp_path):
    path = save_result(tmp_path, "result", compared())
    with xr.open_dataset(path, engine="scipy") as file:
        np.testing.assert_array_equal(file.cka, compared().cka)
        assert file.layer_x.values.tolist() == compared().layer_x.values.tolist()
        assert file.attrs["kernel"] == "Linear()"
        assert file.attrs["n_samples"] == 2048


@pytest.mark.parametrize(
    "name",
    [
        "ViT with CNN",
        "a/b\\c",
        "..",
        ".hidden",
        "é猫",
        "a%2Fb",
        HOSTILE,
        "CON",
        "x" * 150,
        "\udcff",
    ],
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


def test_a_failure_leaves_saved_results_intact(tmp_path, monkeypatch):
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


@pytest.mark.slow
def test_a_file_with_any_byte_changed_is_refused(tmp_path):
    result = compared(3, 2)
    path = save_result(tmp_path, "whole", result)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    # Every byte: of the header, of names, attributes and values, of the padding, of the checksum.
    for at, change in enumerate(rng.integers(1, 256, len(data))):
        path.write_bytes(data[:at] + bytes([data[at] ^ int(change)]) + data[at + 1 :])
        with pytest.raises(StateError, match=r"whole\.nc is changed since it was saved"):
            load_results(tmp_path)
    for changed in (data[:-1], data[: len(data) // 2], data + b"\0"):
        path.write_bytes(changed)
        with pytest.raises(StateError, match=r"whole\.nc is changed since it was saved"):
            load_results(tmp_path)
    path.write_bytes(data)
    xr.testing.assert_identical(load_results(tmp_path)["whole"], result)


def test_files_of_other_writers_open_too(tmp_path):
    ours, other = compared(3, 2), compared(2, 4, seed=1)
    save_result(tmp_path, "ours", ours)
    other.to_netcdf(tmp_path / "an other.nc", engine="scipy")
    back = load_results(tmp_path)
    assert list(back) == ["ours", "an other"]
    xr.testing.assert_identical(back["an other"], other)
    # What xarray has read of ours, with the checksum among its attributes, can be saved anew.
    save_result(tmp_path, "ours", xr.load_dataset(tmp_path / "ours.nc", engine="scipy"))
    xr.testing.assert_identical(load_results(tmp_path)["ours"], ours)


def test_files_that_are_not_netcdf_are_refused_by_name(tmp_path):
    for content in (b"", b"no NetCDF", b"CDF\x01 and no more"):
        (tmp_path / "foreign.nc").write_bytes(content)
        with pytest.raises(StateError, match=r"foreign\.nc is damaged, or not a NetCDF file"):
            load_results(tmp_path)


def test_too_little_memory_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise MemoryError("no room")

    save_result(tmp_path, "ours", compared(3, 2))
    monkeypatch.setattr(xr, "open_dataset", full)
    for call in (lambda: load_results(tmp_path), lambda: save_result(tmp_path, "b", compared())):
        with pytest.raises(MemoryError, match="no room"):
            call()


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
def test_attributes_that_a_file_cannot_hold_are_reported(tmp_path, result, match):
    with pytest.raises(InputError, match=match):
        save_result(tmp_path, "it", result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "  ", 3, "x" * 300])
def test_invalid_names_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="name"):
        save_result(tmp_path, name, compared(2, 2))


def test_order_does_not_follow_the_clock_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    save_result(tmp_path, "b", compared(2, 2))
    save_result(tmp_path, "a", compared(2, 2))
    assert sorted(load_results(tmp_path)) == ["a", "b"]
