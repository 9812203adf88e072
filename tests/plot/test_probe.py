from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from plot.results import probes
from repsim import InputError
from repsim.plot import probe


def key(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def band(ax):
    (shape,) = ax.collections
    return shape.get_paths()[0].vertices


def test_a_line_for_each_choice():
    result = probes()
    ax = probe(result)
    assert key(ax) == ["CLS", "mean", "mean without CLS", "chance"]
    for line, values in zip(ax.lines[:3], result["accuracy"].values.T, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(12))
    assert len({line.get_color() for line in ax.lines[:3]}) == 3
    assert len({line.get_marker() for line in ax.lines[:3]}) == 3  # in print
    assert not ax.collections


def test_chance():
    (line,) = [line for line in probe(probes()).lines if line.get_linestyle() == "--"]
    assert list(line.get_ydata()) == [0.1, 0.1]
    result = probes()
    del result.attrs["chance"]
    assert "chance" not in key(probe(result))


def test_bands_are_one_standard_error_to_each_side():
    result = probes(single=4)
    result["standard_error"] = 0 * result["accuracy"] + 0.03
    bands = probe(result).collections
    assert len(bands) == 3 + 1
    for shape, values in zip(bands, result["accuracy"].values.T[:3], strict=False):
        vertices = shape.get_paths()[0].vertices
        at = vertices[vertices[:, 0] == 5, 1]
        assert (at.min(), at.max()) == pytest.approx((values[5] - 0.03, values[5] + 0.03))
    # It is the error on test, not on what is held out.
    assert len(probe(result, variable="holdout_accuracy").collections) == 1


def test_single_tokens_are_a_band():
    result = probes(layers=4, single=9)
    ax = probe(result)
    single = result["accuracy"].values[:, 3:]
    np.testing.assert_allclose(ax.lines[3].get_ydata(), np.median(single, axis=1))
    vertices = band(ax)
    for i, row in enumerate(single):
        at = vertices[vertices[:, 0] == i, 1]
        assert (at.min(), at.max()) == (row.min(), row.max())
    assert "single tokens\n(median, range)" in key(ax)


def test_single_tokens_that_a_layer_lacks():
    result = probes(layers=4, single=9)
    result["accuracy"][1, 5:] = np.nan
    result["accuracy"][2, 3:] = np.nan
    ax = probe(result)
    FigureCanvasAgg(ax.figure).draw()
    median = ax.lines[3].get_ydata()
    assert median[1] == np.median(result["accuracy"].values[1, 3:5])
    assert np.isnan(median).tolist() == [False, False, True, False]


def test_one_single_token():
    result = probes(single=3).sel(token=["cls", "2"])
    assert key(probe(result)) == ["CLS", "token 2", "chance"]


def test_token_that_a_layer_lacks():
    result = probes()
    result["accuracy"][3, 0] = np.nan
    assert np.isnan(probe(result).lines[0].get_ydata()[3])


def test_held_out_accuracy():
    result = probes()
    ax = probe(result, variable="holdout_accuracy")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), result["holdout_accuracy"].values[:, 0])
    assert "held-out" in ax.get_ylabel()


@pytest.mark.parametrize("layers", [6, 60])
def test_names_are_readable(assert_readable, layers):
    result = probes(layers=layers)
    ax = probe(result)
    FigureCanvasAgg(ax.figure).draw()
    assert_readable(ax, "x", result["layer"].values.tolist())
    assert all(text.get_text().endswith("%") for text in ax.get_yticklabels())
    assert ax.get_xlabel() == "layer"
    assert ax.get_ylim()[0] == 0


def test_unknown_variable():
    with pytest.raises(
        InputError, match=r"^probe: unknown variable(.|\n)*one of 'accuracy', 'holdout"
    ):
        probe(probes(), variable="ridge")
