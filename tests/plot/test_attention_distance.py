from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from plot.results import attention
from repsim import InputError
from repsim.plot import attention_distance


def curves(ax):
    return [line for line in ax.lines if line.get_linestyle() == "-"]


def dashed(ax):
    return [line for line in ax.lines if line.get_linestyle() == "--"]


def key(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestHeads:
    def test_curves_are_the_sorted_heads_of_each_layer(self):
        result = attention(layers=4)
        ax = attention_distance(result)
        for line, values in zip(curves(ax), result["distance"].values, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 13))
            np.testing.assert_array_equal(line.get_ydata(), np.sort(values))
        assert key(ax) == [*result["layer"].values, "uniform attention"]

    def test_uniform_attention(self):
        (line,) = dashed(attention_distance(attention()))
        np.testing.assert_allclose(line.get_ydata(), 115.90089598977764)

    def test_videos_have_a_distance_in_time(self):
        result = attention(layers=2)
        in_time = {"units": "frames"}
        result["time_distance"] = result["distance"] / 10
        result["time_distance"].attrs = {"long_name": "mean attention distance in time", **in_time}
        result["uniform_time_distance"] = ("layer", [2.5, 2.5], in_time)
        ax = attention_distance(result, variable="time_distance")
        for line, values in zip(curves(ax), result["time_distance"].values, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), np.sort(values))
        assert dashed(ax)[0].get_ydata()[0] == 2.5
        assert ax.get_ylabel() == "mean attention distance in time (frames)"
        with pytest.raises(InputError, match="is not of videos"):
            attention_distance(attention(), variable="time_distance")

    def test_renormalised_has_the_uniform_distance_of_its_convention(self):
        result = attention()
        ax = attention_distance(result, variable="renormalised")
        np.testing.assert_allclose(dashed(ax)[0].get_ydata(), 116.49222709176636)
        expected = np.sort(result["renormalised"].values[0])
        np.testing.assert_array_equal(curves(ax)[0].get_ydata(), expected)
        assert "renormalised" in ax.get_ylabel()

    def test_layers_of_other_grids_have_a_line_each(self):
        result = attention(layers=4)
        result["uniform_distance"][:] = [30.0, 30.0, 60.0, np.nan]
        ax = attention_distance(result)
        assert [line.get_ydata()[0] for line in dashed(ax)] == [30.0, 60.0]

    def test_missing_heads_shorten_a_curve(self):
        result = attention(layers=3, heads=4)
        result["distance"][1, [0, 2]] = np.nan
        ax = attention_distance(result)
        assert [len(line.get_xdata()) for line in curves(ax)] == [4, 2, 4]
        assert curves(ax)[1].get_xdata().tolist() == [1, 2]

    def test_one_head_has_one_tick(self):
        ax = attention_distance(attention(layers=2, heads=1))
        assert [tick for tick in ax.get_xticks() if 0.5 <= tick <= 1.5] == [1]

    def test_some_layers_in_the_order_of_the_result(self):
        ax = attention_distance(attention(), layers=["blocks.11.attn", "blocks.2.attn"])
        assert key(ax)[:-1] == ["blocks.2.attn", "blocks.11.attn"]
        assert len(curves(ax)) == 2

    def test_many_layers_are_named_along_a_bar(self, assert_readable):
        result = attention(layers=60)
        ax = attention_distance(result)
        assert ax.get_legend() is None
        FigureCanvasAgg(ax.figure).draw()
        (bar,) = ax.child_axes
        assert_readable(bar, "y", result["layer"].values.tolist())
        assert "dashed: uniform" in bar.get_ylabel()
        # The bar has the colours of the curves.
        mesh = bar.collections[-1]
        colours = mesh.cmap(mesh.norm(np.arange(60)))
        np.testing.assert_allclose(colours[:, :3], [line.get_color()[:3] for line in curves(ax)])

    def test_all_points_are_in_view(self):
        result = attention(layers=3, heads=4)
        result["uniform_distance"][:] = 40.0
        result["distance"][:] = 40.0  # as without training
        for kind in ("heads", "layers"):
            low, high = attention_distance(result, kind=kind).get_ylim()
            assert low == 0
            assert 41 < high < 50
        result["distance"][:] = result["uniform_distance"][:] = np.nan
        FigureCanvasAgg(attention_distance(result).figure).draw()

    def test_labels(self):
        ax = attention_distance(attention())
        assert ax.get_xlabel() == "head, sorted by distance"
        assert ax.get_ylabel() == "mean attention distance (pixels)"
        assert ax.get_ylim()[0] == 0

    def test_names_are_not_formulas(self):
        result = attention(layers=2).assign_coords(layer=["a$b$", "c"])
        ax = attention_distance(result)
        FigureCanvasAgg(ax.figure).draw()
        assert key(ax)[0] == r"a\$b\$"


class TestColumns:
    def test_points(self):
        result = attention(layers=5, heads=3)
        result["distance"][2, 1] = np.nan
        ax = attention_distance(result, kind="layers")
        (points,) = ax.collections
        assert ax.get_xlim() == (-0.5, 4.5)
        expected = [
            (i, value)
            for i, row in enumerate(result["distance"].values)
            for value in np.sort(row[~np.isnan(row)])
        ]
        np.testing.assert_array_equal(points.get_offsets(), expected)
        np.testing.assert_allclose(
            curves(ax)[0].get_ydata(), np.nanmean(result["distance"].values, axis=1)
        )

    def test_uniform_attention_layer_by_layer(self):
        result = attention(layers=3)
        result["uniform_distance"][:] = [30.0, 30.0, 60.0]
        (line,) = dashed(attention_distance(result, kind="layers"))
        assert line.get_xdata().tolist() == [-0.5, 0.5, 0.5, 1.5, 1.5, 2.5]
        assert line.get_ydata().tolist() == [30.0] * 4 + [60.0] * 2

    @pytest.mark.parametrize("layers", [6, 60])
    def test_names_are_readable(self, assert_readable, layers):
        result = attention(layers=layers)
        ax = attention_distance(result, kind="layers")
        FigureCanvasAgg(ax.figure).draw()
        assert_readable(ax, "x", result["layer"].values.tolist())

    def test_a_layer_of_undefined_heads(self):
        result = attention(layers=3)
        result["distance"][1] = np.nan
        ax = attention_distance(result, kind="layers")
        assert np.isnan(curves(ax)[0].get_ydata()).tolist() == [False, True, False]


class TestErrors:
    @pytest.mark.parametrize("layers", [["blocks.0.attn", "blocks.12.attn"], []])
    def test_unknown_layers(self, layers):
        message = r"^attention_distance: layers must name layers of the result\.\n.*blocks\.11"
        with pytest.raises(InputError, match=message):
            attention_distance(attention(), layers=layers)

    def test_unknown_options(self):
        with pytest.raises(InputError, match=r"unknown kind(.|\n)*one of 'heads', 'layers'"):
            attention_distance(attention(), kind="curves")
        with pytest.raises(
            InputError, match=r"unknown variable(.|\n)*one of 'distance', 'renormal"
        ):
            attention_distance(attention(), variable="entropy")

    def test_without_the_uniform_distance(self):
        with pytest.raises(InputError, match="no variable 'uniform_distance'"):
            attention_distance(attention().drop_vars("uniform_distance"))
