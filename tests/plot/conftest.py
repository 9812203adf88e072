from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import matplotlib
import matplotlib.pyplot  # pictures without ax= are drawn in its figures
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

NAMES = ("norm1", "attn", "norm2", "mlp.fc1", "mlp.act:0", "mlp.fc2")


@pytest.fixture
def make_result() -> Callable[..., xr.Dataset]:
    """A result of `compare` for n_x × n_y layers: distinct values in (0, 1), shuffled names."""

    def make(n_x: int, n_y: int, seed: int = 0) -> xr.Dataset:
        rng = np.random.default_rng(seed)
        values = rng.permutation(np.linspace(0.01, 0.99, n_x * n_y)).reshape(n_x, n_y)
        names = [f"model.blocks.{i}.{NAMES[i % len(NAMES)]}" for i in range(n_x + n_y)]
        rng.shuffle(names)  # so neither order nor number reveals the right label
        return xr.Dataset(
            {
                "cka": (("layer_x", "layer_y"), values),
                "standard_error": (("layer_x", "layer_y"), np.full((n_x, n_y), 0.01)),
            },
            coords={"layer_x": names[:n_x], "layer_y": names[n_x:]},
            attrs={
                "model_x": "ResNet-50",
                "model_y": "ViT-B/32",
                "kernel": "linear",
                "estimator": "unbiased",
                "n_samples": 5000,
            },
        )

    return make


@pytest.fixture(autouse=True)
def global_state_untouched():
    """Every picture leaves the settings and the backend as they were."""
    settings = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == settings


@pytest.fixture
def assert_readable() -> Callable[..., None]:
    """Check the names along an axis of drawn Axes: large enough, apart, first and last there."""

    def check(ax: Axes, axis: str, names: list[str]) -> None:
        labels = [label for label in getattr(ax, f"get_{axis}ticklabels")() if label.get_text()]
        assert labels[0].get_text() == names[0]
        assert labels[-1].get_text() == names[-1]
        assert all(label.get_fontsize() >= 6 for label in labels)
        interval = "intervalx" if axis == "x" else "intervaly"
        boxes = sorted(getattr(label.get_window_extent(), interval).tolist() for label in labels)
        assert all(one[1] < two[0] for one, two in pairwise(boxes))

    return check
