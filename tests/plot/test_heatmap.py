from __future__ import annotations

import subprocess
import sys
from itertools import product

import matplotlib
import numpy as np
import pytest
import xarray
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plot.results import space
from report.pages import section_of
from repsim import InputError, max_t, pairwise
from repsim.plot import heatmap, panels


def draw(ax):
    """Draw on Agg and return the pixels, first row at the bottom as in display coordinates."""
    canvas = FigureCanvasAgg(ax.figure.get_figure(root=True))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[::-1] / 255


def drawn_colours(ax, *cells):
    """The colours of cells (column, row) in one drawing."""
    pixels = draw(ax)
    places = ax.transData.transform(cells).astype(int)
    return [pixels[y, x] for x, y in places]


def names_of(result, side):
    return result[f"layer_{side}"].values.tolist()


class TestOrientation:
    def test_first_layers_meet_at_the_lower_left(self, make_result):
        result = make_result(3, 4)
        ax = heatmap(result)
        draw(ax)
        first, right, up = ax.transData.transform([(0, 0), (3, 0), (0, 2)])
        assert right[0] > first[0]
        assert up[1] > first[1]

    def test_every_cell_is_drawn_in_its_place_and_colour(self, make_result):
        result = make_result(3, 4)
        ax = heatmap(result)
        pixels = draw(ax)
        for i, j in product(range(3), range(4)):
            x, y = ax.transData.transform((j, i)).astype(int)
            expected = matplotlib.colormaps["magma"](float(result["cka"][i, j]))
            np.testing.assert_allclose(pixels[y, x], expected, atol=2 / 255)

    def test_cells_are_not_smoothed(self, make_result):
        ax = heatmap(make_result(2, 2), colorbar=False)
        pixels = draw(ax)
        box = ax.get_window_extent().shrunk(0.96, 0.96)
        inside = pixels[int(box.y0) + 4 : int(box.y1), int(box.x0) + 4 : int(box.x1)]
        assert len(np.unique(inside.reshape(-1, 4), axis=0)) == 4

    def test_order_of_dimensions_does_not_matter(self, make_result):
        result = make_result(3, 4)
        drawn = heatmap(result["cka"].transpose("layer_y", "layer_x")).images[0].get_array()
        np.testing.assert_array_equal(drawn, result["cka"].values, strict=True)


class TestLabels:
    @pytest.mark.parametrize("layers", [20, 60])
    def test_each_name_stands_at_its_own_layer(self, make_result, layers):
        result = make_result(layers, layers + 3)
        ax = heatmap(result, Figure(figsize=(7, 7)).subplots())
        draw(ax)
        values = ax.images[0].get_array()
        rows = list(zip(ax.get_yticks(), ax.get_yticklabels(), strict=True))
        columns = list(zip(ax.get_xticks(), ax.get_xticklabels(), strict=True))
        assert len(rows) > 10
        assert len(columns) > 10
        for (y, row), (x, column) in product(rows, columns[::5]):
            expected = result["cka"].sel(layer_x=row.get_text(), layer_y=column.get_text())
            assert values[int(y), int(x)] == float(expected)

    @pytest.mark.parametrize(
        "layers", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (60, 200))]
    )
    def test_readable_on_a_figure_of_its_own(self, make_result, assert_readable, layers):
        result = make_result(layers, layers)
        ax = heatmap(result)
        draw(ax)
        assert_readable(ax, "x", names_of(result, "y"))
        assert_readable(ax, "y", names_of(result, "x"))

    @pytest.mark.slow
    @pytest.mark.parametrize("layout", [None, "constrained"])
    @pytest.mark.parametrize("layers", [20, 60, 200])
    def test_readable_on_small_axes(self, make_result, assert_readable, layers, layout):
        result = make_result(layers, layers)
        ax = heatmap(result, Figure(figsize=(4, 3.5), layout=layout).subplots())
        draw(ax)
        assert_readable(ax, "x", names_of(result, "y"))
        assert_readable(ax, "y", names_of(result, "x"))

    def test_all_are_shown_where_there_is_room(self, make_result):
        ax = heatmap(make_result(20, 60))
        draw(ax)
        assert len(ax.get_yticklabels()) == 20
        assert len(ax.get_xticklabels()) > 40

    @pytest.mark.slow
    def test_adapt_to_a_later_size_of_figure_and_font(self, make_result, assert_readable):
        result = make_result(60, 60)
        ax = heatmap(result)
        draw(ax)
        before = len(ax.get_yticklabels())
        ax.figure.set_size_inches(5, 5)
        ax.tick_params(labelsize=10)
        draw(ax)
        assert 2 < len(ax.get_yticklabels()) < before
        assert_readable(ax, "y", names_of(result, "x"))

    def test_a_zoom_names_the_first_and_last_layer_in_view(self, make_result):
        result = make_result(200, 200)
        ax = heatmap(result, Figure().subplots())
        ax.set(xlim=(99.5, 109.5), ylim=(99.5, 109.5))
        draw(ax)
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == names_of(result, "x")[100:110]

    def test_dollar_signs_are_not_formulas(self, make_result):
        names = ["a$x_1$", "b$", "$c"]
        ax = heatmap(make_result(3, 3).assign_coords(layer_x=names))
        draw(ax)
        assert [label.get_text().replace("\\$", "$") for label in ax.get_yticklabels()] == names

    def test_can_be_left_off(self, make_result):
        ax = heatmap(make_result(3, 3), labels="none")
        assert not ax.get_xticklabels()
        assert not ax.get_yticklabels()

    def test_axes_say_model_and_layer(self, make_result):
        ax = heatmap(make_result(3, 4), title="Figure 1")
        assert ax.get_ylabel() == "ResNet-50 layer"
        assert ax.get_xlabel() == "ViT-B/32 layer"
        assert ax.get_title() == "Figure 1"
        assert ax.images[0].colorbar.ax.get_ylabel() == "CKA (linear, unbiased)"

    def test_without_names_of_models_or_layers(self, make_result):
        bare = make_result(3, 4)["cka"].drop_vars(["layer_x", "layer_y"]).drop_attrs()
        ax = heatmap(bare)
        draw(ax)
        assert ax.get_ylabel() == "x layer"
        alike = heatmap(bare[:, :3].copy(data=np.eye(3)))
        assert alike.get_xlabel() == alike.get_ylabel() == "layer", "one set of layers with itself"
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2", "3"]
        assert ax.images[0].colorbar.ax.get_ylabel() == "CKA"


class TestBeyondTheScale:
    @pytest.mark.parametrize(
        ("value", "low", "extend"),
        [
            (0.5, 0.0, "neither"),
            (-0.01, -0.01, "neither"),
            (-0.0123, -0.013, "neither"),
            (-0.5, -0.5, "neither"),
            (-0.51, -0.5, "min"),
            (-np.inf, -0.5, "min"),
            (1.01, 0.0, "max"),
            (np.nan, 0.0, "neither"),
        ],
    )
    def test_colour_bar_shows_the_fade_and_an_arrow_beyond_it(
        self, make_result, value, low, extend
    ):
        result = make_result(3, 3)
        result["cka"][1, 2] = value
        bar = heatmap(result).images[0].colorbar
        assert bar.ax.get_ylim() == pytest.approx((low, 1.0))
        assert bar.extend == extend

    def test_both_arrows(self, make_result):
        result = make_result(3, 3)
        result["cka"][0, 0], result["cka"][1, 1] = -0.6, 1.2
        assert heatmap(result).images[0].colorbar.extend == "both"

    @pytest.mark.parametrize("cmap", ["magma", "viridis", "gray", "RdBu_r"])
    def test_a_clearly_negative_value_does_not_look_like_one_on_the_scale(self, make_result, cmap):
        result = make_result(2, 2)
        result["cka"][:] = [[-0.5, -0.7], [1.0, 1.001]]
        ax = heatmap(result, cmap=cmap)
        colours = drawn_colours(ax, (0, 0), (1, 0), (0, 1), (1, 1))
        scale = matplotlib.colormaps[cmap](np.linspace(0, 1, 256))
        for colour in (colours[0], colours[1], colours[3]):
            assert np.abs(scale - colour).max(axis=1).min() > 0.1
        np.testing.assert_allclose(colours[0], colours[1], atol=2 / 255)

    @pytest.mark.parametrize("cmap", ["magma", "viridis_r"])
    def test_noise_around_zero_looks_like_zero(self, make_result, cmap):
        values = [0.0, -0.01, -0.1, -0.2, -0.3, -0.4, -0.5, -0.9, 0.5]
        result = make_result(1, len(values))
        result["cka"][:] = [values]
        ax = heatmap(result, cmap=cmap)
        colours = np.array(drawn_colours(ax, *((at, 0) for at in range(len(values)))))
        scale = matplotlib.colormaps[cmap]
        np.testing.assert_allclose(colours[[0, -1]], scale([0.0, 0.5]), atol=2 / 255)
        away = np.abs(colours - colours[0]).max(axis=1)
        assert away[1] < 0.01
        assert away[2] < 0.05
        assert (np.diff(away[1:7]) > 0.02).all()  # a fade, without a step
        assert away[6:8].min() > 0.3
        ends = heatmap(result, cmap=cmap, vmin=-0.9).images[0]
        assert ends.get_clim() == (-0.9, 1.0)  # no value needs the fade

    def test_a_colour_of_the_fade_does_not_depend_on_the_least_value(self, make_result):
        found = []
        for least in (-0.0871, -0.0999, -0.3, -2.0):
            result = make_result(1, 3)
            result["cka"][:] = [[-0.0871, 0.0, least]]
            found.append(drawn_colours(heatmap(result), (0, 0), (1, 0)))
        np.testing.assert_allclose(found, [found[0]] * 4, atol=2 / 255)

    def test_the_fade_begins_at_the_end_that_the_caller_sets(self, make_result):
        result = make_result(1, 3)
        result["cka"][:] = [[0.37, 0.4, 0.13]]
        ax = heatmap(result, vmin=0.4, vmax=0.9)
        assert ax.images[0].get_clim() == pytest.approx((0.15, 0.9))
        near, end, far = drawn_colours(ax, (0, 0), (1, 0), (2, 0))
        np.testing.assert_allclose(end, matplotlib.colormaps["magma"](0.0), atol=2 / 255)
        assert 0 < np.abs(near - end).max() < 0.05
        np.testing.assert_allclose(far, ax.images[0].cmap.get_under(), atol=2 / 255)

    def test_rounding_is_not_beyond(self, make_result):
        result = make_result(2, 2)
        result["cka"][:] = [[1.0000004, -4e-7], [0.5, 1.0]]
        ax = heatmap(result)
        assert ax.images[0].colorbar.extend == "neither"
        np.testing.assert_allclose(
            drawn_colours(ax, (0, 0))[0], matplotlib.colormaps["magma"](1.0), atol=2 / 255
        )

    def test_colours_that_the_colormap_sets_itself_are_kept(self, make_result):
        result = make_result(2, 2)
        result["cka"][0] = [-0.5, -1e-4]
        own = matplotlib.colormaps["magma"].with_extremes(under="red")
        ax = heatmap(result, cmap=own)
        for colour in drawn_colours(ax, (0, 0), (1, 0)):  # without a fade
            np.testing.assert_allclose(colour, to_rgba("red"), atol=2 / 255)
        bar = ax.images[0].colorbar
        assert (bar.ax.get_ylim(), bar.extend) == ((0.0, 1.0), "min")
        (note,) = heatmap(result, cmap=own, colorbar=False).artists
        assert [text.get_text() for text in note.get_texts()] == ["below 0"]

    def test_the_fade_is_explained_without_a_bar(self, make_result):
        result = make_result(3, 3)
        result["cka"][0] = -0.5
        ax = heatmap(result, colorbar=False)
        (note,) = ax.artists
        assert [text.get_text() for text in note.get_texts()] == ["0 to −0.5"]
        draw(ax)
        samples = note.findobj(Rectangle)
        assert (np.diff([each.get_window_extent().x0 for each in samples]) > 0).all()
        cmap = ax.images[0].cmap
        ends = [samples[at].get_facecolor() for at in (0, -1)]
        expected = [matplotlib.colormaps["magma"](0.0), cmap.get_under()]
        np.testing.assert_allclose(ends, expected, atol=1 / 255)

    def test_undefined_is_hatched_and_noted(self, make_result):
        result = make_result(3, 3)
        result["cka"][1, 2] = np.nan
        ax = heatmap(result)
        pixels = draw(ax)
        (x0, y0), (x1, y1) = ax.transData.transform([(1.55, 0.55), (2.45, 1.45)]).astype(int)
        cell = pixels[y0:y1, x0:x1, :3]
        np.testing.assert_allclose(cell.max(axis=2), cell.min(axis=2), atol=2 / 255)  # all grey
        assert np.ptp(cell) > 0.2  # and hatched
        (note,) = [child for child in ax.get_children() if hasattr(child, "legend_handles")]
        assert [text.get_text() for text in note.get_texts()] == ["undefined (NaN)"]

    def test_no_note_where_all_is_defined(self, make_result):
        ax = heatmap(make_result(3, 3))
        assert not [child for child in ax.get_children() if hasattr(child, "legend_handles")]

    def test_all_undefined(self, make_result):
        result = make_result(3, 3)
        result["cka"][:] = np.nan
        draw(heatmap(result))

    def test_scale_of_the_caller(self, make_result):
        image = heatmap(make_result(3, 3), vmin=-1.0, vmax=2.0).images[0]
        assert image.get_clim() == (-1.0, 2.0)


class TestAxes:
    @pytest.mark.parametrize(
        "shape",
        [
            (1, 1),
            (3, 200),
            pytest.param((200, 3), marks=pytest.mark.slow),
            pytest.param((70, 150), marks=pytest.mark.slow),
        ],
    )
    def test_any_number_of_layers(self, make_result, shape):
        ax = heatmap(make_result(*shape))
        draw(ax)
        assert ax.images[0].get_array().shape == shape
        width, height = ax.figure.get_size_inches()
        assert 2 < width < 13
        assert 2 < height < 13

    @pytest.mark.slow
    def test_figure_grows_with_the_layers(self, make_result):
        sizes = [heatmap(make_result(n, n)).figure.get_size_inches() for n in (5, 20, 40, 400)]
        assert (np.diff(sizes, axis=0) > 0).all()
        assert np.max(sizes) < 13

    @pytest.mark.slow
    @pytest.mark.parametrize("shape", [(20, 20), (3, 60)])
    def test_everything_lies_on_a_figure_of_its_own(self, make_result, shape):
        result = make_result(*shape)
        result["cka"][0, 0] = np.nan
        ax = heatmap(result, title="title")
        draw(ax)
        box, page = ax.get_tightbbox(), ax.figure.bbox
        assert box.x0 >= page.x0
        assert box.y0 >= page.y0
        assert box.x1 <= page.x1
        assert box.y1 <= page.y1

    def test_returns_the_axes_passed_in(self, make_result):
        ax = Figure().subplots()
        assert heatmap(make_result(3, 3), ax) is ax

    @pytest.mark.parametrize("layout", [None, "constrained"])
    def test_colour_bar_takes_room_from_its_own_axes_alone(self, make_result, layout):
        def neighbours(picture):
            figure = Figure(figsize=(15, 4), layout=layout)
            left, middle, right = figure.subplots(1, 3)
            picture(middle)
            draw(middle)
            return left, middle, right

        plain = neighbours(lambda ax: heatmap(make_result(9, 9), ax, colorbar=False))
        ours = neighbours(lambda ax: heatmap(make_result(9, 9), ax))
        for i in (0, 2):
            np.testing.assert_allclose(
                ours[i].get_position().bounds, plain[i].get_position().bounds, atol=1e-6
            )
        assert len(ours[1].figure.axes) == 3
        bar = ours[1].images[0].colorbar.ax
        slot = ours[1].get_position(original=True).transformed(ours[1].figure.transSubfigure)
        assert bar.get_tightbbox().x1 <= slot.x1 + 1
        assert ours[1].get_window_extent().width < plain[1].get_window_extent().width

    @pytest.mark.parametrize(
        "layout", ["tight", pytest.param("constrained", marks=pytest.mark.slow)]
    )
    def test_pictures_side_by_side_do_not_touch(self, make_result, layout):
        pair = Figure(figsize=(9, 4), layout=layout).subplots(1, 2)
        for ax in pair:
            heatmap(make_result(30, 30), ax)
        draw(pair[0])
        assert pair[0].get_tightbbox().x1 < pair[1].get_tightbbox().x0
        assert pair[1].get_tightbbox().x1 <= pair[1].figure.bbox.x1

    def test_colour_bar_is_as_tall_as_the_map(self, make_result):
        ax = heatmap(make_result(9, 9), Figure(figsize=(4, 8)).subplots())
        draw(ax)
        bar, box = ax.images[0].colorbar.ax.get_window_extent(), ax.get_window_extent()
        np.testing.assert_allclose([bar.y0, bar.y1], [box.y0, box.y1], atol=1)

    def test_colour_bar_can_be_left_off(self, make_result):
        ax = heatmap(make_result(3, 3), colorbar=False)
        assert ax.images[0].colorbar is None
        assert not ax.child_axes

    def test_cropping_on_save_moves_nothing(self, make_result, tmp_path):
        ax = heatmap(make_result(20, 20), Figure(figsize=(9, 6)).subplots())
        draw(ax)
        bar = ax.images[0].colorbar.ax
        seen = []
        ax.figure.canvas.mpl_connect("draw_event", lambda _: seen.append(bar.get_position().bounds))
        before = bar.get_position().bounds
        ax.figure.savefig(tmp_path / "map.png", bbox_inches="tight")
        draw(ax)
        np.testing.assert_allclose(bar.get_position().bounds, before, atol=1e-3)
        for bounds in seen:
            np.testing.assert_allclose(bounds, before, atol=1e-3)

    def test_on_a_subfigure(self, make_result):
        left, right = Figure(figsize=(8, 4), layout="constrained").subfigures(1, 2)
        ax = heatmap(make_result(9, 9), right.subplots())
        draw(ax)
        assert ax.get_tightbbox().x0 >= right.bbox.x0
        assert ax.get_tightbbox().x1 <= right.bbox.x1
        assert not left.axes


class TestGroups:
    def test_colours_stand_along_both_sides_and_in_a_key(self):
        result = space(6)
        groups = {name: "cnn" if at % 2 else "vit" for at, name in enumerate(result.model_x.values)}
        ax = heatmap(result, groups=groups)
        draw(ax)
        strips = [patch for patch in ax.patches if patch.get_facecolor()[:3] != (1, 1, 1)]
        assert len(strips) == 12
        assert len({patch.get_facecolor() for patch in strips}) == 2
        left, below = strips[:6], strips[6:]
        assert all(patch.get_x() < -0.5 and patch.get_width() < 1 for patch in left)
        assert all(patch.get_y() < -0.5 and patch.get_height() < 1 for patch in below)
        assert ax.get_xlim()[0] == left[0].get_x()
        (key,) = [artist for artist in ax.artists if hasattr(artist, "get_texts")]
        assert [text.get_text() for text in key.get_texts()] == ["vit", "cnn"]
        assert [label.get_text() for label in ax.get_xticklabels()] == list(groups)

    def test_two_different_sides_and_lists(self, make_result):
        result = make_result(3, 4)
        names = [*result.layer_x.values, *result.layer_y.values]
        ax = heatmap(result, groups={name: name[-1] for name in names})
        assert len(ax.patches) == 7
        assert len(heatmap(space(4), groups=["a", "a", "b", "b"]).patches) == 8
        with pytest.raises(InputError, match=r"groups must give the group of each of the 7 names"):
            heatmap(result, groups={names[0]: "a"})


@pytest.mark.slow
def test_pyplot_stays_unimported():
    code = "import sys, repsim.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestErrors:
    def test_dataset_without_the_variable(self, make_result):
        with pytest.raises(InputError, match=r"no variable 'cka'.\n  variables: standard_error"):
            heatmap(make_result(3, 3).drop_vars("cka"))

    def test_extra_dimension(self, make_result):
        result = make_result(3, 3)["cka"].expand_dims(head=2)
        with pytest.raises(InputError, match=r"exactly the dimensions(.|\n)*isel\(head=0\)"):
            heatmap(result)

    def test_missing_dimension(self, make_result):
        with pytest.raises(InputError, match=r"\('layer_y',\) → \(3,\)\n  Keep both"):
            heatmap(make_result(3, 3)["cka"][0])

    def test_other_dimensions(self, make_result):
        with pytest.raises(InputError, match="exactly the dimensions layer_x and layer_y"):
            heatmap(make_result(3, 3)["cka"].rename(layer_x="model"))

        with pytest.raises(InputError, match=r"draw an RDM with plt.imshow"):
            heatmap(xarray.DataArray(np.eye(3), dims=("stimulus", "stimulus_2")))

    def test_bare_matrix(self):
        with pytest.raises(InputError, match="result: ndarray"):
            heatmap(np.eye(3))

    def test_no_layers(self, make_result):
        with pytest.raises(InputError, match="at least one layer"):
            heatmap(make_result(3, 3).isel(layer_x=[]))

    def test_not_numbers(self, make_result):
        with pytest.raises(InputError, match="real numbers"):
            heatmap(make_result(3, 3)["cka"].astype(str))

    @pytest.mark.parametrize("ends", [(1.0, 0.0), (0.5, 0.5), (np.nan, 1.0)])
    def test_scale_the_wrong_way_round(self, make_result, ends):
        with pytest.raises(InputError, match=r"vmin must be (less than vmax|a finite number)"):
            heatmap(make_result(3, 3), vmin=ends[0], vmax=ends[1])

    def test_an_error_leaves_the_axes_empty(self, make_result):
        ax = Figure().subplots()
        with pytest.raises(InputError):
            heatmap(make_result(3, 3), ax, vmin=2.0)
        assert not ax.images


class TestOtherMeasures:
    def maps(self, measure, **options):
        rng = np.random.default_rng(0)
        xs = {name: rng.standard_normal((30, p)) for name, p in (("a", 3), ("b", 5), ("c", 4))}
        return pairwise(xs, measure=measure, **options)

    def test_the_scale_is_that_of_the_measure(self):
        for measure, high, cmap in (
            ("mutual_knn", 1.0, "magma"),
            ("hsic", None, "magma"),
            ("shape_distance", np.pi / 2, "viridis_r"),
            ("procrustes", None, "viridis_r"),
        ):
            result = self.maps(measure)
            ax = heatmap(result)
            image = ax.images[-1]
            assert image.norm.vmin == 0.0
            assert image.norm.vmax == pytest.approx(high or float(result.max())), measure
            assert image.cmap.name == cmap
            label = ax.images[-1].colorbar.ax.get_ylabel().replace("\n", " ")
            assert ("smaller is more alike" in label) == (cmap != "magma"), label

    def test_bright_is_alike_whichever_way_a_measure_runs(self):
        for measure in ("nbs", "procrustes"):
            ax = heatmap(self.maps(measure))
            same, other = (colour[:3].sum() for colour in drawn_colours(ax, (0, 0), (1, 0)))
            assert same > other, measure

    def test_a_dataset_is_drawn_by_its_measure(self):
        result = self.maps("nbs").to_dataset()
        result["standard_error"] = result.nbs * 0 + 0.5
        np.testing.assert_allclose(heatmap(result).images[-1].get_array(), result.nbs)

    def test_models_by_models(self):
        square = self.maps("nbs").rename(layer_x="model_x", layer_y="model_y").rename("score")
        with_others = square.to_dataset().assign(p_value=square * 0 + 0.01)
        for result in (square, with_others):
            ax = heatmap(result, above_chance=square > 0.9)
            assert (ax.get_xlabel(), ax.get_ylabel()) == ("", "")
            assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]

    def test_the_scale_of_values_with_a_unit_ends_at_the_largest(self):
        divergence = (self.maps("nbs") * 0 + 5.0).rename("kl")
        divergence.attrs = {"long_name": "KL divergence", "units": "nats"}
        bar = heatmap(divergence).images[-1].colorbar
        assert (bar.norm.vmax, bar.extend) == (5.0, "neither")

    def test_the_scale_of_standard_errors_ends_at_the_largest(self):
        error = (self.maps("nbs") * 0 + 0.02).rename("standard_error")
        error.attrs = {}
        image = heatmap(error).images[-1]
        assert (image.norm.vmin, image.norm.vmax) == (0.0, pytest.approx(0.02))

    def test_a_map_without_a_name_is_not_called_cka(self):
        distances = xarray.DataArray(np.full((2, 2), 30.0), dims=("layer_x", "layer_y"))
        image = heatmap(distances).images[-1]
        assert image.norm.vmax == 30
        assert image.colorbar.ax.get_ylabel() == "value"

    def test_the_best_layers_have_the_name_of_the_measure(self):
        score = self.maps("cka").rename("score")
        score.attrs["long_name"] = "cka of the best layers"
        label = heatmap(score).images[-1].colorbar.ax.get_ylabel().replace("\n", " ")
        assert label == "CKA of the best layers (linear, unbiased)"

    def test_z_scores_of_noise_look_like_zero_here_and_on_the_page(self):
        rng = np.random.default_rng(0)
        first, second = ({name: rng.standard_normal((20, 4)) for name in "abc"} for _ in "xy")
        found = max_t(first, second, permutations=19)
        assert heatmap(found.p_adjusted).images[0].get_clim() == (0.0, 1.0)
        for z, most in (
            (found.z, 10.0),
            (found.z + 2.0 - found.z.min(), 10.0),
            (found.z + 20.0 * (found.z > 0), 20.0 + float(found.z.max())),
        ):
            result = found.assign(z=z.assign_attrs(found.z.attrs))
            image = heatmap(result.z).images[0]
            least = min(0.0, float(z.min()))
            assert image.get_clim() == pytest.approx((least, most), abs=1e-3 * most)
            page = section_of("z", result).pictures[0]["variables"]
            drawn = next(each for each in page if each["label"].startswith("z-score"))
            assert (drawn["low"], drawn["high"]) == (0.0, pytest.approx(most))
            assert drawn["colours"] == "magma"
            noise = image.cmap(image.norm(np.linspace(least, 3.0, 13)))
            assert (noise[:, :3] @ (0.30, 0.59, 0.11)).max() < 0.25  # dark
        assert heatmap(found.z, vmin=-3.0, vmax=3.0).images[0].get_clim() == (-3.0, 3.0)
        (ax,) = panels([found.z])
        assert ax.images[0].get_clim() == heatmap(found.z).images[0].get_clim()

    def test_means_by_chance_are_on_the_scale_of_the_measure_here_and_on_the_page(self):
        rng = np.random.default_rng(0)
        layers = {name: rng.standard_normal((20, 4)) for name in "abc"}
        for measure in ("rsa", "shape_distance"):
            result = max_t(layers, measure=measure, permutations=19, seed=0)
            images = [heatmap(result[name]).images[0] for name in (measure, "chance")]
            page = section_of("it", result).pictures[0]["variables"]
            main, of_chance = page[0], next(each for each in page if "by chance" in each["label"])
            assert images[0].norm.vmax == images[1].norm.vmax == of_chance["high"]
            assert images[0].cmap.name == images[1].cmap.name == of_chance["colours"]
            assert all(main[key] == of_chance[key] for key in ("low", "high", "colours"))


def test_two_models_of_one_name_are_told_apart():
    rng = np.random.default_rng(0)
    first, second = ({f"block{i}": rng.standard_normal((20, 4)) for i in range(3)} for _ in "xy")
    named = {"model_x": "GPT2Model", "model_y": "GPT2Model"}
    for sides, labels in (
        ((first, second), ("GPT2Model (x) layer", "GPT2Model (y) layer")),
        ((first, first), ("GPT2Model layer", "GPT2Model layer")),
        ((first, {"other": second["block1"]}), ("GPT2Model layer", "GPT2Model layer")),
    ):
        ax = heatmap(pairwise(*sides).assign_attrs(named))
        assert (ax.get_ylabel(), ax.get_xlabel()) == labels
