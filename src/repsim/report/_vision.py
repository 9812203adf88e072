"""The other measurements as sections: attention, fields, residuals, places, probes, data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Finding, Section, Series, Tile, Tiles, number

__all__ = [
    "attention_section",
    "data_scale_section",
    "field_section",
    "localization_section",
    "probe_section",
    "ratio_section",
    "subset_section",
]

FIELD_SIDE = 64
"""Cells along the longer side of a receptive field, which is averaged down to it."""

DECADES = 3
"""Of a receptive field, as in repsim.plot."""

FEW_TESTED = 400
"""Samples: of fewer, the standard error of an accuracy of a half is above 2.5%."""

CELLS = 600_000
"""Of all localisation maps together; beyond, only every second (third, ...) token is kept."""


def _names(result: xr.Dataset, dim: str) -> list[str]:
    return [str(name) for name in result[dim].values]


def _values(result: xr.Dataset, key: str, *dims: str) -> Any:
    return result[key].transpose(*dims).values.astype(np.float64)


def _has(result: xr.Dataset, key: str, *dims: str) -> bool:
    return key in result and set(result[key].dims) == set(dims)


def _model(result: xr.Dataset) -> str:
    return str(result.attrs.get("model") or "the model")


def _ends(
    what: str,
    names: Sequence[str],
    values: Any,
    digits: int = 3,
    unit: str = "",
    *,
    of: str = "layer",
) -> list[Finding]:
    """First and last of values along the layers, where they are defined."""
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return []
    ends = [int(known[0])] if known.size == 1 else [int(known[0]), int(known[-1])]
    return [
        Finding(
            f"{what}, {'first' if k == 0 else 'last'} {'' if known.size > 1 else 'and only '}{of}",
            number(float(values[i]), digits) + unit,
            names[i],
        )
        for k, i in enumerate(ends)
    ]


def _extreme(
    what: str, names: Sequence[str], values: Any, digits: int = 3, unit: str = "", *, most: bool
) -> list[Finding]:
    if not np.isfinite(values).any():
        return []
    i = int(np.nanargmax(values) if most else np.nanargmin(values))
    return [Finding(what, number(float(values[i]), digits) + unit, names[i])]


def _mean(values: Any, axis: int) -> Any:
    """Mean of what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def attention_section(name: str, result: xr.Dataset) -> Section:
    """Mean attention distance, layer by layer and head by head."""
    layers = _names(result, "layer")
    distance = _values(result, "distance", "layer", "head")
    mean = _mean(distance, 1)
    section = Section(name, "Attention distance", f"how far the heads of {_model(result)} look")
    section.findings = _ends("mean attention distance", layers, mean, 1, " px")
    flat = [f"{layer}, head {h}" for layer in layers for h in range(distance.shape[1])]
    section.findings += _extreme("most local head", flat, distance.ravel(), 1, " px", most=False)
    section.findings += _extreme("most global head", flat, distance.ravel(), 1, " px", most=True)
    references: list[Series] = []
    if _has(result, "uniform_distance", "layer"):
        uniform = _values(result, "uniform_distance", "layer")
        for which, i in (("first", 0), ("last", len(layers) - 1)):
            heads = distance[i][np.isfinite(distance[i])]
            if heads.size and np.isfinite(uniform[i]):
                local = int((heads < uniform[i] / 2).sum())
                section.findings.append(
                    Finding(
                        f"heads of the {which} layer below half of uniform attention",
                        f"{local} of {heads.size}",
                        layers[i],
                    )
                )
        references = [
            Series(
                "uniform attention",
                np.arange(len(layers)),
                uniform,
                points=False,
                dashed=True,
                reference=True,
            )
        ]
    head_at = np.argsort(np.argsort(distance, axis=1), axis=1)  # NaN last
    known = np.isfinite(distance)
    at, which_head = np.nonzero(known)
    section.pictures.append(
        Chart(
            "Mean attention distance of every head",
            f"{int(known.sum())} heads in {len(layers)} layers, by their mean attention distance; "
            f"the mean of a layer's heads goes from {number(float(mean[0]), 1)} to "
            f"{number(float(mean[-1]), 1)} pixels.",
            "layer",
            "mean attention distance (pixels)",
            [
                Series(
                    "head",
                    at,
                    distance[known],
                    line=False,
                    names=[f"{layers[i]}, head {h}" for i, h in zip(at, which_head, strict=True)],
                    values=[
                        f"rank {head_at[i, h] + 1} of {int(known[i].sum())} in its layer"
                        for i, h in zip(at, which_head, strict=True)
                    ],
                ),
                Series("mean of the heads", np.arange(len(layers)), mean, points=False),
                *references,
            ],
            categories=layers,
            note="A head below the dashed line looks less far than one that attends to all tokens "
            "alike. Attention to prefix tokens (CLS) counts as distance 0.",
        )
    )
    if _has(result, "prefix_mass", "layer", "head"):
        mass = _mean(_values(result, "prefix_mass", "layer", "head"), 1)
        section.findings += _ends("attention to prefix tokens, mean of heads", layers, mass)
        if np.nanmax(mass, initial=0.0) > 0:
            section.pictures.append(
                Chart(
                    "Attention to prefix tokens",
                    f"Share of attention that goes to prefix tokens (CLS), mean of the heads of "
                    f"each of {len(layers)} layers.",
                    "layer",
                    "share of attention",
                    [Series("mean of the heads", np.arange(len(layers)), mass)],
                    categories=layers,
                    percent=True,
                )
            )
    if _has(result, "entropy", "layer", "head"):
        entropy = _mean(_values(result, "entropy", "layer", "head"), 1)
        section.findings += _ends(
            "entropy of attention, mean of heads", layers, entropy, 2, " nats"
        )
    return section


def subset_section(name: str, result: xr.Dataset) -> Section:
    """CKA of subsets of heads with another model's layers, by how far the heads look."""
    cka = _values(result, "cka", "subset", "layer_y")
    layers = _names(result, "layer_y")
    along = np.asarray(result["mean_distance"].values, dtype=np.float64)
    order = np.argsort(along, kind="stable")
    model_x, model_y = (str(result.attrs.get(f"model_{s}") or s) for s in "xy")
    section = Section(
        name,
        "Head subsets",
        f"heads of {result.attrs.get('layer', 'a layer')} of {model_x}, with layers of {model_y}",
    )
    errors = (
        _values(result, "standard_error", "subset", "layer_y")
        if _has(result, "standard_error", "subset", "layer_y")
        else None
    )
    labels = [
        f"subset {i}"
        + "".join(f", {key} {result[key].values[i]}" for key in ("kind", "heads") if key in result)
        for i in order
    ]
    series = []
    for j, layer in enumerate(layers):
        low = high = None
        if errors is not None and np.isfinite(errors[:, j]).all():
            low, high = (cka[order, j] + sign * errors[order, j] for sign in (-1, 1))
        at = j / max(1, len(layers) - 1)
        series.append(Series(layer, along[order], cka[order, j], low, high, at=at, names=labels))
        known = np.isfinite(cka[:, j]) & np.isfinite(along)
        spread = known.sum() > 2 and np.ptp(along[known]) > 0 and np.ptp(cka[known, j]) > 0
        if spread:
            r = float(np.corrcoef(along[known], cka[known, j])[0, 1])
            section.findings.append(
                Finding("correlation of CKA with mean attention distance", number(r, 2), layer)
            )
    section.cautions = [
        "Subsets share heads, so their points are not independent: the correlations have no "
        "p-value."
    ]
    section.pictures = [
        Chart(
            "CKA of subsets of heads",
            f"{len(order)} subsets of heads by their mean attention distance, from "
            f"{number(float(along.min()), 1)} to {number(float(along.max()), 1)} pixels; one line "
            f"for each of {len(layers)} layers of {model_y}.",
            "mean attention distance of the heads (pixels)",
            f"CKA with layers of {model_y}",
            series,
            ordered="layer",
            note="Bands are one standard error." if errors is not None else "",
        )
    ]
    return section


def field_section(name: str, result: xr.Dataset) -> Section:
    """Effective receptive fields, layer by layer."""
    layers = _names(result, "layer")
    fields = _values(result, "field", "layer", "row", "column")
    section = Section(
        name, "Effective receptive field", f"which pixels the units of {_model(result)} depend on"
    )
    texts = [""] * len(layers)
    if _has(result, "sigma", "layer"):
        sigma = _values(result, "sigma", "layer")
        section.findings += _ends("σ, root mean square radius", layers, sigma, 1, " px")
        section.findings += _extreme("largest σ", layers, sigma, 1, " px", most=True)
        texts = [f"σ = {number(float(s), 1)} px" for s in sigma]
    if _has(result, "participation_area", "layer"):
        area = _values(result, "participation_area", "layer")
        section.findings += _ends("pixels that share the field", layers, area, 0, " px")
    small = [_averaged(field) for field in fields]
    greatest = max((float(np.nanmax(each, initial=0.0)) for each in small), default=0.0)
    if greatest > 0:
        section.pictures.append(
            Tiles(
                "Effective receptive fields",
                f"One map of the input for each of {len(layers)} layers, in one logarithmic scale "
                f"of {DECADES} decades"
                + (f"; σ from {texts[0][4:]} to {texts[-1][4:]}." if texts[0] else "."),
                [Tile(n, v, t) for n, v, t in zip(layers, small, texts, strict=True)],
                "part of the field per pixel",
                greatest * 10.0**-DECADES,
                greatest,
                log=True,
                note=""
                if small[0].shape == fields[0].shape
                else f"Averaged from {fields.shape[1]} × {fields.shape[2]} to "
                f"{small[0].shape[0]} × {small[0].shape[1]} cells.",
            )
        )
    if _has(result, "sigma", "layer"):
        section.pictures.append(
            Chart(
                "Radius by layer",
                f"Root mean square radius σ of the field of each of {len(layers)} layers, from "
                f"{texts[0][4:]} to {texts[-1][4:]}.",
                "layer",
                "σ (pixels)",
                [Series("σ", np.arange(len(layers)), sigma)],
                categories=layers,
            )
        )
    return section


def _averaged(field: Any) -> Any:
    """`field` averaged over blocks, so that no side is longer than `FIELD_SIDE`."""
    step = -(-max(field.shape) // FIELD_SIDE)
    if step == 1:
        return field
    for axis in (0, 1):
        edges = np.arange(0, field.shape[axis], step)
        widths = np.diff(np.append(edges, field.shape[axis]))
        sums = np.add.reduceat(field, edges, axis=axis)
        field = sums / (widths[:, None] if axis == 0 else widths)
    return field


def ratio_section(name: str, result: xr.Dataset) -> Section:
    """Norm of the skip over norm of the branch, for prefix and spatial tokens."""
    sites = _names(result, "site")
    section = Section(name, "Residual ratios", f"‖skip‖ / ‖branch‖ in {_model(result)}")
    at = np.arange(len(sites))
    series = []
    for key, what in (("ratio_prefix", "prefix tokens (CLS)"), ("ratio_spatial", "spatial tokens")):
        if not _has(result, key, "site"):
            continue
        values = _values(result, key, "site")
        if not np.isfinite(values).any():
            continue
        series.append(Series(what, at, values))
        section.findings += _ends(f"‖skip‖ / ‖branch‖, {what}", sites, values, 2, of="connection")
        section.findings += _extreme(f"largest ratio, {what}", sites, values, 2, most=True)
    if not series:
        values = _mean(_values(result, "ratio", "site", "token"), 1)
        series = [Series("all tokens", at, values)]
        section.findings += _ends("‖skip‖ / ‖branch‖", sites, values, 2, of="connection")
    section.pictures = [
        Chart(
            "Skip against branch",
            f"Ratio of the norms of skip and branch at {len(sites)} residual connections, for "
            f"{' and '.join(each.name for each in series)}.",
            "residual connection",
            "‖skip‖ / ‖branch‖",
            series,
            categories=sites,
            references=[(1.0, "equal norms")],
            log=True,
            note="Above 1 the skip is larger than what the branch adds.",
        )
    ]
    return section


def localization_section(name: str, result: xr.Dataset) -> Section:
    """CKA of tokens with patches of the input: how many are most like their own."""
    layers = _names(result, "layer")
    section = Section(
        name, "Token localisation", f"tokens of {_model(result)} with patches of the input"
    )
    at = np.arange(len(layers))
    if _has(result, "hit_rate", "layer"):
        hits = _values(result, "hit_rate", "layer")
        series = [Series("tokens most similar to their own patch", at, hits)]
        section.findings += [
            Finding(each.what, f"{hits[layers.index(each.where)]:.1%}", each.where)
            for each in _ends("tokens most similar to their own patch", layers, hits)
        ]
        if _has(result, "chance", "layer"):
            chance = _values(result, "chance", "layer")
            series.append(
                Series("a random patch", at, chance, points=False, dashed=True, reference=True)
            )
            if np.isfinite(chance).any():
                section.findings.append(Finding("by chance", f"{np.nanmax(chance):.1%}"))
        section.pictures.append(
            Chart(
                "Hits by layer",
                f"Share of tokens whose most similar patch is their own, for {len(layers)} layers: "
                f"from {hits[0]:.0%} to {hits[-1]:.0%}.",
                "layer",
                "tokens most similar to their own patch",
                series,
                categories=layers,
                percent=True,
            )
        )
    if _has(result, "argmax_distance", "layer"):
        away = _values(result, "argmax_distance", "layer")
        section.findings += _ends("distance of the most similar patch", layers, away, 1, " px")
    section.pictures += _token_maps(result, layers)
    return section


def _token_maps(result: xr.Dataset, layers: list[str]) -> list[Tiles]:
    """Each layer as a grid of tokens, each of which is a map of the patches."""
    needed = ("token_row", "token_column", "patch_row", "patch_column")
    if not all(key in result.coords for key in needed):
        return []
    cka = _values(result, "cka", "layer", "token", "patch")
    every = 1
    while cka.size / every**2 > CELLS:
        every += 1
    tiles, cells = [], set()
    for i, layer in enumerate(layers):
        token_row, token_column, patch_row, patch_column = (
            _of_layer(result[key], i, "token" if key.startswith("token") else "patch")
            for key in needed
        )
        tokens = np.flatnonzero(
            np.isfinite(token_row) & (token_row % every == 0) & (token_column % every == 0)
        )
        patches = np.flatnonzero(np.isfinite(patch_row))
        if not tokens.size or not patches.size:
            continue
        rows, columns = (
            (token_row[tokens] // every).astype(int),
            (token_column[tokens] // every).astype(int),
        )
        down, right = patch_row[patches].astype(int), patch_column[patches].astype(int)
        height, width = int(down.max()) + 1, int(right.max()) + 1
        grid = np.full((rows.max() + 1, height, columns.max() + 1, width), np.nan)
        for token, r, c in zip(tokens, rows, columns, strict=True):
            grid[r, down, c, right] = cka[i, token, patches]
        cells.add((height, width))
        tiles.append(Tile(layer, grid.reshape(grid.shape[0] * height, grid.shape[2] * width)))
    if not tiles or len(cells) != 1:
        return []  # grids that differ from layer to layer have no common picture
    known = np.concatenate([tile.values[np.isfinite(tile.values)] for tile in tiles])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if not low < high:
        return []
    (cell,) = cells
    return [
        Tiles(
            "Each token, as a map of the patches",
            f"For each of {len(tiles)} layers a grid of tokens; at the place of each token stands "
            f"the map of its CKA with all patches, from {number(low)} to {number(high)}.",
            tiles,
            "CKA of token and patch",
            low,
            high,
            cell=cell,
            words=("token", "patch"),
            note=f"Every {_ordinal(every)} token of a row and column." if every > 1 else "",
        )
    ]


def _of_layer(coordinate: xr.DataArray, layer: int, dim: str) -> Any:
    if "layer" in coordinate.dims:
        coordinate = coordinate.isel(layer=layer)
    return np.asarray(coordinate.transpose(dim).values, dtype=np.float64)


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")


def probe_section(name: str, result: xr.Dataset) -> Section:
    """Accuracy of linear probes along the layers."""
    layers, tokens = _names(result, "layer"), _names(result, "token")
    accuracy = _values(result, "accuracy", "layer", "token")
    section = Section(name, "Linear probe", f"classes read from the layers of {_model(result)}")
    errors = (
        _values(result, "standard_error", "layer", "token")
        if _has(result, "standard_error", "layer", "token")
        else None
    )
    at = np.arange(len(layers))
    single = [j for j, token in enumerate(tokens) if token.isdigit()]
    series = []
    for j, token in enumerate(tokens):
        if j in single:
            continue
        label = token.replace("_", " ").replace("cls", "CLS")
        low = high = None
        if errors is not None and np.isfinite(errors[:, j]).all():
            low, high = accuracy[:, j] - errors[:, j], accuracy[:, j] + errors[:, j]
        series.append(Series(label, at, accuracy[:, j], low, high))
        if np.isfinite(accuracy[:, j]).any():
            best = int(np.nanargmax(accuracy[:, j]))
            text = f"{accuracy[best, j]:.1%}"
            if errors is not None and np.isfinite(errors[best, j]):
                text += f" ± {errors[best, j]:.1%}"
            section.findings.append(Finding(f"best accuracy, {label}", text, layers[best]))
    if single:
        alone = accuracy[:, single]
        known = np.isfinite(alone)
        middle, low, high = (
            np.array(
                [f(row[k]) if k.any() else np.nan for row, k in zip(alone, known, strict=True)]
            )
            for f in (np.median, np.min, np.max)
        )
        series.append(Series("single tokens: median, range", at, middle, low, high))
        section.findings += [
            Finding(
                "accuracy of single tokens, median, last layer",
                f"{middle[-1]:.1%}",
                f"{low[-1]:.1%} to {high[-1]:.1%}",
            )
        ]
    n_test = result.attrs.get("n_test")
    if isinstance(n_test, int | np.integer) and n_test < FEW_TESTED:
        section.cautions.append(
            f"Only {n_test} test samples: the standard error of an accuracy of a half is "
            f"{0.5 / n_test**0.5:.1%}."
        )
    references = []
    if "chance" in result.attrs:
        references = [(float(result.attrs["chance"]), "chance")]
        section.findings.append(Finding("most frequent class", f"{references[0][0]:.1%}"))
    section.pictures = [
        Chart(
            "Accuracy by layer",
            f"Test accuracy of linear probes on {len(layers)} layers, one line for each of: "
            f"{', '.join(each.name for each in series)}.",
            "layer",
            "test accuracy",
            series,
            categories=layers,
            references=references,
            percent=True,
            note="Bands are one binomial standard error." if errors is not None else "",
        )
    ]
    return section


def data_scale_section(name: str, result: xr.Dataset) -> Section:
    """CKA of models trained on less data with the one trained on all, layer by layer."""
    layers = _names(result, "layer")
    fractions = np.asarray(result["fraction"].values, dtype=np.float64)
    cka = _values(result, "cka", "fraction", "layer")
    errors = (
        _values(result, "standard_error", "fraction", "layer")
        if _has(result, "standard_error", "fraction", "layer")
        else None
    )
    section = Section(
        name, "Less data", f"models trained on less data, with {_model(result)} trained on all"
    )
    at, series = np.arange(len(layers)), []
    order = np.argsort(fractions)
    for k, i in enumerate(order):
        low = high = None
        if errors is not None and np.isfinite(errors[i]).all():
            low, high = cka[i] - errors[i], cka[i] + errors[i]
        label = f"{fractions[i]:.3g} of the data"
        place = k / max(1, len(order) - 1)
        series.append(Series(label, at, cka[i], low, high, at=place))
        section.findings += _ends(f"CKA, {label}", layers, cka[i])
    if _has(result, "control_cka", "control", "layer"):
        for control, row in zip(
            _names(result, "control"),
            _values(result, "control_cka", "control", "layer"),
            strict=True,
        ):
            series.append(Series(f"control: {control}", at, row, dashed=True))
            section.findings += _ends(f"CKA, control: {control}", layers, row)
    else:
        section.cautions.append(
            "No control: what another seed on all data scores is what “the same” means here."
        )
    section.pictures = [
        Chart(
            "Similarity to the model trained on all data",
            f"CKA of each of {len(layers)} layers with the same layer of the model trained on all "
            f"data, one line for each of: {', '.join(each.name for each in series)}.",
            "layer",
            "CKA with the full-data model",
            series,
            categories=layers,
            ordered="fraction of the data",
            note="Bands are one standard error." if errors is not None else "",
        )
    ]
    return section
