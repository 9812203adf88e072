"""Functions of arrays and accumulators on the emulated device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import repsim
from edges import FUNCTIONS, X, Y
from emulated.device import WAITED

DRAWN = ("pairwise", "jackknife", "permutation_test", "bootstrap_rsa", "max_t", "subsample")
ON_HOST = {
    *DRAWN,
    "jackknife_subjects",
    "pairwise given",
    "calibrated_score",
    "noise_ceiling",
    "cka_matrix",
}
ON_HOST |= {"MinibatchCKA", "StreamingLinearCKA", "StreamingCovariance", "probe_activations"}
"""Functions whose value is a Python number, or is in a result with labels."""


@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "gromov_wasserstein"])
def test_values_are_those_of_the_cpu_and_stay_on_the_device(name):
    near = torch.tensor(X), torch.tensor(Y)
    wanted = FUNCTIONS[name](*near)
    found = FUNCTIONS[name](*(x.to("sim") for x in near))
    if name not in ON_HOST:
        assert found.device.type == "sim"
        found = found.cpu()
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def batches(count: int = 4) -> list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(0)

    def one():
        x = torch.randn(8, 5, generator=generator)
        return {"a": x, "b": x[:, :2] ** 2}, {"c": x + torch.randn(8, 5, generator=generator)}

    return [one() for _ in range(count)]


def far(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: each.to("sim") for name, each in x.items()}


def grams(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: each @ each.T for name, each in x.items()}


@pytest.mark.parametrize("kernel", ["linear", "cosine", "polynomial", "rbf", "laplacian"])
def test_no_update_of_minibatch_cka_waits(kernel):
    near, on_device = repsim.MinibatchCKA(kernel=kernel), repsim.MinibatchCKA(kernel=kernel)
    for number, (x, y) in enumerate(batches()):
        near.update(x, y)
        x, y = far(x), far(y)
        WAITED.clear()
        on_device.update(x, y)
        if number or kernel not in ("rbf", "laplacian"):  # the first tells their width
            assert WAITED.ours() == []
    np.testing.assert_allclose(on_device.compute(), near.compute(), rtol=2e-6, atol=2e-6)
    error = near.standard_error()
    np.testing.assert_allclose(on_device.standard_error(), error, rtol=1e-4, atol=2e-6)


def test_no_update_of_grams_waits():
    near, on_device = repsim.MinibatchCKA(), repsim.MinibatchCKA()
    for x, y in batches():
        near.update_grams(grams(x), grams(y))
        x, y = grams(far(x)), grams(far(y))
        WAITED.clear()
        on_device.update_grams(x, y)
        assert WAITED.ours() == []
    np.testing.assert_allclose(on_device.compute(), near.compute(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("kind", [repsim.StreamingLinearCKA, repsim.StreamingCovariance])
def test_an_update_of_sums_of_features_waits_once(kind):
    """A batch that is not finite is refused before it is added."""
    near, on_device = kind(), kind()
    for x, y in batches():
        near.update(x, y)
        x, y = far(x), far(y)
        WAITED.clear()
        on_device.update(x, y)
        assert len(WAITED.ours()) == 1
    x["b"][3, 1] = torch.nan
    with pytest.raises(repsim.NonFiniteError, match=r"xs\['b'\], batch 4"):
        on_device.update(x, y)
    np.testing.assert_allclose(on_device.compute(), near.compute(), rtol=2e-6, atol=2e-6)


def test_the_first_batch_that_is_not_finite_is_named_at_the_end():
    acc = repsim.MinibatchCKA()
    for number, (x, y) in enumerate(batches()):
        if number == 2:
            x["b"][3, 1] = torch.nan
        acc.update(far(x), far(y))
    with pytest.raises(repsim.NonFiniteError, match="x, batch 2 .*'b'") as caught:
        acc.compute()
    known = np.isfinite(caught.value.partial.cka)
    np.testing.assert_array_equal(known, [[True], [False]])


def test_both_sides_are_on_one_device():
    ((x, y),) = batches(1)
    with pytest.raises(repsim.ArrayTypeError, match="one device"):
        repsim.MinibatchCKA().update(far(x), y)
    with pytest.raises(repsim.ArrayTypeError, match="one device"):
        repsim.cka(x["a"].to("sim"), y["c"])
