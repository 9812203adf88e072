"""Batches of named activations, and their CKA by plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np

import repsim
from reference import kernels, minibatch

LAYERS_X = {"conv": 3, "norm": 5, "fc": 2}
LAYERS_Y = {"patch": 4, "block": 3}


def data(n: int, seed: int = 0, dtype: str = "float64") -> tuple[dict[str, Any], dict[str, Any]]:
    """Activations of n samples in the layers of two models that see the same five causes."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((n, 5))

    def model(layers: dict[str, int]) -> dict[str, Any]:
        return {
            name: (
                causes @ rng.standard_normal((5, width)) + rng.standard_normal((n, width))
            ).astype(dtype)
            for name, width in layers.items()
        }

    return model(LAYERS_X), model(LAYERS_Y)


def rows(layers: dict[str, Any], chosen: Any) -> dict[str, Any]:
    return {name: x[chosen] for name, x in layers.items()}


def split(layers: dict[str, Any], sizes: list[int]) -> list[dict[str, Any]]:
    """Cut into consecutive batches of these sizes."""
    ends = np.cumsum(sizes)
    return [rows(layers, slice(e - s, e)) for s, e in zip(sizes, ends, strict=True)]


def accumulate(
    batches_x: list[dict[str, Any]],
    batches_y: list[dict[str, Any]] | None = None,
    kernel: Any = "linear",
    array: Any = np.asarray,
) -> repsim.MinibatchCKA:
    acc = repsim.MinibatchCKA(kernel=kernel)
    for b, xs in enumerate(batches_x):
        ys = None if batches_y is None else named(array, batches_y[b])
        acc.update(named(array, xs), ys)
    return acc


def named(array: Any, layers: dict[str, Any]) -> dict[str, Any]:
    return {name: array(x) for name, x in layers.items()}


def loops(
    batches_x: list[dict[str, Any]],
    batches_y: list[dict[str, Any]],
    kernel: Any = kernels.linear,
    of: Any = minibatch.minibatch_cka,
) -> np.ndarray:
    """The matrix over all layer pairs by ``reference.minibatch``."""
    return np.array(
        [
            [of([b[x] for b in batches_x], [b[y] for b in batches_y], kernel) for y in batches_y[0]]
            for x in batches_x[0]
        ]
    )


def flat(value: Any, path: str = "state") -> dict[str, Any]:
    """The leaves of a state dict, by path."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}").items()}
    return {path: value}


def same_state(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two state dicts are equal bit by bit, NaN equal to NaN."""
    a, b = flat(a), flat(b)
    return list(a) == list(b) and all(
        type(a[k]) is type(b[k])
        and np.asarray(a[k]).dtype == np.asarray(b[k]).dtype
        and np.array_equal(a[k], b[k], equal_nan=np.asarray(a[k]).dtype.kind == "f")
        for k in a
    )
