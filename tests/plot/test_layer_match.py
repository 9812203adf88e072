from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import repsim
from report.pages import section_of
from repsim import InputError
from repsim.plot import layer_match


def draw(ax):
    FigureCanvasAgg(ax.figure).draw()


def known(matches, n_y, top=0.9):
    """A map in which layer i of x matches layer matches[i] of y, with similarity `top`."""
    values = np.random.default_rng(0).uniform(0.0, 0.5, (len(matches), n_y))
    for i, j in enumerate(matches):
        values[i, j] = top
    return xr.Dataset(
        {"cka": (("layer_x", "layer_y"), values)},
        coords={
            "layer_x": [f"conv.{i}" for i in range(len(matches))],
            "layer_y": [f"block.{j}" for j in range(n_y)],
        },
        attrs={"model_x": "ResNet", "model_y": "ViT"},
    )


def note_of(ax):
    return "\n".join(text.get_text() for text in ax.texts)


class TestBestMatch:
    def test_known_matches_and_depths(self):
        best = repsim.layer_match(known([0, 2, 1, 4], 5))
        assert best["match"].values.tolist() == ["block.0", "block.2", "block.1", "block.4"]
        assert best["layer_x"].values.tolist() == ["conv.0", "conv.1", "conv.2", "conv.3"]
        np.testing.assert_allclose(best["depth_x"], [0, 1 / 3, 2 / 3, 1])
        np.testing.assert_allclose(best["depth_y"], [0, 0.5, 0.25, 1])
        np.testing.assert_allclose(best["cka"], 0.9)

    def test_names_follow_the_values(self):
        result = known([0, 2, 1, 4], 5)
        shuffled = result.isel(layer_y=[3, 1, 4, 0, 2])
        assert repsim.layer_match(shuffled)["match"].equals(repsim.layer_match(result)["match"])
        np.testing.assert_allclose(repsim.layer_match(shuffled)["depth_y"], [0.75, 1, 0.25, 0.5])

    def test_undefined_entries_are_passed_over(self):
        result = known([0, 2], 3)
        result["cka"][0] = [np.nan, 0.1, -0.3]
        assert repsim.layer_match(result)["match"].values.tolist() == ["block.1", "block.2"]

    def test_negative_is_better_than_undefined(self):
        result = known([0], 3)
        result["cka"][0] = [np.nan, -0.2, -0.1]
        best = repsim.layer_match(result)
        assert best["match"].values.tolist() == ["block.2"]
        assert best["cka"].values.tolist() == [-0.1]

    def test_layers_without_a_match_keep_the_depths_of_the_rest(self):
        result = known([0, 1, 2, 3, 4], 5)
        result["cka"][1] = np.nan
        best = repsim.layer_match(result)
        assert best["layer_x"].values.tolist() == ["conv.0", "conv.2", "conv.3", "conv.4"]
        assert best["depth_x"].values.tolist() == [0.0, 0.5, 0.75, 1.0]
        assert best.attrs["left_out"] == "conv.1"

    def test_the_lowest_of_equals(self):
        result = known([0], 4)
        result["cka"][0] = [0.1, 0.7, 0.7, 0.2]
        assert repsim.layer_match(result)["match"].values.tolist() == ["block.1"]

    def test_one_layer(self):
        best = repsim.layer_match(known([0], 1))
        assert (best["depth_x"].item(), best["depth_y"].item()) == (0.0, 0.0)


class TestPicture:
    def test_points(self):
        ax = layer_match(known([0, 2, 1, 4], 5))
        (points,) = ax.collections
        np.testing.assert_allclose(
            points.get_offsets(), [(0, 0), (1 / 3, 0.5), (2 / 3, 0.25), (1, 1)]
        )
        np.testing.assert_allclose(points.get_array(), 0.9)
        assert points.get_clim() == (0.0, 1.0)

    def test_lower_half_is_summed_up(self):
        # Ten of the twenty layers are in the lower half; nine match by block 27 of 101, one strays.
        ax = layer_match(known([3, 6, 9, 12, 15, 18, 21, 24, 27, 90, *range(91, 101)], 101))
        assert note_of(ax).splitlines() == [
            "lower half of ResNet",
            "→ lowest 27% of ViT",
            "median match at 16% (line)",
        ]
        (shade,) = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        np.testing.assert_allclose(shade.get_bbox().extents, [0, 0, 0.5, 0.27])
        heights = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "-"]
        np.testing.assert_allclose(heights, [0.165])

    def test_the_layer_in_the_middle_belongs_to_the_lower_half(self):
        assert "lowest 75%" in note_of(layer_match(known([0, 3, 4], 5)))

    def test_all_at_the_first_layer(self):
        assert "→ first layer of ViT" in note_of(layer_match(known([0, 0, 4, 4], 5)))

    def test_identity_is_dashed(self):
        (line,) = [
            line for line in layer_match(known([0], 1)).lines if line.get_linestyle() == "--"
        ]
        np.testing.assert_array_equal(line.get_xydata(), [(0, 0), (1, 1)])

    def test_quarters(self):
        ax = layer_match(known([0, 1], 2))
        for ticks in (ax.get_xticks(), ax.get_yticks()):
            np.testing.assert_array_equal(ticks, [0, 0.25, 0.5, 0.75, 1])
        assert ax.get_xlabel() == "depth of the ResNet layer"
        assert ax.get_ylabel() == "depth of its best match in ViT"

    def test_left_out_is_noted(self):
        result = known([0, 1, 2, 3, 4], 5)
        result["cka"][1:4] = np.nan
        ax = layer_match(result)
        assert "left out, all NaN: 3 (conv.1, conv.2, …)" in note_of(ax)
        assert len(ax.collections[0].get_offsets()) == 2

    def test_nothing_left(self):
        result = known([0, 1], 2)
        result["cka"][:] = np.nan
        ax = layer_match(result)
        draw(ax)
        assert note_of(ax) == "left out, all NaN: 2 (conv.0, conv.1)"

    def test_a_negative_match_is_visible(self):
        result = known([0, 1], 3)
        for match, low, extend in ((-0.05, -0.05, "neither"), (-0.6, -0.5, "min")):
            result["cka"][0] = [match, -0.7, -0.8]
            bar = layer_match(result).collections[0].colorbar
            assert bar.ax.get_ylim() == pytest.approx((low, 1.0))
            assert bar.extend == extend

    def test_matches_by_chance_are_grey_here_and_on_the_page(self):
        result = known([0, 2, 1, 4], 5)
        for passed in ([True] * 4, [True, False, True, False], [False] * 4):
            z = xr.where(xr.DataArray(passed, dims="layer_x"), 4.0, 2.0)
            result["z"] = z * xr.ones_like(result.cka)
            ax = layer_match(result)
            draw(ax)
            (points,) = ax.collections
            colours = points.get_facecolors()[:, :3]
            assert (np.ptp(colours, axis=1) > 0.1).tolist() == passed  # others are grey
            shaded = any(isinstance(patch, Rectangle) for patch in ax.patches)
            by_chance = passed.count(False)
            said = f"not above chance: {by_chance} of 4 matches (grey)"
            assert (said in note_of(ax)) is (by_chance > 0)
            assert ("median match" in note_of(ax)) is shaded is any(passed)
            for section in (section_of("it", result), section_of("it", repsim.layer_match(result))):
                chart = section.pictures[-1]
                assert sum(len(each["x"]) for each in chart["series"] if each["reference"]) == (
                    by_chance
                )
                cautions = [each for each in section.cautions if "test against chance" in each]
                assert [each[:6] for each in cautions] == [f"{by_chance} of 4"] * (by_chance > 0)
                where = {each.what: each.where for each in section.findings}
                assert where["best matches above chance, z ≥ 3, each tested alone"] == (
                    f"{4 - by_chance} of 4"
                )
                assert any("median depth" in what for what in where) is any(passed)

    def test_note_stands_where_fewer_points_are(self):
        late = layer_match(known([9] * 10, 10)).texts[0]
        early = layer_match(known([0] * 10, 10)).texts[0]
        assert early.get_position()[1] > 0.5 > late.get_position()[1]

    @pytest.mark.parametrize(("side", "there"), [(3.0, False), (7.0, True)])
    def test_note_covers_no_names_of_a_small_picture(self, side, there):
        ax = Figure(figsize=(side, side), layout="constrained").add_subplot()
        layer_match(known(list(range(20)), 20), ax)
        canvas = FigureCanvasAgg(ax.figure)
        canvas.draw()
        x0, y0, x1, y1 = ax.bbox.extents.astype(int)
        blue = (np.asarray(canvas.buffer_rgba())[::-1, :, :3] == (0x21, 0x66, 0xAC)).all(axis=2)
        assert not blue[:, x1 + 1 :].any()
        assert blue[(y0 + y1) // 2 : y1, x0:x1].any() == there

    def test_other_variable(self, make_result):
        result = make_result(4, 5).rename(cka="mutual_knn")
        ax = layer_match(result, variable="mutual_knn")
        label = ax.collections[0].colorbar.ax.get_ylabel()
        assert label == "mutual knn (linear, unbiased) of the match"

    @pytest.mark.parametrize("shape", [(12, 60), pytest.param((200, 200), marks=pytest.mark.slow)])
    def test_names_are_readable(self, make_result, assert_readable, shape):
        result = make_result(*shape)
        ax = layer_match(result)
        draw(ax)
        top, right = ax.child_axes[:2]
        assert_readable(top, "x", result["layer_x"].values.tolist())
        assert_readable(right, "y", result["layer_y"].values.tolist())

    def test_names_stand_at_their_depth(self, make_result):
        result = make_result(12, 60)
        ax = layer_match(result)
        draw(ax)
        names = result["layer_y"].values.tolist()
        right = ax.child_axes[1]
        for depth, label in zip(right.get_yticks(), right.get_yticklabels(), strict=True):
            assert names.index(label.get_text()) / 59 == pytest.approx(depth)

    @pytest.mark.parametrize(
        "layout", [None, "tight", pytest.param("constrained", marks=pytest.mark.slow)]
    )
    def test_stays_within_its_column(self, make_result, layout):
        figure = Figure(figsize=(12, 5), layout=layout)
        left, right = figure.subplots(1, 2)
        assert layer_match(make_result(12, 30), left) is left
        draw(left)
        bar = left.collections[0].colorbar.ax
        assert bar.get_tightbbox().x1 < right.get_tightbbox().x0
        names = left.child_axes[1]
        assert names.get_tightbbox().x1 < bar.get_window_extent().x0
        assert figure.axes == [left, right]

    @pytest.mark.slow
    def test_everything_lies_on_a_figure_of_its_own(self, make_result):
        ax = layer_match(make_result(12, 60))
        draw(ax)
        box, page = ax.get_tightbbox(), ax.figure.bbox
        assert box.x0 >= page.x0
        assert box.y0 >= page.y0
        assert box.x1 <= page.x1
        assert box.y1 <= page.y1


class TestErrors:
    def test_name_the_operation(self, make_result):
        with pytest.raises(InputError, match=r"^layer_match: result has no variable 'rsa'"):
            layer_match(make_result(3, 3), variable="rsa")

    def test_missing_dimension(self, make_result):
        with pytest.raises(InputError, match=r"^layer_match: result must have exactly"):
            layer_match(make_result(3, 3)["cka"][0])

    def test_the_matches_in_place_of_the_map(self, make_result):
        with pytest.raises(InputError, match=r"result of repsim.layer_match. Pass the map"):
            layer_match(repsim.layer_match(make_result(3, 3)))
