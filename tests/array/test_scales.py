"""Extreme scales: the value of ordinary ones, an error of ours, or NaN with our warning."""

import math
import warnings

import numpy as np
import pytest
import torch

import repsim
from edges import FUNCTIONS
from edges import X as X_USUAL
from edges import Y as Y_USUAL

X, Y = (z / np.abs(z).max() for z in (X_USUAL, Y_USUAL))

SCALES = {
    np.float64: (1e-310, 1e-300, 1e-200, 1e-160, 1e-30, 1e100, 1e160, 1e300, 5e307),
    np.float32: (1e-40, 1e-38, 1e-30, 1e-19, 1e-12, 1e12, 1e19, 1e30, 1e38),
}

OF_SCALE = {
    "hsic hsic",
    "procrustes procrustes",
    "magnitude_difference magnitude_difference",
    "permutation_procrustes permutation_procrustes",
    "soft_matching soft_matching",
    "rsm_norm_difference rsm_norm_difference",
    "rsm_norm_difference rsm_norm_difference_frobenius",
    "uniformity_difference uniformity_difference",
    "predictivity predictivity",
    "rdm",
    "jensen_shannon",
}
"""Their values grow with the scale, or have a penalty with a unit."""


def outcome(function, x, y):
    """The value, and whether an error or a warning of ours explains that there is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = float(function(x, y))
        except repsim.RepsimError:
            return math.nan, True
    foreign = [w for w in caught if not issubclass(w.category, repsim.RepsimWarning)]
    assert not foreign, foreign[0].message
    return value, bool(caught)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", SCALES)
def test_the_value_does_not_depend_on_the_scale(dtype):
    """Also that torch gives the same bits inside autocast."""
    for name, function in FUNCTIONS.items():
        expected, _ = outcome(function, X.astype(dtype), Y.astype(dtype))
        for scale in SCALES[dtype]:
            x, y = (dtype(scale) * z.astype(dtype) for z in (X, Y))
            for at in (np.asarray, torch.tensor):
                value, explained = outcome(function, at(x), at(y))
                if math.isfinite(value) and name not in OF_SCALE:
                    # Numbers below the range of full precision have lost digits.
                    assert value == pytest.approx(expected, rel=2e-3, abs=2e-3), (name, scale)
                assert math.isfinite(value) or explained, (name, scale, value)
            with torch.autocast("cpu", torch.bfloat16):
                inside, _ = outcome(function, at(x), at(y))
            np.testing.assert_array_equal(inside, value, err_msg=f"{name}, {scale}")


def test_values_beyond_the_range_are_nan_with_a_warning():
    for at in (np.asarray, torch.tensor):
        x, y = at(1e160 * X), at(1e160 * Y)
        with pytest.warns(repsim.DegenerateWarning, match="hsic: the value is outside the range"):
            assert math.isnan(repsim.hsic(x, y))
        assert float(repsim.cka(x, y)) == pytest.approx(float(repsim.cka(X, Y)), rel=1e-12)
        options = {"measure": "hsic", "permutations": 9}
        with pytest.warns(repsim.DegenerateWarning, match="permutation_test: the value is outside"):
            assert math.isnan(repsim.permutation_test(x, y, **options).p_value)
        expected = repsim.permutation_test(at(X), at(Y), **options)
        # Here HSIC of X and Y is in the range, and that of X with itself is not.
        found = repsim.permutation_test(at(1e80 * X), at(1e60 * Y), **options)
        assert found.p_value == expected.p_value < 1
        assert found.z == pytest.approx(expected.z, rel=1e-9)
    for scale in (1e12, 1e-12):  # its HSIC would be infinite, or zero
        layers = {"x": X.astype("float32"), "scaled": (scale * X).astype("float32")}
        with pytest.warns(repsim.DegenerateWarning, match=r"pairwise\('hsic'\): 1 of 4 values"):
            found = repsim.pairwise(layers, measure="hsic")
        assert np.isnan(found.values).tolist() == [[False, False], [False, True]]
        with pytest.warns(repsim.DegenerateWarning, match="hsic: the value is outside the range"):
            assert math.isnan(repsim.hsic(layers["scaled"], layers["scaled"]))


def test_numbers_that_cannot_be_summed_are_an_error():
    for function in (repsim.cka, repsim.cca, repsim.rsa, repsim.soft_matching):
        with pytest.raises(repsim.NonFiniteError, match="the sums of x must be finite"):
            function(5e307 * X, Y)
    with pytest.raises(repsim.NonFiniteError, match="sums overflow float64"):
        repsim.cka_matrix({"a": 5e307 * X}, {"b": Y})
    with pytest.raises(repsim.NonFiniteError, match="products of four"):
        repsim.StreamingLinearCKA().update({"a": 1e100 * X})
    with pytest.raises(repsim.NonFiniteError, match="and so must their sums"):
        repsim.StreamingCovariance().update({"a": 5e307 * X})
    with pytest.raises(repsim.InputError, match="squares of .* must not vanish"):
        repsim.probe_activations({"a": 1e-200 * X}, [0, 1] * 6, {"a": X}, [0, 1] * 6)
