"""Maps side by side at a width for print, with one colour scale and one colour bar."""

from __future__ import annotations

import io
import pickle
import zlib
from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from plot.results import space, steps
from repsim import InputError
from repsim.plot import heatmap, panels, trajectory
from repsim.plot import layer_match as match

# Drawings of several maps at two widths.
pytestmark = pytest.mark.slow

COLUMN, PAGE = 3.3, 7.0


def texts(axes):
    """Every text that is drawn in the Axes of a figure, and in its keys."""
    figure = axes[0].figure
    figure.draw_without_rendering()
    found = [text for key in figure.legends for text in key.get_texts()]
    for ax in figure.axes:
        found += [ax.title, ax.xaxis.label, ax.yaxis.label]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            places = axis.get_majorticklocs()
            labels = axis.get_ticklabels()
            found += [t for t, at in zip(labels, places, strict=True) if low <= at <= high]
    return [text for text in found if text.get_text() and text.get_visible()]


def assert_on_the_page(axes):
    page = axes[0].figure.bbox.padded(0.5)
    for text in texts(axes):
        box = text.get_window_extent()
        assert page.count_contains(box.corners()) == 4, text.get_text()
        assert 6.5 <= text.get_fontsize() <= 10, text.get_text()


def sizes(axes):
    return np.array([ax.get_window_extent().size for ax in axes]) / axes[0].figure.dpi


class TestWidth:
    def test_every_map_fits_a_column_and_a_page(self, make_result):
        cases = ((252, 68), COLUMN, "names"), ((68, 252), COLUMN, "names"), ((3, 60), PAGE, "names")
        for shape, width, labels in (*cases, ((1, 1), COLUMN, "index"), ((99, 2), PAGE, "index")):
            ax = heatmap(make_result(*shape), width=width, labels=labels, title="A title")
            assert ax.figure.get_figwidth() == width
            assert_on_the_page([ax])
            wide, tall = sizes([ax])[0]
            assert wide > 0.3 * width, shape
            assert 0.49 < tall / wide < 1.51, shape

    def test_the_figure_is_as_high_as_its_map_needs(self, make_result):
        ax = heatmap(make_result(20, 20), width=COLUMN)
        box = ax.figure.get_tightbbox()
        assert box.height == pytest.approx(ax.figure.get_figheight(), abs=0.15)
        assert box.width == pytest.approx(COLUMN, abs=0.15)

    def test_a_map_of_any_aspect_is_no_ribbon_on_a_figure_of_its_own(self, make_result):
        ax = heatmap(make_result(252, 68))
        ax.figure.draw_without_rendering()
        wide, tall = sizes([ax])[0]
        assert 0.6 < tall / wide < 1.6

    def test_long_names_are_shortened_to_their_end(self, make_result):
        names = [f"encoder.layers.encoder_layer_{i}.self_attention.out" for i in range(9)]
        result = make_result(9, 9).assign_coords(layer_x=names)
        ax = heatmap(result, width=COLUMN)
        assert_on_the_page([ax])
        shown = [label.get_text() for label in ax.get_yticklabels()]
        assert all(text.startswith("…") for text in shown)
        assert all(name.endswith(text[1:]) for name, text in zip(names, shown, strict=True))
        assert sizes([ax])[0][0] > 0.35 * COLUMN

    def test_long_names_of_models_are_broken_into_lines(self, make_result):
        result = make_result(20, 20)
        result.attrs.update(
            model_x="vit_base_patch16_224.augreg2_in21k_ft_in1k", model_y="b$ " * 20
        )
        axes = panels([result, result], width=COLUMN, titles=["a long title of this panel", "b"])
        assert_on_the_page(axes)
        assert "\n" in axes[0].get_ylabel()
        for text in texts(axes):
            assert not text.get_text().endswith("\\")

    def test_both_places_or_a_strange_width(self, make_result):
        with pytest.raises(InputError, match="width is that of a new figure"):
            heatmap(make_result(3, 3), Figure().subplots(), width=3.3)
        for width in (0, -1, "3.3", np.inf, 1000):
            with pytest.raises(InputError, match=r"heatmap: width must be a finite number"):
                heatmap(make_result(3, 3), width=width)
            with pytest.raises(InputError, match=r"panels: width must be a finite number"):
                panels([make_result(3, 3)], width=width)


class TestScale:
    def test_one_scale_and_one_bar(self, make_result):
        maps = [make_result(9, 9, seed) for seed in range(3)]
        maps[1]["cka"] -= 0.8
        maps[2]["cka"] += 0.2
        axes = panels(maps)
        assert len(axes[0].figure.axes) == 4
        assert {ax.images[-1].get_clim() for ax in axes} == {(-0.5, 1.0)}  # one map needs the fade
        bars = [ax.images[-1].colorbar for ax in axes]
        assert bars[1:] == [None, None]
        assert bars[0].extend == "both"  # of all maps
        assert bars[0].ax.get_ylabel().replace("\n", " ") == "CKA (linear, unbiased)"
        assert bars[0].ax.get_window_extent().x0 > axes[2].get_window_extent().x1

    def test_a_measure_without_an_end_is_drawn_up_to_the_largest_of_all(self, make_result):
        first = make_result(5, 5).cka.assign_attrs(measure="hsic")
        # Products keep attributes only with later versions of xarray.
        axes = panels([first, (7 * first).assign_attrs(first.attrs)])
        assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim()
        assert axes[0].images[0].get_clim()[1] == pytest.approx(7 * float(first.max()))

    def test_two_measures_have_no_common_bar(self, make_result):
        first = make_result(5, 5)
        with pytest.raises(InputError, match=r"one measure(.|\n)*unbiased(.|\n)*\n  CKA.*biased"):
            panels([first, first.assign_attrs(estimator="biased")])

    def test_colours_beyond_the_scale_are_explained_without_a_bar(self, make_result):
        low = make_result(9, 9).cka - 0.8
        axes = panels([low, low], colorbar=False, vmax=0.1)
        (key,) = axes[0].figure.legends
        said = [text.get_text() for text in key.get_texts()]
        assert said == ["0 to −0.05", "below −0.05", "above 0.1"]
        scale = axes[0].images[-1].cmap
        fade, *samples = (patch.get_facecolor() for patch in key.get_patches())
        np.testing.assert_allclose(fade, matplotlib.colormaps["magma"](0.0), atol=1 / 255)
        np.testing.assert_allclose(samples, [scale.get_under(), scale.get_over()])
        (note,) = heatmap(low, colorbar=False).artists
        assert [text.get_text() for text in note.get_texts()] == ["0 to −0.5", "below −0.5"]

    def test_one_key_for_all_panels(self, make_result):
        first, second = make_result(9, 9).cka, make_result(9, 9, 1).cka
        first[0, 0] = np.nan
        axes = panels([first, second], above_chance=[None, second > 0.3], width=COLUMN)
        (key,) = axes[0].figure.legends
        assert [text.get_text() for text in key.get_texts()] == [
            "undefined (NaN)",
            "not above chance",
        ]
        assert_on_the_page(axes)


class TestPanels:
    def test_panels_of_a_row_have_one_height(self, make_result):
        axes = panels([make_result(20, 20), make_result(50, 20), make_result(20, 40)], columns=3)
        heights = sizes(axes)[:, 1]
        np.testing.assert_allclose(heights, heights[0], rtol=0.02)
        edges = [ax.get_window_extent().y0 for ax in axes]
        np.testing.assert_allclose(edges, edges[0], atol=1.5)

    def test_pictures_do_not_touch(self, make_result):
        maps = [make_result(12, 9, seed) for seed in range(4)]
        axes = panels(maps, columns=2, titles=list("abcd"))
        axes[0].figure.draw_without_rendering()
        boxes = [ax.get_tightbbox() for ax in axes]
        assert boxes[0].x1 < boxes[1].x0
        assert boxes[2].y1 < boxes[0].y0
        assert_on_the_page(axes)

    def test_neighbours_with_the_same_layers_share_their_names(self, make_result):
        one, other = make_result(9, 9), make_result(9, 9, 1)
        axes = panels([one, one, other, one], columns=2)
        for ax, y, x in zip(
            axes, (True, False, True, True), (True, False, True, True), strict=True
        ):
            assert bool(ax.get_ylabel()) == bool(ax.get_yticklabels()) == y
            assert bool(ax.get_xlabel()) == bool(ax.get_xticklabels()) == x

    def test_functions_draw_beside_maps(self, make_result):
        result, seen = make_result(9, 9), []
        axes = panels([seen.append, result, lambda ax: match(result, ax)], columns=2)
        assert seen == [axes[0]]
        assert axes[2].collections
        assert axes[2].get_tightbbox().x1 <= axes[0].figure.bbox.x1
        (only,) = panels([lambda ax: ax.plot([0, 1], label="curve") and ax.legend()])
        assert only.figure.axes == [only]
        for text in (*texts([only]), *only.get_legend().get_texts()):
            assert 7 <= text.get_fontsize() <= 9

    def test_groups_and_models(self):
        result = space(6)
        groups = {name: "cnn" if at % 2 else "vit" for at, name in enumerate(result.model_x.values)}
        axes = panels([result, result], groups=groups, width=COLUMN)
        (key,) = axes[0].figure.legends
        assert [text.get_text() for text in key.get_texts()] == ["vit", "cnn"]
        assert_on_the_page(axes)

    def test_a_new_figure_that_pyplot_knows(self, make_result):
        before = plt.figure()
        axes = panels([make_result(3, 3)])
        assert plt.gcf() is axes[0].figure is not before
        assert plt.gca() is axes[0]

    def test_a_later_size_is_filled_and_nothing_is_cut(self, make_result):
        axes = panels([make_result(9, 9)] * 2)
        axes[0].figure.set_size_inches(5, 3.2)
        assert_on_the_page(axes)

    def test_errors(self, make_result):
        one = make_result(3, 3)
        for wrong in (one, [], None, [one, 3], "ab"):
            with pytest.raises(InputError, match="panels: results must be a list of maps"):
                panels(wrong)
        for options, text in (
            ({"titles": ["a", "b"]}, "titles must have one entry for each panel"),
            ({"titles": "a"}, "titles must be a list of texts"),
            ({"titles": [3]}, "titles must be a list of texts"),
            ({"above_chance": [None, None]}, "above_chance must have one entry"),
            ({"above_chance": 3.0}, "panels: above_chance=3 is a z-score"),
            ({"columns": 0}, "columns must be a positive integer"),
            ({"labels": True}, "unknown labels"),
            ({"colorbar": 1}, "colorbar must be"),
            ({"cmap": "nope"}, "unknown cmap"),
            ({"groups": {}}, "groups must give the group"),
        ):
            count = len(plt.get_fignums())
            with pytest.raises(InputError, match=text):
                panels([one], **options)
            assert len(plt.get_fignums()) == count, options


class TestIndices:
    def test_round_numbers_from_zero(self, make_result):
        ax = heatmap(make_result(252, 68), width=COLUMN, labels="index")
        ax.figure.draw_without_rendering()
        for axis, count in ((ax.yaxis, 252), (ax.xaxis, 68)):
            places = axis.get_majorticklocs()
            assert places[0] == 0
            assert len(set(np.diff(places))) == 1
            assert places[1] in (5, 10, 20, 50, 100)
            assert count - places[1] <= places[-1] < count
            assert [t.get_text() for t in axis.get_ticklabels()] == [f"{p:.0f}" for p in places]
        boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert all(one.x1 < two.x0 for one, two in pairwise(boxes))

    def test_few_layers_have_each_their_number(self, make_result):
        ax = heatmap(make_result(4, 1), labels="index")
        ax.figure.draw_without_rendering()
        assert ax.get_yticks().tolist() == [0, 1, 2, 3]
        assert ax.get_xticks().tolist() == [0]


def fonts_of(pdf):
    """The kinds of fonts that a PDF has, also in its packed parts."""
    parts = [pdf]
    for piece in pdf.split(b"stream\n")[1:]:
        try:
            parts.append(zlib.decompress(piece))
        except zlib.error:
            continue
    whole = b"".join(parts)
    return {kind for kind in ("Type3", "CIDFontType2") if f"/Subtype /{kind}".encode() in whole}


def test_pdf_has_real_text_and_no_setting_changes(make_result):
    for ax in (heatmap(make_result(3, 3), width=COLUMN), trajectory(steps())):
        for save in (ax.figure.savefig, plt.savefig):
            file = io.BytesIO()
            plt.figure(ax.figure)
            save(file, format="pdf")
            assert fonts_of(file.getvalue()) == {"CIDFontType2"}
    assert plt.rcParams["pdf.fonttype"] == 3


def test_a_figure_has_the_type_that_experiment_trackers_know(make_result):
    """wandb.Image takes objects whose type is called "matplotlib. ...", not subclasses."""
    for ax in (heatmap(make_result(3, 3)), panels([make_result(3, 3)])[0]):
        assert type(ax.figure) is Figure


def test_a_figure_can_be_pickled(make_result):
    axes = panels([make_result(3, 3)] * 2, labels="index")
    again = pickle.loads(pickle.dumps(axes[0].figure))
    file = io.BytesIO()
    again.savefig(file, format="pdf")
    assert fonts_of(file.getvalue()) == {"CIDFontType2"}
    assert again.get_size_inches().tolist() == axes[0].figure.get_size_inches().tolist()


def test_a_title_keeps_its_lines():
    (ax,) = panels([lambda ax: ax.plot([0, 1])], titles=["blocks.1\nhalf of all tokens"], width=3.3)
    assert ax.get_title().splitlines() == ["blocks.1", "half of all tokens"]
