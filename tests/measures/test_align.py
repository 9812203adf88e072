"""Labelled arrays brought to the same samples in the same order."""

import inspect

import numpy as np
import pytest
import xarray

import repsim
from cases import each
from measures.checks import refuses
from reference.data import related
from repsim.measures import MEASURES

X, Y = related(12, 3, 4)
IDS = np.array(list("abcdefghijkl"))
ORDER = np.random.default_rng(0).permutation(12)


def labelled(x, **coordinates):
    along = {name: ("image", list(ids)) for name, ids in coordinates.items()}
    return xarray.DataArray(x, dims=("image", "unit"), coords=along)


def test_every_measure_has_the_unpermuted_value():
    x, y = labelled(X, stimulus_id=IDS), labelled(Y[ORDER], stimulus_id=IDS[ORDER])
    for measure in MEASURES.values():
        k = {"k": 3} if "k" in inspect.signature(measure.function).parameters else {}
        with pytest.raises(repsim.InputError, match=r"repsim\.align\(x, y, by='stimulus_id'\)"):
            measure.function(x, y, **measure.preset, **k)
        found = measure.function(*repsim.align(x, y, by="stimulus_id"), **measure.preset, **k)
        assert float(found) == float(measure.function(X, Y, **measure.preset, **k))


def test_mappings_and_other_functions():
    xs = {"a": labelled(X, id=IDS), "b": labelled(X[ORDER] ** 2, id=IDS[ORDER])}
    ys = {"c": labelled(Y[::-1], id=IDS[::-1])}
    for function in (repsim.pairwise, repsim.cka_matrix):
        with pytest.raises(repsim.InputError, match=r"repsim\.align\(xs, by='id'\)"):
            function(xs, ys)
        out = function(*repsim.align(xs, ys, by="id"))
        np.testing.assert_allclose(out, function({"a": X, "b": X**2}, {"c": Y}), atol=1e-12)
    (one,) = repsim.align(xs, by="id")
    assert list(one) == ["a", "b"]
    x, given = repsim.align(ys["c"], xs, by="id")
    assert repsim.cka(x, given["a"], given=given["b"]) == pytest.approx(
        repsim.cka(Y[::-1], X[::-1], given=X[::-1] ** 2)
    )
    dataset = xarray.Dataset({"a": labelled(X, id=IDS), "b": labelled(X**2, id=IDS)})
    _, aligned = repsim.align(ys, dataset, by="id")
    np.testing.assert_array_equal(aligned["b"], X[::-1] ** 2)


def test_common_samples_in_the_order_of_the_first():
    rows = [7, 2, 3, 11, 0]
    x, y = labelled(X[:9], id=IDS[:9]), labelled(Y[rows], id=IDS[rows])
    with pytest.raises(repsim.InputError, match=r"n=9 in x, n=5 in y.*\n.*both sides have"):
        repsim.cka(x, y)
    a, b = repsim.align(x, y, by="id")
    assert "".join(a.id.values) == "".join(b.id.values) == "acdh"
    kept = [0, 2, 3, 7]
    assert repsim.cka(a, b) == pytest.approx(repsim.cka(X[kept], Y[kept]), abs=1e-12)
    b, a = repsim.align(y, x, by="id")
    assert "".join(a.id.values) == "hcda"
    third = labelled(X[3:], id=IDS[3:])
    assert [z.shape[0] for z in repsim.align(x, y, third, by="id")] == [2, 2, 2]


def test_arrays_that_already_agree_are_not_copied():
    x, y = labelled(X, id=IDS), labelled(Y, id=IDS)
    a, b = repsim.align(x, y, by="id")
    assert np.shares_memory(a.values, x.values)
    assert np.shares_memory(b.values, y.values)
    before = Y[ORDER].copy()
    repsim.align(x, labelled(before, id=IDS[ORDER]), by="id")
    np.testing.assert_array_equal(before, Y[ORDER])


def test_a_multiindex_and_its_levels():
    """As in Brain-Score's assemblies: (presentation) is stimulus and repetition."""
    repetition = np.arange(12) % 2
    stimuli = np.array([f"s{i // 2}" for i in range(12)])
    x = labelled(X, stimulus_id=stimuli, repetition=repetition)
    x = x.set_index(image=["stimulus_id", "repetition"])
    y = x.copy(data=np.pad(X, ((0, 0), (0, 1))) @ np.eye(4)[:, :3])[ORDER]
    value = repsim.cka(x, x.copy(data=y.values[np.argsort(ORDER)]))
    with pytest.raises(repsim.InputError, match="repsim.align"):
        repsim.cka(x, y)
    for by in ("image", ("stimulus_id", "repetition")):
        assert repsim.cka(*repsim.align(x, y, by=by)) == pytest.approx(value, abs=1e-14)
    with refuses(repsim.InputError, "align: a label must belong to one sample", "6 of 12", "'s0'"):
        repsim.align(x, y, by="stimulus_id")
    # One repetition of each: the level is a label, and the rest of the index goes if it differs.
    a, b = x[repetition == 0], y[y["repetition"] == 1]
    found = repsim.cka(*repsim.align(a, b, by="stimulus_id"))
    both = np.argsort(ORDER)
    assert found == pytest.approx(repsim.cka(X[::2], y.values[both][1::2]), abs=1e-14)


def test_coordinates_that_no_longer_agree_are_dropped():
    x = labelled(X, id=IDS, image=range(12), session=[1] * 12)
    y = labelled(Y[ORDER], id=IDS[ORDER], image=range(12), session=[1] * 12)
    a, b = repsim.align(x, y, by="id")
    assert set(a.coords) == {"id", "image", "session"}
    assert set(b.coords) == {"id", "session"}
    assert repsim.cka(a, b) == pytest.approx(repsim.cka(X, Y), abs=1e-14)


@each(
    "ids",
    [
        np.arange(12),
        np.arange(12) / 4,
        np.arange("2020-01-01", "2020-01-13", dtype="M8[D]").astype("M8[ns]"),
    ],
)
def test_labels_of_every_type(ids):
    a, b = repsim.align(labelled(X, id=ids), labelled(Y[ORDER], id=ids[ORDER]), by="id")
    assert repsim.cka(a, b) == pytest.approx(repsim.cka(X, Y), abs=1e-14)


def test_wrong_arguments_are_refused():
    x, y = labelled(X, id=IDS), labelled(Y, id=IDS)
    again = np.where(np.arange(12) == 4, "a", IDS)
    floats = np.where(np.arange(12) == 4, np.nan, np.arange(12.0))
    for arrays, by, error, words in (
        ((x, Y), "id", repsim.ArrayTypeError, "arrays[1] must be a labelled array"),
        ((x, {"b": Y}), "id", repsim.ArrayTypeError, "arrays[1]['b'] must be a labelled"),
        ((x, y.variable), "id", repsim.ArrayTypeError, "arrays[1] must be a labelled"),
        ((x, None), "id", repsim.ArrayTypeError, "arrays[1] must be a labelled"),
        ((x, y), "name", repsim.InputError, "no coordinate 'name' along its first dimension"),
        ((x, y.T), "id", repsim.InputError, "along 'unit': none"),
        ((x, labelled(Y, id=again)), "id", repsim.InputError, "1 of 12 samples repeat a label"),
        ((labelled(X, id=floats),), "id", repsim.InputError, "1 of 12 labels of 'id' are missing"),
        ((x, labelled(Y, id=range(12))), "id", repsim.InputError, "no sample in common"),
        ((x, y.rename(image="trial")), "id", repsim.InputError, "must be the same dimension"),
        ((), "id", repsim.InputError, "nothing to align"),
        (({},), "id", repsim.InputError, "nothing to align"),
        ((x, y), (), repsim.InputError, "nothing to align"),
        ((x, y), 3, repsim.InputError, "by must be"),
    ):
        with refuses(error, "align: ", words):
            repsim.align(*arrays, by=by)
