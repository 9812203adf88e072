"""Results of the analyses as their functions return them, with known and distinct values."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.attention import uniform_distance


def layer_names(count, form="blocks.{}.attn"):
    """Names that are not in alphabetical order: blocks.2 stands before blocks.10."""
    return [form.format(i) for i in range(count)]


def attention(layers=12, heads=12, grid=14, patch=16, prefix=1, seed=0):
    """Local and global heads below, global heads above, in no order; some heads are missing."""
    rng = np.random.default_rng(seed)
    uniform = uniform_distance(grid, patch, prefix)
    depth = np.linspace(0, 1, layers)[:, None]
    local = np.clip(rng.random((layers, heads)) + depth, 0, 1)
    distance = uniform * (0.15 + 0.9 * local)
    return xr.Dataset(
        {
            "distance": (("layer", "head"), distance, {"units": "pixels"}),
            "renormalised": (("layer", "head"), distance * 1.1, {"units": "pixels"}),
            "prefix_mass": (("layer", "head"), np.full((layers, heads), 0.1)),
            "entropy": (("layer", "head"), np.full((layers, heads), 4.0), {"units": "nats"}),
            "uniform_distance": ("layer", np.full(layers, uniform), {"units": "pixels"}),
        },
        coords={
            "layer": layer_names(layers),
            "grid_height": ("layer", np.full(layers, grid)),
            "grid_width": ("layer", np.full(layers, grid)),
            "patch_height": ("layer", np.full(layers, patch)),
            "patch_width": ("layer", np.full(layers, patch)),
            "prefix": ("layer", np.full(layers, prefix)),
        },
        attrs={"model": "ViT-B/16", "n_samples": 5000},
    )


def subsets(subsets=9, layers=4, kinds=("growing", "sliding"), seed=0):
    rng = np.random.default_rng(seed)
    count = subsets * len(kinds)
    distance = rng.permutation(np.linspace(20, 120, count))
    cka = 0.6 - 0.003 * distance[:, None] - 0.05 * np.arange(layers) + 0.01 * rng.random((count, 1))
    return xr.Dataset(
        {
            "cka": (("subset", "layer_y"), cka),
            "standard_error": (("subset", "layer_y"), 0.01 + 0.01 * rng.random((count, layers))),
        },
        coords={
            "mean_distance": ("subset", distance, {"units": "pixels"}),
            "kind": ("subset", np.repeat(kinds, subsets)),
            "size": ("subset", np.full(count, 3)),
            "layer_y": [f"layer{i + 1}.0.bn3" for i in range(layers)],
        },
        attrs={"layer": "blocks.0.attn", "model_x": "ViT-L/16", "model_y": "ResNet-50"},
    )


def fields(layers=6, rows=32, columns=32, form="blocks.{}"):
    """Gaussians that widen with depth on a floor, each of sum 1."""
    r, c = np.arange(rows)[:, None] - rows / 2, np.arange(columns) - columns / 2
    sigmas = np.linspace(1.0, 10.0, layers)
    field = np.exp(-(r**2 + c**2) / (2 * sigmas[:, None, None] ** 2))
    field /= field.sum(axis=(1, 2), keepdims=True)
    return xr.Dataset(
        {
            "field": (("layer", "row", "column"), field),
            "sigma": ("layer", sigmas * np.sqrt(2), {"units": "pixels"}),
            "participation_area": ("layer", sigmas**2),
            "side": ("layer", sigmas),
            "mass": ("layer", np.ones(layers)),
        },
        coords={"layer": layer_names(layers, form)},
        attrs={"erf_mode": "rademacher", "n_probes": 16, "n_samples": 32},
    )


def ratios(blocks=12, tokens=197, prefix=1, seed=0, branches=("attn", "mlp")):
    rng = np.random.default_rng(seed)
    sites = blocks * len(branches)
    depth = np.linspace(0, 1, sites)
    ratio = 1.5 + 2 * depth[:, None] + 0.5 * rng.random((sites, tokens))
    ratio[:, :prefix] = 6 - 5 * depth[:, None]
    head, rest = ratio[:, :prefix], ratio[:, prefix:]
    return xr.Dataset(
        {
            "ratio": (("site", "token"), ratio),
            "branch_share": (("site", "token"), 1 / (1 + ratio)),
            "cosine": (("site", "token"), np.zeros_like(ratio)),
            "ratio_prefix": ("site", head.mean(axis=1) if prefix else np.full(sites, np.nan)),
            "ratio_spatial": ("site", rest.mean(axis=1)),
        },
        coords={
            "site": [f"blocks.{i}.{b}" for i in range(blocks) for b in branches],
            "block": ("site", [f"blocks.{i}" for i in range(blocks) for _ in branches]),
            "branch": ("site", list(branches) * blocks),
            "kind": ("site", ["identity"] * sites),
            "n_prefix": ("site", [prefix] * sites),
            "n_tokens": ("site", [tokens] * sites),
        },
        attrs={"model": "ViT-B/16", "n_samples": 64},
    )


def influences(blocks=12, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"layers.{i}" for i in range(blocks)]
    turn = 0.02 + 0.3 / (1 + np.arange(blocks)) + 0.01 * rng.random(blocks)
    angular = np.full((blocks, blocks), np.nan)
    for start in range(blocks):
        angular[start, : blocks - start] = np.sqrt(np.cumsum(turn[start:])) / 2
    return xr.Dataset(
        {
            "influence": ("block", turn),
            "influence_standard_error": ("block", np.full(blocks, 0.005)),
            "norm_ratio": ("block", np.full(blocks, 1.1)),
            "norm_ratio_standard_error": ("block", np.full(blocks, 0.01)),
            "angular": (("start", "span"), angular),
            "angular_standard_error": (("start", "span"), angular * 0.02),
        },
        coords={"block": names, "start": names, "span": np.arange(1, blocks + 1)},
        attrs={"model": "Llama", "n_samples": 64, "tokens": "all"},
    )


def localized(layers=2, grid=(14, 14), patches=None, prefix=1, seed=0):
    """Tokens are most similar to their own patches in the first layer, and less so above."""
    rng = np.random.default_rng(seed)
    patches = patches or grid
    token_row, token_column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    patch_row, patch_column = np.divmod(np.arange(patches[0] * patches[1]), patches[1])
    away = np.hypot(
        (token_row[:, None] + 0.5) / grid[0] - (patch_row + 0.5) / patches[0],
        (token_column[:, None] + 0.5) / grid[1] - (patch_column + 0.5) / patches[1],
    )
    cka = np.empty((layers, prefix + len(away), len(patch_row)))
    for i in range(layers):
        cka[i, prefix:] = 0.6 * np.exp(-away / 0.15) / (i + 1)
        cka[i, :prefix] = 0.05
    cka += 0.02 * rng.standard_normal(cka.shape)
    none = np.full(prefix, np.nan)
    every = [np.concatenate([none, at]) for at in (token_row, token_column)]
    return xr.Dataset(
        {
            "cka": (("layer", "token", "patch"), cka),
            "hit_rate": ("layer", np.linspace(0.93, 0.5, layers)),
            "chance": ("layer", np.full(layers, 1 / len(patch_row))),
        },
        coords={
            "layer": layer_names(layers, "blocks.{}"),
            "token_row": (("layer", "token"), np.tile(every[0], (layers, 1))),
            "token_column": (("layer", "token"), np.tile(every[1], (layers, 1))),
            "is_prefix": (
                ("layer", "token"),
                np.tile(np.arange(cka.shape[1]) < prefix, (layers, 1)),
            ),
            "patch_row": (("layer", "patch"), np.tile(1.0 * patch_row, (layers, 1))),
            "patch_column": (("layer", "patch"), np.tile(1.0 * patch_column, (layers, 1))),
        },
        attrs={"patch_size": (16, 16), "grid": patches, "n_samples": 1024},
    )


def probes(layers=12, single=0, seed=0):
    rng = np.random.default_rng(seed)
    names = ["cls", "mean", "mean_without_cls", *map(str, range(1, single + 1))]
    depth = np.linspace(0, 1, layers)[:, None]
    accuracy = 0.1 + 0.7 * depth**2 * np.linspace(1, 0.7, 3)
    alone = 0.1 + 0.3 * depth**2 + 0.1 * rng.random((layers, single)) * depth
    accuracy = np.concatenate([accuracy, alone], axis=1)
    return xr.Dataset(
        {
            "accuracy": (("layer", "token"), accuracy),
            "ridge": (("layer", "token"), np.ones_like(accuracy)),
            "holdout_accuracy": (("layer", "token"), 0.9 * accuracy),
        },
        coords={"layer": layer_names(layers, "blocks.{}"), "token": names},
        attrs={"n_train": 1000, "n_test": 1000, "n_classes": 10, "chance": 0.1},
    )


def scales(layers=12, fractions=(0.03, 0.1, 0.3), controls=("other seed", "untrained")):
    depth = np.linspace(0, 1, layers)
    cka = np.stack([1 - (1 - f**0.4) * depth for f in fractions])
    control = np.stack([1 - 0.1 * (i + 1) * depth for i in range(len(controls))])
    return xr.Dataset(
        {
            "cka": (("fraction", "layer"), cka),
            "standard_error": (("fraction", "layer"), np.full_like(cka, 0.02)),
            "control_cka": (("control", "layer"), control),
        },
        coords={
            "fraction": list(fractions),
            "layer": layer_names(layers, "blocks.{}"),
            "control": list(controls),
        },
        attrs={"n_samples": 5000},
    )


def space(models=6, dim="model", seed=0):
    """Distances between points of a plane, in two clusters."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(models, 2)) + 4.0 * (np.arange(models)[:, None] % 2)
    gaps = np.linalg.norm(points[:, None] - points, axis=2)
    names = [f"net {i}" for i in range(models)]
    return xr.DataArray(
        gaps,
        dims=(f"{dim}_x", f"{dim}_y"),
        coords={f"{dim}_x": names, f"{dim}_y": names},
        name="procrustes",
        attrs={"kind": "dissimilarity"},
    )


def steps(layers=6, steps=(0, 100, 1000, 10_000)):
    """Layers that come to their final form one after another."""
    done = np.linspace(0, 1, len(steps))[:, None]
    cka = 1 - (1 - done) * np.linspace(0.2, 0.9, layers)
    return xr.Dataset(
        {
            "cka": (("step", "layer"), cka),
            "standard_error": (("step", "layer"), np.full_like(cka, 0.02)),
        },
        coords={"step": list(steps), "layer": layer_names(layers, "blocks.{}")},
        attrs={"n_samples": 5000, "compared_with": f"step {steps[-1]}", "kernel": "Linear()"},
    )


def between_steps(layers=6, steps=(0, 100, 1000, 10_000)):
    at = np.arange(len(steps))
    cka = 1 - np.abs(at[:, None] - at)[:, :, None] * np.linspace(0.1, 0.2, layers)
    dims = ("step_x", "step_y", "layer")
    return xr.Dataset(
        {"cka": (dims, cka)},
        coords={
            "step_x": list(steps),
            "step_y": list(steps),
            "layer": layer_names(layers, "blocks.{}"),
        },
        attrs={"n_samples": 5000, "compared_with": "every other step", "kernel": "Linear()"},
    )


def stitched(layers_x=2, layers_y=3):
    """Later layers of y are easier to replace; the identity fits nowhere."""
    disagreement = np.linspace(0.5, 0.1, layers_y) * np.ones((2, layers_x, 1))
    disagreement[1] = np.nan
    dims = ("stitch", "layer_x", "layer_y")
    return xr.Dataset(
        {
            "kl": (dims, 2 * disagreement),
            "disagreement": (dims, disagreement),
            "disagreement_standard_error": (dims, np.full_like(disagreement, 0.02)),
            "own_accuracy": 0.9,
        },
        coords={
            "stitch": ["fitted", "identity"],
            "layer_x": layer_names(layers_x, "blocks.{}"),
            "layer_y": layer_names(layers_y, "stages.{}"),
        },
        attrs={"model_x": "ViT", "model_y": "CNN"},
    )
