from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from plot.results import ratios
from repsim import InputError
from repsim.plot import residual_ratios


def key(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def solid(ax):
    return [line for line in ax.lines if line.get_linestyle() == "-"]


class TestLines:
    def test_prefix_and_spatial_tokens(self):
        result = ratios(branches=("mlp",))
        ax = residual_ratios(result)
        for line, name in zip(solid(ax), ("ratio_prefix", "ratio_spatial"), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), result[name].values)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(12))
        assert key(ax) == ["prefix tokens (CLS)", "spatial tokens", "skip = branch"]
        assert ax.get_yscale() == "log"

    def test_each_kind_of_branch_has_a_line(self):
        result = ratios(blocks=3)
        ax = residual_ratios(result)
        lines = [line for line in ax.lines if line.get_marker() != "None"]
        expected = [(name, first) for name in ("ratio_prefix", "ratio_spatial") for first in (0, 1)]
        for line, (name, first) in zip(lines, expected, strict=True):
            assert line.get_xdata().tolist() == [first, first + 2, first + 4]
            np.testing.assert_array_equal(line.get_ydata(), result[name].values[first::2])
        assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
        insides = [line.get_markerfacecolor() for line in lines]
        assert insides == [lines[0].get_color()] * 2 + ["white"] * 2  # in print
        assert lines[0].get_marker() == lines[2].get_marker() != lines[1].get_marker()
        assert key(ax) == [
            "prefix tokens (CLS)",
            "spatial tokens",
            "branch attn",
            "branch mlp",
            "skip = branch",
        ]

    def test_branches_that_do_not_recur_have_one_line(self):
        result = ratios(blocks=3)
        result["branch"] = ("site", [f"f{i}" for i in range(6)])
        ax = residual_ratios(result)
        assert key(ax) == ["prefix tokens (CLS)", "spatial tokens", "skip = branch"]
        assert all(line.get_marker() == "o" for line in solid(ax))
        assert [len(line.get_xdata()) for line in solid(ax)] == [6, 6]

    def test_no_prefix_tokens(self):
        ax = residual_ratios(ratios(prefix=0, tokens=49))
        assert key(ax)[0] == "all tokens"
        assert len({line.get_color() for line in ax.lines}) == 2  # and the line of equals

    def test_line_of_equals(self):
        ax = residual_ratios(ratios(branches=("mlp",)))
        (line,) = [x for x in ax.lines if x.get_linestyle() == "--"]
        assert list(line.get_ydata()) == [1.0, 1.0]

    def test_values_without_a_logarithm_are_gaps(self):
        result = ratios(branches=("mlp",))
        result["ratio_spatial"][[2, 5]] = [0.0, np.nan]
        values = solid(residual_ratios(result))[1].get_ydata()
        assert np.flatnonzero(np.isnan(values)).tolist() == [2, 5]

    @pytest.mark.parametrize("blocks", [3, 30])
    def test_names_are_readable(self, assert_readable, blocks):
        result = ratios(blocks=blocks)
        ax = residual_ratios(result)
        FigureCanvasAgg(ax.figure).draw()
        assert_readable(ax, "x", result["site"].values.tolist())

    @pytest.mark.slow
    @pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
    @pytest.mark.parametrize("power", [0.02, 0.3, 1.0, 5.0])
    def test_the_axis_is_numbered_plainly(self, factor, power):
        result = factor * ratios() ** power
        ax = residual_ratios(result)
        FigureCanvasAgg(ax.figure).draw()
        low, high = ax.get_ylim()
        shown = [t.get_text() for t in ax.get_yticklabels() if low <= t.get_position()[1] <= high]
        assert 2 <= len(shown) <= 12
        assert all(float(text) > 0 for text in shown)


class TestMap:
    def test_spatial_and_prefix_tokens_apart(self):
        result = ratios(blocks=2, tokens=9, prefix=2)
        spatial, prefix = residual_ratios(result, kind="map").images
        np.testing.assert_array_equal(spatial.get_array(), result["ratio"].values[:, 2:])
        np.testing.assert_array_equal(prefix.get_array(), result["ratio"].values[:, :2])
        assert prefix.get_extent()[1] < spatial.get_extent()[0] == -0.5
        assert spatial.get_extent()[1] == 6.5
        assert spatial.get_extent()[2:] == prefix.get_extent()[2:] == [-0.5, 3.5]
        assert spatial.norm is prefix.norm
        assert spatial.axes.get_xlabel() == "token (prefix tokens at the left)"

    def test_one_is_the_middle_of_the_scale(self):
        image = residual_ratios(ratios(), kind="map").images[0]
        assert image.norm(1.0) == pytest.approx(0.5)
        assert image.norm.vmax == float(ratios()["ratio"].max())

    def test_a_prefix_of_one_token_can_be_seen(self):
        spatial, prefix = residual_ratios(ratios(), kind="map").images
        left, right, *_ = prefix.get_extent()
        assert right - left >= 0.04 * (spatial.get_extent()[1] - left)

    @pytest.mark.parametrize("how", ["counted", "by their values"])
    def test_sites_of_fewer_tokens(self, how):
        result = ratios(blocks=1, tokens=6, prefix=1)
        result["ratio"][1, 3:] = np.nan
        result["n_prefix"], result["n_tokens"] = ("site", [1, 0]), ("site", [6, 3])
        if how == "by their values":
            result = result.drop_vars("n_tokens")
        spatial, prefix = residual_ratios(result, kind="map").images
        ratio = result["ratio"].values
        np.testing.assert_array_equal(prefix.get_array().filled(np.nan), [[ratio[0, 0]], [np.nan]])
        rows = spatial.get_array().filled(np.nan)
        np.testing.assert_array_equal(rows[0, :5], ratio[0, 1:])
        np.testing.assert_array_equal(rows[1, :3], ratio[1, :3])
        assert np.isnan(rows[1, 3:]).all()
        # Lacking tokens are blank, not undefined.
        assert not [p for p in spatial.axes.patches if p.get_hatch()]

    def test_undefined_ratios_are_hatched(self):
        result = ratios(blocks=2, tokens=9, prefix=1)
        result["ratio"][1, 3] = result["ratio"][2, 0] = result["ratio"][3, 8] = np.nan
        ax = residual_ratios(result, kind="map")
        hatched = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]
        assert hatched[0].get_xy() == (1.5, 0.5)
        assert hatched[1].get_xy() == (6.5, 2.5)  # the last token, not one that is lacking
        assert hatched[2].get_x() < -0.5
        assert hatched[2].get_y() == 1.5

    def test_no_prefix_tokens(self):
        ax = residual_ratios(ratios(prefix=0, tokens=49), kind="map")
        assert len(ax.images) == 1
        assert ax.get_xlim() == (-0.5, 48.5)
        assert "prefix" not in ax.get_xlabel()

    def test_tokens_are_counted_in_whole_numbers(self):
        ax = residual_ratios(ratios(blocks=2, tokens=13), kind="map")
        ticks = ax.get_xticks()
        assert (ticks == np.round(ticks)).all()
        assert 0 <= ticks.min() < ticks.max() <= 11

    def test_values_beyond_the_scale(self):
        result = ratios(blocks=2, tokens=9)
        result["ratio"][0, 3], result["ratio"][1, 4] = 0.0, np.inf
        ax = residual_ratios(result, kind="map")
        FigureCanvasAgg(ax.figure).draw()
        assert ax.images[-1].colorbar.extend == "both"
        assert [float(ax.images[0].norm(value)) for value in (0.0, np.inf)] == [0.0, 1.0]
        assert np.isfinite(ax.images[0].norm.vmax)

    @pytest.mark.parametrize("blocks", [3, 30])
    def test_names_are_readable(self, assert_readable, blocks):
        result = ratios(blocks=blocks)
        ax = residual_ratios(result, kind="map")
        FigureCanvasAgg(ax.figure).draw()
        assert_readable(ax, "y", result["site"].values.tolist())
        assert ax.images[-1].colorbar.ax.get_ylabel() == "‖skip‖ / ‖branch‖"


def test_unknown_kind():
    with pytest.raises(
        InputError, match=r"^residual_ratios: unknown kind(.|\n)*one of 'lines', 'map'"
    ):
        residual_ratios(ratios(), kind="heatmap")
