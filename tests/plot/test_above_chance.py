"""Cells that are not above chance are grey in a heatmap, and nothing else is."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from repsim import InputError
from repsim.plot import heatmap

GREY = to_rgba("#b8b8b8")


def colours(ax, shape):
    """The colour in the middle of every cell."""
    canvas = FigureCanvasAgg(ax.figure.get_figure(root=True))
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1] / 255
    out = np.zeros((*shape, 4))
    for i in range(shape[0]):
        for j in range(shape[1]):
            x, y = ax.transData.transform((j, i)).astype(int)
            out[i, j] = pixels[y, x]
    return out


def expected_colours(result, above, cmap="magma", grey=GREY):
    out = matplotlib.colormaps[cmap](result.cka.values)
    out[~above] = grey
    return out


@pytest.fixture
def result(make_result):
    out = make_result(3, 4)
    z = np.random.default_rng(0).permutation(np.linspace(-2, 8, 12)).reshape(3, 4)
    return out.assign(z=(("layer_x", "layer_y"), z))


def notes(ax):
    legends = [child for child in ax.get_children() if hasattr(child, "get_texts")]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


@pytest.mark.parametrize("above_chance", [3.0, 3, np.float64(3)])
def test_a_z_score(result, above_chance):
    ax = heatmap(result, above_chance=above_chance)
    above = result.z.values >= 3
    assert 0 < above.sum() < 12
    np.testing.assert_allclose(colours(ax, (3, 4)), expected_colours(result, above), atol=2 / 255)
    assert notes(ax) == ["not above\nchance (z < 3)"]


def test_a_mask(result):
    mask = result.z >= 0.5
    for each in (mask, mask.transpose("layer_y", "layer_x")):
        ax = heatmap(result["cka"], above_chance=each)
        np.testing.assert_allclose(
            colours(ax, (3, 4)), expected_colours(result, mask.values), atol=2 / 255
        )
        assert notes(ax) == ["not above\nchance"]


def test_order_of_dimensions_does_not_matter(result):
    ax = heatmap(result.transpose("layer_y", "layer_x"), above_chance=3.0)
    above = result.z.values >= 3
    np.testing.assert_allclose(colours(ax, (3, 4)), expected_colours(result, above), atol=2 / 255)


def test_not_asked_for_nothing_changes(result):
    ax = heatmap(result)
    assert len(ax.images) == 1
    np.testing.assert_array_equal(ax.images[0].get_array(), result.cka.values, strict=True)
    assert notes(ax) == []


def test_all_above_needs_no_note(result):
    ax = heatmap(result, above_chance=-5.0)
    assert len(ax.images) == 1
    assert notes(ax) == []
    nothing = heatmap(result, above_chance=99.0)
    np.testing.assert_allclose(
        colours(nothing, (3, 4)), np.broadcast_to(GREY, (3, 4, 4)), atol=2 / 255
    )


def test_undefined_stays_undefined(result):
    cka, z = result.cka.values.copy(), result.z.values.copy()
    cka[1, 2] = z[1, 2] = np.nan
    result = result.assign(cka=(result.cka.dims, cka), z=(result.cka.dims, z))
    ax = heatmap(result, above_chance=3.0)
    found = colours(ax, (3, 4))
    others = np.ones((3, 4), dtype=bool)
    others[1, 2] = False
    expected = expected_colours(result.fillna(0), z >= 3)
    np.testing.assert_allclose(found[others], expected[others], atol=2 / 255)
    assert notes(ax) == ["undefined (NaN)", "not above\nchance (z < 3)"]
    # Hatched: the greys of the hatching, not the one of chance.
    assert np.abs(found[1, 2] - GREY).max() > 0.03


def test_grey_cells_need_no_colour_below_the_scale(result):
    cka = result.cka.values.copy()
    cka[0, 0] = -0.7
    z = result.z.values.copy()
    z[0, 0] = -1.5
    result = result.assign(cka=(result.cka.dims, cka), z=(result.cka.dims, z))
    assert heatmap(result).images[-1].colorbar.extend == "min"
    assert heatmap(result, above_chance=3.0).images[-1].colorbar.extend == "neither"


def test_on_a_grey_scale_it_is_not_grey(result):
    ax = heatmap(result, above_chance=3.0, cmap="gray")
    above = result.z.values >= 3
    expected = expected_colours(result, above, "gray", to_rgba("#cdb99a"))
    np.testing.assert_allclose(colours(ax, (3, 4)), expected, atol=2 / 255)


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_notes_stay_on_the_figure(result, layout):
    ax = heatmap(result, Figure(figsize=(4, 3), layout=layout).subplots(), above_chance=3.0)
    FigureCanvasAgg(ax.figure).draw()
    legend = next(child for child in ax.get_children() if hasattr(child, "get_texts"))
    box, page = legend.get_window_extent(), ax.figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1


def test_refuses(result):
    with pytest.raises(InputError, match=r"is a z-score, and result has none.\n.*DataArray"):
        heatmap(result["cka"], above_chance=3.0)
    with pytest.raises(
        InputError, match=r"is a z-score, and result has none.*\n.*\n.*z_scores=True"
    ):
        heatmap(result.drop_vars("z"), above_chance=3.0)
    for bad in (True, "3", result.z.values > 3):
        with pytest.raises(
            InputError,
            match="above_chance must be a finite number(.|\n)*Or a DataArray of booleans",
        ):
            heatmap(result, above_chance=bad)
    with pytest.raises(InputError, match="must be booleans, or one z-score"):
        heatmap(result, above_chance=result.z)
    with pytest.raises(InputError, match="must have the layers of result, in the same order"):
        heatmap(result, above_chance=result.z.isel(layer_x=[0, 2, 1]) > 3)
    with pytest.raises(InputError, match="2 in above_chance, 3 in result"):
        heatmap(result, above_chance=result.z.isel(layer_x=[0, 2]) > 3)
