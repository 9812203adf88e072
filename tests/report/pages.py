"""Results of every kind as the report gets them, and where on the screen a cell of a map is."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

HOSTILE = "</script><img src=x onerror='window.broken=1'>\"&{{ 7*7 }}"


def compared(m=30, n=24, seed=0, names=("blocks.{}.mlp.fc1", "layer{}.conv2"), **attrs):
    """A map as compare returns it: all values differ, some are negative, a row is undefined."""
    rng = np.random.default_rng(seed)
    depth_x, depth_y = np.linspace(0, 1, m)[:, None], np.linspace(0, 1, n)
    cka = 0.95 * np.exp(-((depth_x - depth_y) ** 2) / 0.05) + 0.03 * rng.standard_normal((m, n))
    cka[2:3] = np.nan
    z = 40 * cka + rng.standard_normal((m, n))
    dims = ("layer_x", "layer_y")
    return xr.Dataset(
        {
            "cka": (dims, cka, {"long_name": "CKA", "units": "1"}),
            "standard_error": (
                dims,
                0.001 + 0.03 * rng.random((m, n)),
                {"long_name": "standard error of CKA"},
            ),
            "z": (dims, z, {"long_name": "z-score of CKA under permutation"}),
        },
        coords={
            "layer_x": [names[0].replace("{}", str(i)) for i in range(m)],
            "layer_y": [names[1].replace("{}", str(i)) for i in range(n)],
        },
        attrs={
            "model_x": "ViT-Ti/16",
            "model_y": "ResNet-18",
            "kernel": "Linear()",
            "estimator": "minibatch unbiased",
            "n_samples": 2048,
            "n_batches": 16,
            "repsim_version": "0.1.0",
            "torch_version": "2.6.0",
            **attrs,
        },
    )


def shuffled(result, seed=1):
    """The same map with its layers in no order."""
    rng = np.random.default_rng(seed)
    return result.isel(
        layer_x=rng.permutation(result.sizes["layer_x"]),
        layer_y=rng.permutation(result.sizes["layer_y"]),
    )


def with_itself(m=12, seed=0, **attrs):
    """A symmetric map of one model, whose layers come in two kinds that alternate."""
    rng = np.random.default_rng(seed)
    kind = np.arange(m) % 2
    cka = np.where(kind[:, None] == kind, 0.8, 0.2) + 0.02 * rng.standard_normal((m, m))
    cka = (cka + cka.T) / 2
    np.fill_diagonal(cka, 1.0)
    names = [f"blocks.{i}" for i in range(m)]
    return xr.Dataset(
        {"cka": (("layer_x", "layer_y"), cka)},
        coords={"layer_x": names, "layer_y": names},
        attrs={"model_x": "untrained ViT", "model_y": "untrained ViT", "n_samples": 512, **attrs},
    )


def shown(value, digits=4):
    """A number as the page writes it."""
    if np.isnan(value):
        return "undefined"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def place_of(canvas):
    """What the page says about where the cells of a map are: its frame, and what is in view."""
    return json.loads(canvas.get_attribute("data-place"))


def position(place, i, j):
    """The middle of the cell in row i from below and column j, within its canvas, in pixels."""
    x = place["x"] + place["w"] * (j + 0.5 - place["c0"]) / (place["c1"] - place["c0"])
    y = place["y"] + place["h"] * (place["r1"] - i - 0.5) / (place["r1"] - place["r0"])
    return x, y
