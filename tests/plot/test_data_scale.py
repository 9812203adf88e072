from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from plot.results import scales
from repsim.plot import data_scale


def key(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def extent_at(band, x):
    vertices = band.get_paths()[0].vertices
    at = vertices[vertices[:, 0] == x, 1]
    return at.min(), at.max()


def test_lines():
    result = scales()
    ax = data_scale(result)
    expected = np.concatenate([result["cka"].values, result["control_cka"].values])
    for line, values in zip(ax.lines, expected, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([np.arange(12), values]))
    assert [line.get_linestyle() for line in ax.lines] == ["-"] * 3 + ["--"] * 2
    assert key(ax) == [
        "3 % of the data",
        "10 % of the data",
        "30 % of the data",
        "other seed",
        "untrained",
    ]
    assert len({str(line.get_color()) for line in ax.lines}) == 5
    assert len({line.get_marker() for line in ax.lines[2:]}) == 3  # in print


def test_bands_are_one_standard_error_to_each_side():
    result = scales()
    bands = data_scale(result).collections
    assert len(bands) == 3
    for band, values in zip(bands, result["cka"].values, strict=True):
        assert extent_at(band, 5) == pytest.approx((values[5] - 0.02, values[5] + 0.02))


def test_bands_of_controls():
    result = scales()
    result["control_standard_error"] = 0 * result["control_cka"] + 0.05
    bands = data_scale(result).collections
    assert len(bands) == 5
    value = result["control_cka"].values[1, 3]
    assert extent_at(bands[4], 3) == pytest.approx((value - 0.05, value + 0.05))


def test_without_errors():
    assert not data_scale(scales().drop_vars("standard_error")).collections
    unknown = scales()
    unknown["standard_error"][:] = np.nan
    assert not data_scale(unknown).collections


@pytest.mark.parametrize("how", ["dropped", "empty"])
def test_without_controls(how):
    result = scales()
    result = result.drop_dims("control") if how == "dropped" else result.isel(control=[])
    assert len(data_scale(result).lines) == 3


def test_undefined_values_are_gaps():
    result = scales()
    result["cka"][1, 4] = np.nan
    line = data_scale(result).lines[1]
    assert np.flatnonzero(np.isnan(line.get_ydata())).tolist() == [4]


def test_negative_values_are_in_view():
    assert data_scale(scales()).get_ylim()[0] == 0
    result = scales()
    result["control_cka"][1, 4] = -0.2
    assert data_scale(result).get_ylim()[0] < -0.2


def test_parts_may_be_named():
    result = scales().assign_coords(fraction=["tenth", "third", "half"])
    assert key(data_scale(result))[:3] == ["tenth", "third", "half"]
    assert key(data_scale(scales(fractions=(0.005,))))[0] == "0.5 % of the data"


@pytest.mark.parametrize("layers", [6, 60])
def test_names_are_readable(assert_readable, layers):
    result = scales(layers=layers)
    ax = data_scale(result)
    FigureCanvasAgg(ax.figure).draw()
    assert_readable(ax, "x", result["layer"].values.tolist())
    assert ax.get_ylabel().startswith("CKA with the same layer")
