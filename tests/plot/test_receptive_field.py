from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plot.results import fields
from repsim import InputError
from repsim.plot import receptive_field


def draw(ax):
    FigureCanvasAgg(ax.figure).draw()


def names_of(ax):
    return list(ax.texts)


def test_maps_are_the_fields_in_order():
    result = fields(layers=6)
    ax = receptive_field(result)
    for image, field in zip(ax.images, result["field"].values, strict=True):
        np.testing.assert_array_equal(image.get_array(), field)
    lines = [text.get_text().splitlines() for text in names_of(ax)]
    expected = [f"σ = {sigma:.3g} px" for sigma in result["sigma"].values]
    assert [line[0] for line in lines] == result["layer"].values.tolist()
    assert [line[1] for line in lines] == expected


def test_maps_run_row_by_row_and_stand_upright():
    ax = receptive_field(fields(layers=5), columns=3)
    left = [image.get_extent()[0] for image in ax.images]
    top = [image.get_extent()[3] for image in ax.images]
    assert left[0] < left[1] < left[2]
    assert left[:2] == left[3:]
    assert top[0] == top[1] == top[2] < top[3] == top[4]
    assert ax.yaxis_inverted()
    # Row 0 of a field is at the top: the image's own top is the lesser y.
    left, right, bottom, top = ax.images[0].get_extent()
    assert (right - left, bottom - top) == (32, 32)
    assert ax.images[0].origin == "upper"


def test_a_name_stands_over_its_own_map():
    ax = receptive_field(fields(layers=5), columns=3)
    for image, name in zip(ax.images, names_of(ax), strict=True):
        left, right, _, top = image.get_extent()
        assert left < name.get_position()[0] < right
        assert top - 2 < name.get_position()[1] < top


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_one_scale_for_all(scale):
    result = fields()
    ax = receptive_field(result, scale=scale)
    greatest = float(result["field"].max())
    assert len({(image.norm.vmin, image.norm.vmax) for image in ax.images}) == 1
    assert ax.images[0].norm.vmax == greatest
    assert isinstance(ax.images[0].norm, LogNorm) == (scale == "log")
    bar = ax.images[0].colorbar
    if scale == "log":
        np.testing.assert_allclose(ax.images[0].norm.vmin, greatest / 1e4)
        assert bar.extend == "min"
    else:
        assert ax.images[0].norm.vmin == 0
        assert bar.extend == "neither"
    assert bar.ax.get_ylabel() == "part of the field per pixel"


def test_values_below_the_scale_have_its_lowest_colour():
    result = fields(layers=1)
    result["field"][0, 0, 0] = 0
    image = receptive_field(result).images[0]
    np.testing.assert_array_equal(image.cmap(image.norm(0.0)), image.cmap(0.0))


def test_some_layers():
    ax = receptive_field(fields(layers=12), layers=["blocks.10", "blocks.2"])
    assert [text.get_text().splitlines()[0] for text in names_of(ax)] == ["blocks.2", "blocks.10"]


def test_without_sigma():
    ax = receptive_field(fields(layers=2).drop_vars("sigma"))
    assert [text.get_text() for text in names_of(ax)] == ["blocks.0", "blocks.1"]


def test_undefined_field():
    result = fields(layers=3)
    result["field"][1], result["sigma"][1] = np.nan, np.nan
    ax = receptive_field(result)
    draw(ax)
    hatched = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert [p.get_x() for p in hatched] == [ax.images[1].get_extent()[0]]
    assert "σ undefined" in names_of(ax)[1].get_text()


@pytest.mark.parametrize("layers", [1, 6, pytest.param(60, marks=pytest.mark.slow)])
def test_names_on_a_figure_of_its_own(layers):
    result = fields(layers, form="model.encoder.blocks.{}.mlp")
    ax = receptive_field(result)
    draw(ax)
    boxes = [name.get_window_extent() for name in names_of(ax)]
    for text, name, box in zip(names_of(ax), result["layer"].values, boxes, strict=True):
        first, second = text.get_text().splitlines()
        assert text.get_fontsize() >= 6
        assert name.endswith(first.removeprefix("…"))
        assert len(first) >= len("blocks.0.mlp")
        assert second.startswith("σ = ")
        assert box.x0 >= ax.figure.bbox.x0
        assert box.x1 <= ax.figure.bbox.x1
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("size", [(2.5, 2.5), (6, 2), (10, 8)])
def test_names_stay_in_their_boxes(size):
    ax = Figure(figsize=size).subplots()
    receptive_field(fields(24, form="encoder.blocks.{}.mlp"), ax)
    draw(ax)
    for image, name in zip(ax.images, names_of(ax), strict=True):
        if not name.get_text():  # too small for any
            assert size == (2.5, 2.5)
            continue
        tile, box = image.get_window_extent(), name.get_window_extent()
        assert box.width <= tile.width + 1
        assert box.height <= 0.36 * tile.height + 2


def test_columns_fill_the_axes():
    wide, tall = Figure(figsize=(12, 2)).subplots(), Figure(figsize=(2, 12)).subplots()
    counts = []
    for ax in (wide, tall):
        receptive_field(fields(layers=12), ax)
        counts.append(len({image.get_extent()[0] for image in ax.images}))
    assert counts[0] >= 6 > 2 >= counts[1]


def test_rectangular_input():
    ax = receptive_field(fields(layers=3, rows=16, columns=48))
    left, right, bottom, top = ax.images[0].get_extent()
    assert (right - left, bottom - top) == (48, 16)
    assert ax.get_aspect() == 1


class TestErrors:
    def test_nothing_positive(self):
        result = fields()
        result["field"][:] = 0
        with pytest.raises(InputError, match=r"^receptive_field: field must have positive"):
            receptive_field(result)

    def test_options(self):
        with pytest.raises(InputError, match=r"unknown scale(.|\n)*one of 'log', 'linear'"):
            receptive_field(fields(), scale="sqrt")
        for columns in (0, "2"):
            with pytest.raises(InputError, match=r"columns must be a positive integer"):
                receptive_field(fields(), columns=columns)
        with pytest.raises(InputError, match=r"layers must name layers"):
            receptive_field(fields(), layers=["head"])


@pytest.mark.parametrize("layers", [3, 14])
def test_the_field_of_a_video_over_its_frames(layers):
    result = fields(layers=layers)
    over = np.random.default_rng(0).dirichlet(np.ones(8), layers)
    over[1, 2] = 0.0  # beyond what the layer sees: a gap on a logarithmic scale
    result["time_field"], result["time_sigma"] = (("layer", "frame"), over), ("layer", over[:, 0])
    for scale in ("log", "linear"):
        ax = receptive_field(result, variable="time_field", scale=scale)
        draw(ax)
        for line, values in zip(ax.lines, over, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), values)
        assert ax.get_yscale() == scale
        assert (ax.get_xlabel(), ax.get_ylabel()) == (
            "frame of the input",
            "part of the field per frame",
        )
    if layers == 3:
        first = ax.get_legend().get_texts()[0].get_text()
        assert first == f"blocks.0, σ = {over[0, 0]:.3g} frames"
    chosen = receptive_field(result, layers=["blocks.1"], variable="time_field")
    assert len(chosen.lines) == 1
    with pytest.raises(InputError, match="is not of videos"):
        receptive_field(fields(), variable="time_field")
    with pytest.raises(InputError, match="without columns"):
        receptive_field(result, variable="time_field", columns=2)
