"""One check for each kind of option: what is expected and what came, never an error of Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim import kernels

X = np.random.default_rng(0).standard_normal((12, 4))
Y = X @ np.ones((4, 3)) + np.random.default_rng(1).standard_normal((12, 3))


def models():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3))
    return {"model_x": net, "data": [torch.randn(6, 4), torch.randn(6, 4)], "progress": False}


def probed(**options):
    labels = np.arange(12) % 2
    return repsim.probe_activations({"x": X}, labels, {"x": X}, labels, **options)


REFUSED = {
    "permutations must be a positive integer": [
        lambda: repsim.permutation_test(X, Y, permutations="99"),
        lambda: repsim.permutation_test(X, Y, permutations=np.array([9, 9])),
        lambda: repsim.permutation_test(X, Y, permutations=True),
        lambda: repsim.permutation_test(X, Y, permutations=2**70),
    ],
    "k must be a positive integer": [
        lambda: repsim.mutual_knn(X, Y, k=np.array([3, 4])),
        lambda: repsim.mutual_knn(X, Y, k=0),
        lambda: repsim.mutual_knn(X, Y, k=None),
    ],
    "ridges must be a list of numbers": [lambda: probed(ridges=1.0), lambda: probed(ridges="1")],
    r"ridges\[1\] must be a positive finite number": [lambda: probed(ridges=[1.0, np.nan])],
    "holdout must be a finite number": [lambda: probed(holdout="0.2"), lambda: probed(holdout=[1])],
    "standardize must be True or False": [lambda: probed(standardize="no")],
    "sigma must be a positive finite number": [
        lambda: kernels.RBF(sigma="1"),
        lambda: kernels.RBF(sigma=float("nan")),
        lambda: kernels.Laplacian(sigma=[1.0]),
    ],
    "seed must be an integer from 0": [
        lambda: repsim.permutation_test(X, Y, seed=-1),
        lambda: repsim.compare(**models(), samples="tokens", seed=-1),
        lambda: repsim.compare(**models(), samples="tokens", seed="0"),
    ],
    "renormalize must be True or False": [
        lambda: repsim.attention.mean_distance(np.full((2, 4, 4), 0.25), (2, 2), renormalize="no")
    ],
    "scale must be True or False": [lambda: repsim.ProcrustesAlignment(scale="no")],
    "z_scores must be True or False": [lambda: repsim.compare(**models(), z_scores="yes")],
    "progress must be True or False": [
        lambda: repsim.compare(**models() | {"progress": "no"}),
        lambda: repsim.cka_matrix({"x": X}, progress="no"),
    ],
    "passes must be a positive integer": [lambda: repsim.compare(**models(), passes=1.5)],
    "prepare_x must be a function": [lambda: repsim.compare(**models(), prepare_x="resize")],
    "unknown cmap": [lambda: heatmap(cmap="nope")],
    "vmin must be a finite number": [lambda: heatmap(vmin="0"), lambda: heatmap(vmin=[0])],
    "ax must be matplotlib Axes": [lambda: heatmap(ax=3)],
    "unknown estimator": [
        lambda: repsim.cka(X, Y, estimator="unbiasd"),
        lambda: repsim.cka(X, Y, estimator=np.array(["biased", "unbiased"])),
    ],
    "unknown statistic": [lambda: repsim.cca(X, Y, statistic=["mean_rho"])],
    "The model comes first, before the data": [
        lambda: repsim.attention_distance([torch.ones(2, 4)], nn.Linear(4, 3)),
    ],
    r"Make a model of this class: Linear\(": [
        lambda: repsim.compare(**models() | {"model_x": nn.Linear})
    ],
    "Load a state dict into its model": [lambda: repsim.compare(**models() | {"model_x": {}})],
    "The data come before the layers": [
        lambda: repsim.effective_receptive_field(nn.Linear(4, 3), "0", [torch.ones(2, 4)])
    ],
    "for arrays of NumPy by torch.from_numpy": [lambda: repsim.compare(**models() | {"data": [X]})],
    "must be a path": [lambda: repsim.open_activations(3), lambda: repsim.open_activations("a\0")],
}


def heatmap(**options):
    maps = repsim.cka_matrix({"a": X, "b": Y})
    return repsim.plot.heatmap(maps, **options)


@pytest.mark.parametrize("says", REFUSED)
def test_an_option_of_another_kind_is_refused_by_name(says):
    for call in REFUSED[says]:
        with pytest.raises(repsim.InputError, match=says) as caught:
            call()
        assert "\n  got " in str(caught.value)


def test_a_name_that_is_nearly_right_is_suggested():
    arrays = {"x": X, "y": Y}
    for repair, options in {
        "Did you mean 'mutual_knn'": {"measure": "mutualknn"},
        "Did you mean 'cka'": {"measure": "CKA"},
        "Pass its name, 'cka'": {"measure": repsim.cka},
        "repsim.measures.Measure": {"measure": lambda x, y: 0.0},
        "Did you mean 'k'": {"measure": "mutual_knn", "K": 3},
        "Did you mean 'rbf'": {"kernel": "RBF"},
        "Did you mean 'unbiased'": {"estimator": "unbiasd"},
    }.items():
        with pytest.raises(repsim.InputError) as caught:
            repsim.pairwise(arrays, **options)
        assert repair in str(caught.value).splitlines()[-1]


def test_axes_sizes_and_places_of_numpy_are_numbers():
    one = np.int64(1)
    right = repsim.compare(**models(), batch_size=6).cka
    axis = {"batch_dim": np.int64(0)}, {"batch_dim": {"0": np.int64(0)}}
    for options in (*axis, {"batch_size": np.int64(6)}, {"batch_size": lambda _: np.int64(6)}):
        assert repsim.compare(**models(), **options).cka.equals(right)
    tokens = torch.arange(12.0).reshape(2, 3, 2)
    assert torch.equal(repsim.capture.token(one)(tokens), tokens[:, 1])
    assert repsim.capture.token(one).name == "token(1)"
    net = nn.Sequential(nn.LSTM(2, 3, batch_first=True))
    with repsim.Recorder(net, ["0"], select=lambda output: output[0]) as by_function:
        net(tokens)
    with repsim.Recorder(net, ["0"], select=np.int64(0)) as by_place:
        net(tokens)
    assert torch.equal(by_place["0"], by_function["0"])


def test_numbers_of_numpy_are_numbers():
    a = repsim.mutual_knn(X, Y, k=np.int64(3))
    assert a == repsim.mutual_knn(X, Y, k=3)
    test = repsim.permutation_test(X, Y, permutations=np.int32(9), seed=np.int64(1))
    assert test.p_value == repsim.permutation_test(X, Y, permutations=9, seed=1).p_value
    assert repsim.svcca(X, Y, directions=np.int64(2)) == repsim.svcca(X, Y, directions=2)
    attrs = repsim.pairwise({"x": X, "y": Y}, measure="mutual_knn", k=np.int64(3)).attrs
    assert attrs["k"] == 3
    assert type(attrs["k"]) is int
    folds = repsim.linear_regression_r2(X, Y, folds=np.int64(3))
    assert folds == repsim.linear_regression_r2(X, Y, folds=3)
    assert repsim.cka(X, Y, estimator=np.str_("unbiased")) == repsim.cka(X, Y, estimator="unbiased")
    assert "z" in repsim.compare(**models() | {"z_scores": np.bool_(True)})
    wide = kernels.RBF(sigma=np.float32(2.0))
    np.testing.assert_allclose(wide.gram(X), kernels.RBF(sigma=2.0).gram(X), rtol=1e-6)
