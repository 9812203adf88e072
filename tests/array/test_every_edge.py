"""Every function that takes arrays treats a kind of array as all others do.

The tests cross a table of kinds with a table of functions. All functions refuse a kind with an
error of ours that names the function and the argument, or all return the value of the plain array.
"""

import inspect

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import torch
import xarray

import repsim
from edges import FUNCTIONS, LABELS, ROWS, X, Y, tensor

pytestmark = pytest.mark.filterwarnings(  # of the frameworks, about their own kinds
    "ignore:the matrix subclass:PendingDeprecationWarning",
    "ignore:(Sparse CSR|The PyTorch API of nested):UserWarning",
)


class Unknown:
    """As an array of Dask whose rows were selected by a condition."""

    shape, ndim, dtype = (float("nan"), 3), 2, np.dtype(float)

    def __getitem__(self, rows):
        return X[rows]


def nested(x, layout):
    return torch.nested.nested_tensor([tensor(x), tensor(x[:2])], layout=layout)


def structured(x):
    return np.ascontiguousarray(x).view([("a", float)])


def masked(x):
    hidden = np.ma.masked_array(x, mask=False)
    hidden[0, 0] = np.ma.masked
    return hidden


REFUSED = {  # kind: a function of x, and words of the refusal
    "masked": (masked, "hides some values"),
    "matrix": (lambda x: np.asmatrix(x), r"numpy\.asarray"),
    "scipy sparse": (scipy.sparse.csr_matrix, r"toarray\(\)|sparse"),
    "torch sparse": (lambda x: tensor(x).to_sparse(), "to_dense"),
    "torch csr": (lambda x: tensor(x).to_sparse_csr(), "to_dense"),
    "nested": (lambda x: nested(x, torch.strided), "different shapes"),
    "jagged": (lambda x: nested(x, torch.jagged), "different shapes"),
    "meta": (lambda x: tensor(x).to("meta"), "no values|one device"),
    "unknown size": (lambda x: Unknown(), "unknown size"),
    "structured": (structured, "real numbers"),
    "records": (lambda x: np.rec.array(structured(x)), "real numbers"),
    "ragged": (lambda x: np.array([*x[:-1], x[-1, :2]], dtype=object), "real numbers"),
    "objects": (lambda x: x.astype(object), "real numbers"),
    "text": (lambda x: x.astype(str), "real numbers"),
    "dates": (lambda x: x.astype("timedelta64[s]"), "real numbers"),
    "wider": (lambda x: x.astype(np.longdouble), "64 bits"),
    "complex": (lambda x: x + 1j, "must be real"),
    "list": (lambda x: x.tolist(), "must be an array"),
    "dataset": (lambda x: xarray.Dataset({"a": (("s", "f"), x)}), "must be an array"),
    "arrays by name": (lambda x: {"__header__": b"", "a": x}, r"such as .*\['a'\], or all of them"),
    "one axis": (lambda x: x[:, 0], "samples by features"),
    "no features": (lambda x: x[:, :0], "is empty"),
    "fewer samples": (lambda x: x[:-1], "same samples"),
    "NaN": (lambda x: np.where(x == x[7, 1], np.nan, x), "finite"),
    "infinite": (lambda x: tensor(np.where(x == x[7, 1], np.inf, x)), "finite"),
    "other samples": (
        lambda x: xarray.DataArray(x, dims=ROWS["dims"], coords={"sample": np.arange(12)[::-1]}),
        "same samples",
    ),
    "large integers": (lambda x: (9 * x).astype("i8") + 2**60, r"integers below 2\*\*53"),
    "large unsigned": (lambda x: (9 * abs(x)).astype("u8") + 2**63, r"integers below 2\*\*53"),
    "torch, large integers": (lambda x: (9 * tensor(x)).long() - 2**60, r"integers below 2\*\*53"),
}  # fmt: skip

UNFIT = {
    "large integers",
    "large unsigned",
    "torch, large integers",
    "one axis",
    "no features",
    "fewer samples",
    "NaN",
    "infinite",
    "other samples",
}
"""Ordinary arrays that do not fit this use: InputError, where all others are ArrayTypeError."""

PAIRED = ("fewer samples", "other samples")

UNRELATED = {
    ("other samples", "probe_activations"),
    *((kind, "gromov_wasserstein") for kind in PAIRED),
    *((kind, name) for kind in PAIRED for name in ("rdm", "effective_dimension")),
}
"""The samples of train and of test differ, those of two sets too, or there is one array."""

TAKEN = {  # kind: a function of x, and the plain array of the same numbers
    "big-endian": (lambda x: x.astype(">f8"), lambda x: x),
    "big-endian single": (lambda x: x.astype(">f4"), lambda x: x.astype("f4")),
    "big-endian half": (lambda x: x.astype(">f2"), lambda x: x.astype("f2")),
    "big-endian integers": (
        lambda x: (9 * x).astype(">i4"),
        lambda x: (9 * x).astype("i4").astype(float),
    ),
    "bfloat16": (
        lambda x: x.astype(ml_dtypes.bfloat16),
        lambda x: x.astype(ml_dtypes.bfloat16).astype("f4"),
    ),
    "eight bits": (
        lambda x: x.astype(ml_dtypes.float8_e4m3fn),
        lambda x: x.astype(ml_dtypes.float8_e4m3fn).astype("f4"),
    ),
    "four bits": (
        lambda x: (2 * x).astype(ml_dtypes.int4),
        lambda x: (2 * x).astype(ml_dtypes.int4).astype(float),
    ),
    "torch, eight bits": (
        lambda x: tensor(x).to(torch.float8_e5m2),
        lambda x: tensor(x).to(torch.float8_e5m2).float(),
    ),
    "largest integers": (
        lambda x: (9 * x).astype("i8") + 2**52,
        lambda x: (9 * x).astype("i8").astype(float) + 2.0**52,
    ),
    "torch, negated lazily": (lambda x: torch.complex(tensor(x), tensor(-x)).conj().imag, tensor),
    "labelled": (lambda x: xarray.DataArray(x, **ROWS), lambda x: x),
    "a variable": (lambda x: xarray.Variable(ROWS["dims"], x), lambda x: x),
}


def beside(x, y):
    """y in the framework of x."""
    if isinstance(x, torch.Tensor):
        return tensor(y)
    return xarray.DataArray(y, **ROWS) if isinstance(x, xarray.DataArray) else y


def test_the_table_has_every_function():
    for name in repsim.__all__:
        value = getattr(repsim, name)
        if inspect.isfunction(value):
            first = next(iter(inspect.signature(value).parameters))
            if first in ("x", "xs", "train"):
                assert name in {key.split()[0] for key in FUNCTIONS}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_all_functions(kind):
    make, says = REFUSED[kind]
    error = repsim.InputError if kind in UNFIT else repsim.ArrayTypeError
    for name, function in FUNCTIONS.items():
        if (kind, name) in UNRELATED:
            continue
        x = make(X)
        with pytest.raises(error, match=says) as caught:
            function(x, beside(x, Y))
        assert str(caught.value).startswith(name.split()[0]), name


@pytest.mark.parametrize("kind", TAKEN)
def test_the_value_of_the_plain_array(kind):
    make, plain = TAKEN[kind]
    for name, function in FUNCTIONS.items():
        found, expected = (float(function(x, beside(x, Y))) for x in (make(X), plain(X)))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6), name


def test_labels_of_probed_samples_are_compared():
    x = {name: xarray.DataArray(X, **ROWS) for name in "ab"}
    labels = xarray.DataArray(LABELS, dims="sample", coords={"sample": np.arange(12)})
    options = {"ridges": [1.0], "holdout": 0.0}
    assert repsim.probe_activations(x, labels, x, labels, **options).accuracy.shape == (2, 1)
    for wrong in ({**x, "b": x["b"][::-1]}, {name: v[::-1] for name, v in x.items()}):
        with pytest.raises(repsim.InputError, match="same samples in the same order"):
            repsim.probe_activations(wrong, labels, x, labels, **options)


def test_grams_and_rdms_must_hold_numbers():
    k = X @ X.T
    assert float(repsim.cka_from_gram(xarray.DataArray(k), xarray.DataArray(k))) == pytest.approx(1)
    for wrong in (k.astype(str), k.astype(object), k + 0j):
        with pytest.raises(repsim.ArrayTypeError, match="real"):
            repsim.cka_from_gram(wrong, wrong)
        with pytest.raises(repsim.ArrayTypeError, match="real"):
            repsim.MinibatchCKA().update_grams({"a": wrong})
        with pytest.raises(repsim.ArrayTypeError, match="real"):
            repsim.rsa_from_rdm(wrong, wrong)
