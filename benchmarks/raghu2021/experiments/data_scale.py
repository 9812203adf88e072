"""Figure 11: which layers of a ViT need much data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import xarray as xr

import repsim
from raghu2021.experiments._base import (
    Finding,
    Measurement,
    Picture,
    Results,
    number,
    panels,
    verdict,
)
from raghu2021.lab import Lab
from raghu2021.layers import blocks

__all__ = ["findings", "measurements", "pictures"]

FIGURE = "Fig. 11"
NAME = "data-scale/vit"


def measurements(lab: Lab) -> Iterable[Measurement]:
    parts = lab.parts()
    if parts and lab.has("vit"):
        controls = [*lab.seeds("vit")[1:], *lab.roles("vit-untrained")]
        yield Measurement(
            NAME, ("vit", *parts.values(), *controls), partial(_measure, lab, controls)
        )


def _measure(lab: Lab, controls: list[str]) -> xr.Dataset:
    full = lab.model("vit")
    return repsim.data_scale(
        {part: lab.model(role) for part, role in lab.parts().items()},
        full,
        lab.cka_data(),
        layers=blocks(full, lab.example("vit")),
        controls={lab.label(role): lab.model(role) for role in controls},
        name=lab.label("vit"),
        progress=False,
    )


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    if NAME not in results:
        return
    result = results[NAME]
    figure, (ax,) = panels(1, width=5.6, height=4.0)
    repsim.plot.data_scale(result, ax)
    ends = "; ".join(
        f"{float(part):.0%} from {float(values[0]):.2f} to {float(values[-1]):.2f}"
        for part, values in zip(result.fraction.values, result.cka.values, strict=True)
    )
    yield Picture(
        "fig11-data-scale",
        figure,
        f"{FIGURE}. CKA of each block with the same block of the ViT that was trained on all data.",
        "CKA with the model that was trained on all data, from the first block to the last: "
        f"{ends}.",
    )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    if NAME not in results:
        return
    result = results[NAME]
    falls = [fall(*pair) for pair in zip(result.cka, result.standard_error, strict=True)]
    controls = {
        str(name): fall(
            result.control_cka.sel(control=name), result.control_standard_error.sel(control=name)
        )
        for name in result.control.values
    }
    other = [controls[lab.label(role)] for role in lab.seeds("vit")[1:]]
    most = max((value for value, _ in other), default=0.0)
    error = max((e for _, e in other), default=0.0)
    yield Finding(
        FIGURE,
        "Lower layers need little data; higher layers need much.",
        "Lower layers of models trained on a part of the data are similar to those of the full "
        "model; higher layers are not.",
        "Take the mean CKA with the full model over the lowest third of the blocks, minus the "
        "mean over the highest third. For each part of the data this difference is above zero, "
        "and above the same difference for other seeds with all data, both by more than two "
        "standard errors.",
        "; ".join(
            f"{float(part):.0%}: {number(*value)}"
            for part, value in zip(result.fraction.values, falls, strict=True)
        ),
        "; ".join(f"{name}: {number(*value)}" for name, value in controls.items()),
        verdict([m for v, e in falls for m in (v > 2 * e, v - most > 2 * (e + error))]),
    )


def fall(cka: xr.DataArray, error: xr.DataArray) -> tuple[float, float]:
    """Mean over the lowest third of the blocks less the highest, and a bound for its error."""
    third = max(cka.size // 3, 1)
    low, high = cka.values[:third], cka.values[-third:]
    errors = error.values[:third].mean() + error.values[-third:].mean()
    return float(np.mean(low) - np.mean(high)), float(errors)
