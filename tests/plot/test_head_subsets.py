from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from plot.results import subsets
from report.pages import section_of
from repsim.plot import head_subsets


def key(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_lines_run_from_local_to_global():
    result = subsets(kinds=("growing",))
    ax = head_subsets(result)
    order = np.argsort(result["mean_distance"].values)
    assert len(ax.containers) == result.sizes["layer_y"]
    for j, container in enumerate(ax.containers):
        line = container.lines[0]
        np.testing.assert_array_equal(line.get_xdata(), result["mean_distance"].values[order])
        np.testing.assert_array_equal(line.get_ydata(), result["cka"].values[order, j])
    assert key(ax) == result["layer_y"].values.tolist()


def test_bars_are_one_standard_error_to_each_side():
    result = subsets(kinds=("growing",), layers=1)
    (container,) = head_subsets(result).containers
    (bars,) = container.lines[2]
    order = np.argsort(result["mean_distance"].values)
    ends = np.asarray([segment[:, 1] for segment in bars.get_segments()])
    value, error = (result[name].values[order, 0] for name in ("cka", "standard_error"))
    np.testing.assert_allclose(ends, np.column_stack([value - error, value + error]))


def test_without_errors_there_are_no_bars():
    result = subsets(kinds=("growing",)).drop_vars("standard_error")
    assert all(not container.has_yerr for container in head_subsets(result).containers)
    unknown = subsets(kinds=("growing",), layers=1)
    unknown["standard_error"][:] = np.nan
    ax = head_subsets(unknown)
    FigureCanvasAgg(ax.figure).draw()
    assert np.isfinite(ax.containers[0].lines[0].get_ydata()).all()


def test_kinds_have_lines_of_their_own():
    result = subsets(layers=2)
    ax = head_subsets(result)
    assert key(ax) == ["layer1.0.bn3", "layer2.0.bn3", "growing", "sliding"]
    growing, sliding = ax.containers[:2], ax.containers[2:]
    for j, (one, two) in enumerate(zip(growing, sliding, strict=True)):
        assert one.lines[0].get_color() == two.lines[0].get_color()
        assert one.lines[0].get_marker() != two.lines[0].get_marker()
        here = result["kind"].values == "sliding"
        expected = np.sort(result["cka"].values[here, j])
        np.testing.assert_array_equal(np.sort(two.lines[0].get_ydata()), expected)


def test_distance_may_be_a_variable():
    result = subsets(kinds=("growing",)).reset_coords(["mean_distance", "kind"])
    assert len(head_subsets(result).containers) == result.sizes["layer_y"]


def test_labels():
    ax = head_subsets(subsets())
    assert ax.get_xlabel().splitlines() == [
        "mean attention distance of the heads (pixels)",
        "blocks.0.attn of ViT-L/16",
    ]
    assert ax.get_ylabel() == "CKA with ResNet-50"


def test_distances_that_are_almost_equal_are_written_in_full():
    result = subsets()
    result["mean_distance"] = 32.58 + 1e-5 * result["mean_distance"]
    ax = head_subsets(result)
    FigureCanvasAgg(ax.figure).draw()
    assert not ax.xaxis.get_offset_text().get_text()
    low, high = ax.get_xlim()
    shown = [t for t in ax.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert all(t.get_text().startswith("32.58") for t in shown)
    boxes = [t.get_window_extent() for t in shown]
    assert len(boxes) > 1
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.parametrize("layers", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_names_are_readable(assert_readable, layers):
    result = subsets(layers=layers)
    ax = head_subsets(result)
    FigureCanvasAgg(ax.figure).draw()
    if layers == 6:
        assert key(ax)[:6] == result["layer_y"].values.tolist()
    else:
        (bar,) = ax.child_axes
        assert_readable(bar, "y", result["layer_y"].values.tolist())
        assert key(ax) == ["growing", "sliding"]


def test_undefined_values_are_gaps():
    result = subsets(kinds=("growing",), layers=1)
    result["cka"][3] = np.nan
    (container,) = head_subsets(result).containers
    assert np.isnan(container.lines[0].get_ydata()).sum() == 1


def test_small_differences_look_small_as_on_the_page():
    result = subsets(kinds=("growing",))
    for middle, begins_at_0 in ((0.4, True), (0.0, False)):
        result["cka"] = 0.003 * result["cka"] + (middle - 0.003 * float(result["cka"].min()))
        result["standard_error"] = 0.0 * result["cka"] + 0.002
        low, high = head_subsets(result).get_ylim()
        (drawn,) = section_of("heads", result).pictures
        ends = [v for each in drawn["series"] for key in ("low", "high") for v in each[key]]
        assert drawn["zero"]
        assert bool(low == 0) is (min(ends) > 0) is begins_at_0
        assert low <= min(ends)
        assert drawn["reach"] == 0.2
        assert max(ends) < high
        assert high == 0.2 or high < 1.1 * max(ends)
    FigureCanvasAgg(head_subsets(result * np.nan).figure).draw()
