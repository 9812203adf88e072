"""Names of layers and models may hold any characters: pictures show them escaped."""

from __future__ import annotations

import io

import pytest

from plot import results as made
from report.pages import compared
from repsim import plot

NAMES = ("\x1b]0;X\x07\x1b[31mred", "line\nline", "\udcff", "\u202eright", "\x7f\x9b", "$cost$_")
SHOWN = r"\x1b]0;X\x07\x1b[31mred0"

RESULTS = {
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


@pytest.mark.slow
@pytest.mark.parametrize("name", RESULTS)
def test_any_name_is_drawn(name):
    result = RESULTS[name]()
    for dim, names in result.coords.items():
        if names.dims == (dim,) and str(dim).startswith(
            ("layer", "model", "site", "block", "control")
        ):
            strange = [f"{NAMES[at % len(NAMES)]}{at}" for at in range(names.size)]
            result = result.assign_coords({dim: strange})
    for side in ("model", "model_x", "model_y"):
        result.attrs[side] = "".join(NAMES)
    options = {"layer": f"{NAMES[0]}0"} if name == "localization" else {}
    ax = getattr(plot, name)(result, **options)
    file = io.StringIO()
    ax.figure.savefig(file, format="svg", metadata={"Date": None})  # and no warning about glyphs
    if name == "heatmap":
        ticks = [label.get_text() for label in ax.get_xticklabels()]
        assert ticks[0] == SHOWN
