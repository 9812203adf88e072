"""Labelled arrays count as their values; labels of different samples are an error."""

import numpy as np
import pytest
import torch
import xarray

import repsim
from repsim.arrays import unlabelled


def array(ids, p=3, seed=0, dim="sample"):
    x = np.random.default_rng(seed).standard_normal((len(ids), p))
    return xarray.DataArray(x, dims=(dim, "feature"), coords={dim: list(ids)})


@pytest.mark.parametrize("function", ["cka", "hsic", "svcca", "rsa", "mutual_knn", "procrustes"])
def test_measures_take_labelled_arrays_as_their_values(function):
    x, y = array(range(20)), array(range(20), seed=1)
    measure = getattr(repsim, function)
    value = measure(x, y)
    assert value == measure(x.values, y.values)
    assert not isinstance(value, xarray.DataArray)
    assert measure(x, y.values) == value


def test_a_third_representation_may_be_labelled():
    x, y, z = (array(range(20), seed=seed) for seed in range(3))
    assert repsim.cka(x, y, given=z) == repsim.cka(x.values, y.values, given=z.values)


def test_labelled_values_may_be_of_another_framework():
    inside = torch.ones(3, 2)
    labelled = xarray.DataArray(inside.numpy(), dims=("sample", "p"))
    assert isinstance(unlabelled("f", {"x": labelled})[0], np.ndarray)
    assert unlabelled("f", {"x": inside, "y": 3}) == [inside, 3]


@pytest.mark.parametrize("other", ["abce", "bacd", "abdc"])
def test_other_samples_are_refused(other):
    with pytest.raises(repsim.InputError, match="same samples in the same order") as caught:
        repsim.cka(array("abcd"), array(other))
    assert ("another order" in str(caught.value)) == (sorted(other) == list("abcd"))
    assert "np.str_" not in str(caught.value)


def test_a_coordinate_of_another_axis_or_none_is_not_asked():
    x = array("abcd")
    repsim.cka(x, array("bacd").drop_vars("sample"))
    repsim.cka(x, xarray.DataArray(x.values))  # dim_0 is a name that xarray made up
    repsim.cka(x, x.assign_coords(feature=[3, 4, 5]))
    with pytest.raises(repsim.InputError, match="n=4"):
        repsim.cka(x, array("abcde"))  # a different number is its own error


def test_labels_that_are_no_index_must_agree():
    """`stimulus_id` in reversed order had given .2154 for the same data."""
    ids = xarray.DataArray(list("abcd"), dims="presentation")
    x = array(range(4), dim="presentation").drop_vars("presentation")
    x = x.assign_coords(stimulus_id=ids, repetition=("presentation", [0.0, 1.0, np.nan, 0.0]))
    assert repsim.cka(x, x.drop_vars("repetition")) == pytest.approx(1)
    assert repsim.cka(x, x) == pytest.approx(1)  # NaN labels are equal to themselves
    levels = x.set_index(presentation=["stimulus_id", "repetition"])
    assert repsim.cka(levels, levels) == pytest.approx(1)
    for side in (x, levels):
        for call in (repsim.cka, repsim.rsa, repsim.permutation_test, repsim.chance_floor):
            with pytest.raises(repsim.InputError, match="another order"):
                call(side, side[::-1])
        with pytest.raises(repsim.InputError, match="stimulus_id|presentation"):
            repsim.cka_matrix({"a": side, "b": side[::-1]})
        with pytest.raises(repsim.InputError, match="another order"):
            repsim.pairwise({"a": side}, {"b": side[::-1]})


def test_samples_of_other_dimensions_are_refused():
    """An array whose first axis holds features would be compared as if they were samples."""
    x = array("abcd", p=4)
    with pytest.raises(repsim.InputError, match="expected 'sample' in y") as caught:
        repsim.cka(x, x.T)
    assert "Transpose" in str(caught.value)
    with pytest.raises(repsim.InputError, match="got 'image'"):
        repsim.cka(x, array("abcd", dim="image"))


def test_accumulators_refuse_them_too():
    good = {"a": array("abcd"), "b": array("abcd", seed=1)}
    for accumulator in (
        repsim.MinibatchCKA(),
        repsim.StreamingLinearCKA(),
        repsim.StreamingCovariance(),
    ):
        accumulator.update(good)
        with pytest.raises(repsim.InputError, match="same samples"):
            accumulator.update(good, {"c": array("abdc")})
        accumulator.update({name: x.values for name, x in good.items()})
