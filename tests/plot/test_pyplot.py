"""Without ax=, a picture is drawn where pyplot, a notebook or a plain script expects it."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from plot import results as made
from report.pages import compared
from repsim import plot

PICTURES = {
    "heatmap": compared,
    "layer_match": compared,
    "attention_distance": made.attention,
    "block_influence": made.influences,
    "data_scale": made.scales,
    "dendrogram": made.space,
    "embedding": made.space,
    "head_subsets": made.subsets,
    "localization": made.localized,
    "probe": made.probes,
    "receptive_field": made.fields,
    "residual_ratios": made.ratios,
    "trajectory": made.steps,
}


SMALL = {
    "heatmap": lambda: compared(6, 5),
    "layer_match": lambda: compared(6, 5),
    "attention_distance": lambda: made.attention(layers=3, heads=3),
    "block_influence": lambda: made.influences(blocks=3),
    "data_scale": lambda: made.scales(layers=3),
    "head_subsets": lambda: made.subsets(layers=1),
    "localization": lambda: made.localized(layers=1, grid=(3, 4)),
    "probe": lambda: made.probes(layers=3),
    "receptive_field": lambda: made.fields(layers=2),
    "residual_ratios": lambda: made.ratios(blocks=2, tokens=17),
}
"""The larger ones again, with little to draw."""


def draw(name, pictures=PICTURES):
    result = pictures[name]()
    options = {"layer": str(result.layer.values[0])} if name == "localization" else {}
    return getattr(plot, name)(result, **options)


def saved():
    """What plt.savefig writes."""
    file = io.BytesIO()
    plt.savefig(file, dpi=50)
    return np.asarray(Image.open(file).convert("L"))


@pytest.mark.slow
def test_every_picture_is_the_current_figure_of_pyplot():
    assert set(PICTURES) == set(plot.__all__) - {"panels"}
    for name in PICTURES:
        ax = draw(name, PICTURES | SMALL)
        assert plt.gcf() is ax.figure, name
        assert plt.gca() is ax, name
        assert len(np.unique(saved())) > 10, name  # not blank
        plt.close("all")


def test_each_picture_has_a_figure_of_its_own():
    first, second = draw("heatmap"), draw("trajectory")
    assert first.figure is not second.figure
    assert plt.get_fignums() == [1, 2]


def test_an_empty_figure_or_axes_of_pyplot_is_used():
    figure = plt.figure(figsize=(7, 3))
    ax = draw("heatmap")
    assert ax.figure is figure
    assert figure.get_size_inches().tolist() == [7, 3]
    figure, axes = plt.subplots(1, 2)
    plt.sca(axes[0])
    assert draw("heatmap") is axes[0]
    plt.sca(axes[1])
    assert draw("trajectory") is axes[1]
    assert draw("trajectory") not in axes  # both are full
    plt.figure()
    plt.subplot(1, 2, 2)
    place = plt.gca()
    assert draw("heatmap") is place


def test_names_in_an_empty_figure_are_not_cut_off():
    plt.figure(figsize=(4, 3))
    ax = draw("heatmap")
    ax.figure.canvas.draw()
    for label in [*ax.get_xticklabels(), *ax.get_yticklabels()]:
        assert ax.figure.bbox.fully_overlaps(label.get_window_extent()), label.get_text()


def test_ax_leaves_pyplot_alone():
    _, ax = plt.subplots()
    other = plt.figure()
    plot.heatmap(compared(), ax)
    assert plt.gcf() is other


@pytest.mark.slow
@pytest.mark.parametrize("imported", [True, False])
def test_a_script(imported, tmp_path):
    code = f"""
import sys
{"import matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as plt" * imported}
import numpy as np, xarray as xr, repsim
cka = xr.DataArray(np.eye(3), dims=("layer_x", "layer_y"),
                   coords={{"layer_x": list("abc"), "layer_y": list("abc")}}, name="cka")
ax = repsim.plot.heatmap(cka)
assert ("matplotlib.pyplot" in sys.modules) == {imported}
if {imported}:
    assert plt.gcf() is ax.figure
    plt.savefig("it.png")
    plt.show()
ax.figure.savefig("it.png")
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert len(np.unique(np.asarray(Image.open(tmp_path / "it.png").convert("L")))) > 10


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import repsim", "import repsim, matplotlib.pyplot as plt"])
def test_a_notebook_shows_the_picture_below_its_cell(first):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    cells = [
        f"{first}\nimport numpy as np, xarray as xr\n"
        "cka = xr.DataArray(np.eye(3), dims=('layer_x', 'layer_y'), name='cka',"
        " coords={'layer_x': list('abc'), 'layer_y': list('abc')})",
        "ax = repsim.plot.heatmap(cka)",
        "repsim.plot.heatmap(cka); repsim.plot.dendrogram(cka.assign_attrs(kind='similarity'));",
        "ax.figure.savefig('/dev/null', format='png')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [
        [output["data"]["image/png"] for output in cell["outputs"] if "data" in output]
        for cell in notebook.cells
    ]
    assert [len(pictures) for pictures in shown] == [0, 1, 2, 0]
    for picture in shown[1] + shown[2]:
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
