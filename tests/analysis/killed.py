"""Resumable computations for tests/kills.py, on little data, that save after every step."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import array_api_compat.numpy
import array_api_compat.torch  # noqa: F401
import numpy as np
import torch
import xarray  # noqa: F401
import zarr  # noqa: F401
from torch import nn

import repsim

# Loaded before the fork, so a child begins with its work.
LOADED = (repsim.compare, repsim.cka_matrix, repsim.extract, repsim.open_activations)

ROWS = 4
"""Rows of a chunk: the arrays grow from 16 to 32 chunks, and a batch ends inside a chunk."""


def often() -> None:
    """Save after every step: where a chunk is full, in the middle of a batch, and after each one.

    An hour passes between two looks at the clock. Only the process that is killed may call this,
    because importing this file must change nothing.
    """
    clock = itertools.count(0.0, 3600.0)
    time.monotonic = lambda: next(clock)
    torch.set_num_threads(1)


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 300), nn.Linear(300, 3))


def batches(count: int, sizes: tuple[int, ...] = (9, 17, 6)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    cycle = itertools.cycle(sizes)
    return [torch.randn(next(cycle), 5, generator=generator) for _ in range(count)]


def compare(folder: Path) -> None:
    often()
    result = repsim.compare(
        net(0), net(1), batches(12), kernel="rbf", checkpoint=folder / "run.npz", progress=False
    )
    np.save(folder / "cka.npy", result.cka.values)
    np.save(folder / "se.npy", result.standard_error.values)


def cka_matrix(folder: Path) -> None:
    often()
    rng = np.random.default_rng(0)
    layers = {f"{p}": rng.standard_normal((160, p)) for p in (3, 50, 200)}
    result = repsim.cka_matrix(layers, kernel="rbf", block_size=16, checkpoint=folder / "run.npz")
    np.save(folder / "cka.npy", result.values)


def extract(folder: Path) -> None:
    often()
    row = 4 * (40 + 3)
    stored = repsim.extract(
        net(0),
        batches(7),
        ["0", "3"],
        out=folder / "run.zarr",
        memory=2 * row * ROWS,
        progress=False,
    )
    assert len(stored.sample) > 16 * ROWS
    for layer, values in stored.items():
        np.save(folder / f"{layer}.npy", values.values)
    np.save(folder / "sample.npy", stored.sample.values)
