"""Curves over steps, and maps of steps: scales, names, colours, refused results."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plot import results as made
from repsim import InputError
from repsim.plot import trajectory


def test_a_line_per_layer_over_steps():
    result = made.steps()
    ax = trajectory(result.isel(step=[2, 0, 3, 1]))
    assert len(ax.lines) == 6
    for at, line in enumerate(ax.lines):
        np.testing.assert_array_equal(line.get_xdata(), [0, 100, 1000, 10_000])
        np.testing.assert_allclose(line.get_ydata(), result.cka[:, at])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == list(result.layer.values)
    assert ax.get_ylabel() == "CKA (linear)\nwith step 10000"
    assert len(ax.collections) == 6  # bands
    assert not trajectory(result.drop_vars("standard_error")).collections


def test_the_scale_of_steps():
    uneven, even = made.steps(), made.steps(steps=(0, 10, 20, 30))
    assert trajectory(uneven).get_xscale() == "symlog"
    assert trajectory(uneven, scale="linear").get_xscale() == "linear"
    assert trajectory(even).get_xscale() == "linear"
    ax = trajectory(made.steps(steps=(0, *2 ** np.arange(18))))
    FigureCanvasAgg(ax.figure).draw()
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names[0] == "0"
    assert names[-1] == "131072"
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_many_layers_have_a_bar():
    ax = trajectory(made.steps(layers=40))
    assert ax.get_legend() is None
    assert len(ax.child_axes) == 1


def test_chosen_layers():
    ax = trajectory(made.steps(), layers=["blocks.4", "blocks.1"])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["blocks.1", "blocks.4"]
    with pytest.raises(InputError, match="trajectory: layers must name"):
        trajectory(made.steps(), layers="blocks.99")


def test_a_map_per_layer_of_all_steps():
    result = made.between_steps()
    ax = trajectory(result)
    assert len(ax.images) == 6
    for at, image in enumerate(ax.images):
        np.testing.assert_allclose(image.get_array(), result.cka[:, :, at])
    assert "0 to 10000" in " ".join(ax.get_xlabel().split())
    assert ax.images[0].colorbar.norm.vmax == 1.0
    one = trajectory(result, layers=["blocks.2"])
    assert len(one.images) == 1
    FigureCanvasAgg(one.figure).draw()
    assert one.figure.bbox.fully_overlaps(one.xaxis.label.get_window_extent())


def test_other_measures_are_drawn_with_their_names():
    result = made.steps().rename(cka="procrustes")[["procrustes"]]
    result["procrustes"] = (3 - 3 * result.procrustes).assign_attrs(kind="dissimilarity")
    del result.attrs["kernel"]
    ax = trajectory(result)
    assert ax.get_ylabel() == "procrustes\nwith step 10000"
    assert ax.get_ylim()[1] > 2.4
    maps = made.between_steps().rename(cka="procrustes")[["procrustes"]]
    maps["procrustes"] = (3 - 3 * maps.procrustes).assign_attrs(kind="dissimilarity")
    ax = trajectory(maps)
    assert ax.images[0].colorbar.norm.vmax == pytest.approx(float(maps.procrustes.max()))
    assert ax.images[0].cmap.name == "viridis_r"  # bright is alike
    assert trajectory(maps, cmap="magma").images[0].cmap.name == "magma"


@pytest.mark.parametrize("size", [1e-3, 50])
def test_a_measure_without_a_greatest_value_fills_the_scale(size):
    attrs = {"measure": "hsic", "kind": "similarity"}
    lines = made.steps().rename(cka="hsic")[["hsic"]]
    lines["hsic"] = (size * lines.hsic).assign_attrs(attrs)
    most = float(lines.hsic.max())
    assert most < trajectory(lines).get_ylim()[1] < 1.1 * most
    maps = made.between_steps().rename(cka="hsic")[["hsic"]]
    maps["hsic"] = (size * maps.hsic).assign_attrs(attrs)
    bar = trajectory(maps).images[0].colorbar
    assert (bar.extend, bar.norm.vmax) == ("neither", float(maps.hsic.max()))


def test_undefined_values_are_gaps_or_hatched():
    result = made.steps()
    result["cka"][1, 2] = np.nan
    trajectory(result).figure.savefig(io.BytesIO())
    trajectory(result * np.nan).figure.savefig(io.BytesIO())
    maps = made.between_steps() * np.nan
    ax = trajectory(maps)
    assert len(ax.patches) == 12
    ax.figure.savefig(io.BytesIO())


def test_it_draws_where_it_is_asked_to():
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    assert trajectory(made.steps(), left) is left
    assert trajectory(made.between_steps(), right) is right
    figure.savefig(io.BytesIO())


@pytest.mark.slow
def test_errors():
    for wrong in (3, made.steps().cka, made.attention(), made.steps().isel(layer=0)):
        with pytest.raises(InputError, match="^trajectory: result must be an xarray.Dataset"):
            trajectory(wrong)
    with pytest.raises(InputError, match="trajectory: unknown scale"):
        trajectory(made.steps(), scale="cubic")
    with pytest.raises(InputError, match="needs steps of 0 or more"):
        trajectory(made.steps(steps=(-3, 2)), scale="log")
    with pytest.raises(InputError, match="trajectory: ax must be"):
        trajectory(made.steps(), 3)
