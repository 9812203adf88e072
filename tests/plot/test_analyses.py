"""What the pictures of all analyses have in common."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plot import results
from repsim import InputError, plot

PICTURES = {
    "attention_distance": (plot.attention_distance, results.attention, "distance"),
    "head_subsets": (plot.head_subsets, results.subsets, "cka"),
    "receptive_field": (plot.receptive_field, results.fields, "field"),
    "residual_ratios": (plot.residual_ratios, results.ratios, "ratio_prefix"),
    "block_influence": (plot.block_influence, results.influences, "influence"),
    "localization": (
        lambda result, ax=None: plot.localization(result, ax, layer="blocks.0"),
        results.localized,
        "cka",
    ),
    "probe": (plot.probe, results.probes, "accuracy"),
    "data_scale": (plot.data_scale, results.scales, "cka"),
}


@pytest.fixture(params=PICTURES)
def name(request):
    return request.param


def test_draws_on_the_axes_it_is_given(name):
    draw, make, _ = PICTURES[name]
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert draw(make(), left) is left
    FigureCanvasAgg(figure).draw()
    assert figure.axes == [left, right]
    assert not right.has_data()
    assert left.get_tightbbox().x1 <= right.get_tightbbox().x0


def test_makes_a_figure_that_holds_it(name):
    draw, make, _ = PICTURES[name]
    ax = draw(make())
    assert isinstance(ax, Axes)
    assert ax.figure.axes == [ax]
    FigureCanvasAgg(ax.figure).draw()
    box, page = ax.get_tightbbox(), ax.figure.bbox
    assert box.x0 >= page.x0 - 1
    assert box.y0 >= page.y0 - 1
    assert box.x1 <= page.x1 + 1
    assert box.y1 <= page.y1 + 1


def test_leaves_the_result_unchanged(name):
    draw, make, _ = PICTURES[name]
    result = make()
    draw(result)
    xr.testing.assert_identical(result, make())


def test_takes_dimensions_in_any_order(name):
    draw, make, _ = PICTURES[name]
    one = draw(make())
    other = draw(make().transpose(*reversed(list(make().sizes))))
    for a, b in zip(one.lines, other.lines, strict=True):
        np.testing.assert_array_equal(a.get_xydata(), b.get_xydata())
    for a, b in zip(one.images, other.images, strict=True):
        np.testing.assert_array_equal(a.get_array(), b.get_array())


@pytest.mark.slow
def test_draws_half_precision_and_integers(name):
    draw, make, variable = PICTURES[name]
    for dtype in ("float32", "int64"):
        result = make()
        result[variable] = (3 * result[variable] + 1).astype(dtype)
        FigureCanvasAgg(draw(result).figure).draw()


def test_undefined_cells_are_drawn(name):
    draw, make, variable = PICTURES[name]
    result = make()
    result[variable][...] = np.where(
        np.random.default_rng(0).random(result[variable].shape) < 0.3, np.nan, result[variable]
    )
    FigureCanvasAgg(draw(result).figure).draw()


class TestErrors:
    def test_no_dataset(self, name):
        draw, make, variable = PICTURES[name]
        for wrong in (make()[variable], np.eye(3), None):
            with pytest.raises(InputError) as caught:
                draw(wrong)
            first, second, third = str(caught.value).splitlines()
            assert first.startswith(f"{name}: result must be an xarray.Dataset, as repsim.")
            assert second == f"  result: {type(wrong).__name__}"
            assert third.startswith("  Pass the whole result")

    def test_missing_variable(self, name):
        draw, make, variable = PICTURES[name]
        with pytest.raises(InputError, match=rf"^{name}: result has no variable '{variable}'\.\n"):
            draw(make().drop_vars(variable))

    def test_other_dimensions(self, name):
        draw, make, variable = PICTURES[name]
        dim = make()[variable].dims[-1]
        message = rf"^{name}: {variable} must have exactly the dimensions"
        with pytest.raises(InputError, match=message):
            draw(make().assign({variable: make()[variable].isel({dim: 0})}))

    def test_empty(self, name):
        draw, make, variable = PICTURES[name]
        dim = make()[variable].dims[-1]
        with pytest.raises(InputError, match=rf"^{name}: {variable} must not be empty"):
            draw(make().isel({dim: []}))

    def test_not_numbers(self, name):
        draw, make, variable = PICTURES[name]
        with pytest.raises(InputError, match=rf"^{name}: {variable} must hold real numbers"):
            draw(make().assign({variable: make()[variable].astype(str)}))

    def test_the_functions_of_repsim_that_they_name(self, name):
        draw, *_ = PICTURES[name]
        analyses = {
            "head_subsets": "head_subset_cka",
            "receptive_field": "effective_receptive_field",
            "localization": "token_localization",
            "probe": "linear_probe",
        }
        with pytest.raises(InputError, match=rf"as repsim\.{analyses.get(name, name)} returns"):
            draw(0)


def test_a_map_of_another_result():
    with pytest.raises(
        InputError, match=r"repsim\.attention_distance returned it: repsim\.plot has"
    ):
        plot.heatmap(results.attention())
