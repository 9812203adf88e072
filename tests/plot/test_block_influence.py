"""Pictures of block influence: what the lines, the map and its circles show."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from plot.results import influences
from report.pages import section_of
from repsim import InputError
from repsim.plot import block_influence


def test_influence_by_block_with_its_error():
    result = influences()
    ax = block_influence(result)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), result.influence)
    band = ax.collections[0].get_paths()[0].get_extents()
    assert band.ymax == pytest.approx(float((result.influence + 0.005).max()))
    assert ax.get_ylim()[0] == 0
    without = result.drop_vars("influence_standard_error")
    for plain in (without, result.assign(influence_standard_error=result.influence * np.nan)):
        assert not block_influence(plain).collections


def test_the_map_marks_the_best_start_of_each_length():
    result = influences(6)
    ax = block_influence(result, kind="map")
    np.testing.assert_array_equal(ax.images[0].get_array(), result.angular)
    assert ax.images[0].origin == "lower"
    spans, starts = ax.lines[0].get_data()
    assert spans.tolist() == list(range(6))
    least = [int(np.nanargmin(result.angular[:, j])) for j in range(6)]
    assert list(starts) == least
    assert "least distance of this length" in ax.get_xlabel()
    assert ax.get_ylabel() == "first block of the span"
    assert not [p for p in ax.patches if isinstance(p, Rectangle)]  # beyond the last block: blank
    FigureCanvasAgg(ax.figure).draw()


def test_spans_of_nearly_equal_distance_look_alike_as_on_the_page():
    result = influences(6)
    result["angular"] = 0.4 + 0.01 * (result.angular - result.angular.mean())
    ax = block_influence(result, kind="map")
    ends = 0.0, float(result.angular.max())
    assert ax.images[0].get_clim() == ends
    (drawn,) = section_of("blocks", result).pictures[1]["variables"]
    assert (drawn["low"], drawn["high"]) == (0.0, None)  # up to the largest
    colours = ax.images[0].cmap(ax.images[0].norm(result.angular.values[result.angular > 0]))
    assert np.ptp(colours, axis=0).max() < 0.1
    result["angular"] *= 0.0  # blocks that do nothing
    assert block_influence(result, kind="map").images[0].get_clim() == (0.0, 1.0)


def test_cells_that_are_undefined_are_hatched():
    result = influences(4)
    result.angular[1, 0] = np.nan
    ax = block_influence(result, kind="map")
    hatched = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert [p.get_xy() for p in hatched] == [(-0.5, 0.5)]
    some = block_influence(influences(6).sel(span=[2, 4]), kind="map")
    assert [label.get_text() for label in some.get_xticklabels()] == ["2", "4"]


def test_errors():
    with pytest.raises(InputError, match="block_influence: unknown kind"):
        block_influence(influences(), kind="bars")
    with pytest.raises(InputError, match="no variable 'angular'"):
        block_influence(influences().drop_vars("angular"), kind="map")
