"""Fitted alignments: against SciPy, scikit-learn and the measures, on other samples, and errors."""

import numpy as np
import pytest
import xarray
from scipy.linalg import orthogonal_procrustes

import repsim
from cases import each
from measures.checks import refuses
from reference import canonical
from reference.data import related
from repsim import (
    CCAAlignment,
    PermutationAlignment,
    ProcrustesAlignment,
    RegressionAlignment,
)

AFFINE = (
    ProcrustesAlignment,
    lambda: ProcrustesAlignment(scale=True),
    PermutationAlignment,
    RegressionAlignment,
    lambda: RegressionAlignment(ridge=0.1),
)
ALL = (
    *AFFINE,
    CCAAlignment,
    lambda: CCAAlignment(components=2),
    lambda: CCAAlignment(variance=0.8),
)


def halves(n=60, p=4, q=4, seed=0):
    x, y = related(n, p, q, seed)
    return (x[: n // 2] + 3, y[: n // 2] - 1), (x[n // 2 :] + 3, y[n // 2 :] - 1)


def r2(y, predicted):
    return 1 - ((y - predicted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


def centred(*arrays):
    return [a - a.mean(0) for a in arrays]


@each("scale", [False, True])
def test_procrustes_is_that_of_scipy(scale):
    (x, y), (new_x, new_y) = halves()
    alignment = ProcrustesAlignment(scale=scale).fit(x, y)
    turn, size = orthogonal_procrustes(*centred(x, y))
    if scale:
        turn = turn * size / (centred(x)[0] ** 2).sum()
    np.testing.assert_allclose(alignment.weights_, turn, atol=1e-12)
    expected = (new_x - x.mean(0)) @ turn + y.mean(0)
    np.testing.assert_allclose(alignment.transform(new_x), expected, atol=1e-12)
    assert float(alignment.score(new_x, new_y)) == pytest.approx(r2(new_y, expected), abs=1e-12)


def test_the_fitted_samples_are_as_far_apart_as_the_measures_say():
    (x, y), _ = halves()
    for alignment, measure in (
        (ProcrustesAlignment(), repsim.procrustes),
        (PermutationAlignment(), repsim.permutation_procrustes),
    ):
        far = np.linalg.norm(alignment.fit(x, y).transform(x) - y)
        assert far == pytest.approx(float(measure(x, y)), abs=1e-10)


def test_the_text_says_the_options_and_what_is_fitted():
    (x, y), _ = halves(p=4, q=3)
    for alignment, text in (
        (ProcrustesAlignment(scale=True), "ProcrustesAlignment(scale=True)"),
        (PermutationAlignment(), "PermutationAlignment()"),
        (RegressionAlignment(ridge=0.1), "RegressionAlignment(ridge=0.1)"),
        (CCAAlignment(variance=0.8), "CCAAlignment(components=None, variance=0.8)"),
    ):
        assert repr(alignment) == f"<{text}: not fitted>"
        fitted = alignment.fit(x, y)
        assert repr(fitted) == f"<{text} of 30 samples: 4 features to 3>"
        np.testing.assert_allclose(fitted.mean_x_, x.mean(0))
        np.testing.assert_allclose(fitted.mean_y_, y.mean(0))


def test_what_is_fitted_is_refused_before_the_fit():
    for alignment in (make() for make in ALL):
        names = [name for name in dir(alignment) if name[0] != "_" and name[-1] == "_"]
        assert {"mean_x_", "mean_y_"} < set(names)
        for name in names:
            with refuses(repsim.InputError, "not fitted yet", "Call fit"):
                getattr(alignment, name)


@each(("p", "q"), [(3, 5), (5, 3)])
def test_sides_of_other_widths(p, q):
    (x, y), (new_x, _) = halves(p=p, q=q)
    alignment = ProcrustesAlignment().fit(x, y)
    turn = alignment.weights_ if p < q else alignment.weights_.T
    gram = turn @ turn.T
    np.testing.assert_allclose(gram, np.eye(min(p, q)), atol=1e-12)
    pairs = PermutationAlignment().fit(x, y)
    assert (pairs.permutation_ >= 0).sum() == 3
    out = pairs.transform(new_x)
    for j, i in enumerate(pairs.permutation_):
        expected = y[:, j].mean() + (0 if i < 0 else new_x[:, i] - x[:, i].mean())
        np.testing.assert_allclose(out[:, j], expected, atol=1e-12)


def test_directions_that_were_not_seen_are_left_out():
    """With fewer samples than features a rotation is not determined."""
    torch = pytest.importorskip("torch")
    x, y = related(12, 30, 30)
    alignment = ProcrustesAlignment().fit(x[:8], y[:8])
    values = np.linalg.svd(alignment.weights_, compute_uv=False)
    np.testing.assert_allclose(values, [1] * 7 + [0] * 23, atol=1e-9)
    left, _, right = np.linalg.svd(centred(x[:8])[0].T @ centred(y[:8])[0])
    np.testing.assert_allclose(alignment.weights_, left[:, :7] @ right[:7], atol=1e-9)
    other = ProcrustesAlignment().fit(torch.tensor(x[:8]), torch.tensor(y[:8]))
    np.testing.assert_allclose(other.transform(torch.tensor(x)), alignment.transform(x), atol=1e-9)


def test_directions_that_are_small_beside_clusters_are_not_left_out():
    """In float32 a rotation left out all but one of 20, a regression too."""
    rng = np.random.default_rng(0)
    x, turn = rng.standard_normal((200, 20)), np.linalg.qr(rng.standard_normal((20, 20)))[0]
    far = 1e5 * (np.arange(200) % 3 == 0)[:, None]
    x, y = ((z + far * rng.standard_normal(20)).astype(np.float32) for z in (x, x @ turn + x / 2))
    for alignment in (
        ProcrustesAlignment(),
        ProcrustesAlignment(scale=True),
        RegressionAlignment(),
        CCAAlignment(),
        CCAAlignment(variance=1.0),
    ):
        alignment.fit(x, y)
        narrow = getattr(alignment, "correlations_", None)
        narrow = alignment.weights_ if narrow is None else narrow
        alignment.fit(x.astype(float), y.astype(float))
        wide = alignment.correlations_ if narrow.ndim == 1 else alignment.weights_
        np.testing.assert_allclose(narrow, wide, atol=1e-4, err_msg=repr(alignment))


@each("ridge", [0.0, 0.3])
def test_regression(ridge):
    (x, y), (new_x, new_y) = halves(p=5, q=3)
    alignment = RegressionAlignment(ridge=ridge).fit(x, y)
    fitted = float(repsim.linear_regression_r2(y, x, ridge=ridge))
    assert float(alignment.score(x, y)) == pytest.approx(fitted, abs=1e-12)
    linear_model = pytest.importorskip("sklearn.linear_model")
    penalty = ridge * (centred(x)[0] ** 2).sum() / len(x)
    model = linear_model.Ridge(alpha=penalty, solver="svd").fit(x, y)
    np.testing.assert_allclose(alignment.transform(new_x), model.predict(new_x), atol=1e-10)
    np.testing.assert_allclose(alignment.weights_, model.coef_.T, atol=1e-10)
    assert float(alignment.score(new_x, new_y)) == pytest.approx(r2(new_y, model.predict(new_x)))


def test_regression_with_more_features_than_samples():
    x, y = related(12, 30, 3)
    weights = np.linalg.lstsq(centred(x[:8])[0], centred(y[:8])[0], rcond=None)[0]
    alignment = RegressionAlignment().fit(x[:8], y[:8])
    np.testing.assert_allclose(alignment.weights_, weights, atol=1e-10)
    assert float(alignment.score(x[:8], y[:8])) == pytest.approx(1)
    assert float(alignment.score(x[8:], y[8:])) < 1


def test_canonical_correlations():
    (x, y), (new_x, new_y) = halves(80, 5, 3)
    alignment = CCAAlignment().fit(x, y)
    np.testing.assert_allclose(alignment.correlations_, canonical.correlations(x, y), atol=1e-10)
    assert float(alignment.score(x, y)) == pytest.approx(float(repsim.cca(x, y)), abs=1e-10)
    u, v = alignment.transform(x, y)
    np.testing.assert_allclose(u.T @ u, 39 * np.eye(3), atol=1e-9)
    np.testing.assert_allclose(u.T @ v, 39 * np.diag(alignment.correlations_), atol=1e-9)
    np.testing.assert_allclose(u, (x - x.mean(0)) @ alignment.weights_x_, atol=1e-9)
    u, v = alignment.transform(new_x, new_y)
    expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(u.T, v.T, strict=True)])
    assert float(alignment.score(new_x, new_y)) == pytest.approx(expected, abs=1e-12)
    first = CCAAlignment(components=1).fit(x, y)
    np.testing.assert_allclose(first.transform(new_x), u[:, :1], atol=1e-12)
    leading = CCAAlignment(variance=0.8).fit(x, y)
    mean = float(leading.correlations_.mean())
    assert mean == pytest.approx(float(repsim.svcca(x, y, variance=0.8)), abs=1e-10)


def test_independent_samples_correlate_only_where_they_were_fitted():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 400, 20))
    alignment = CCAAlignment().fit(x[:200], y[:200])
    assert float(alignment.score(x[:200], y[:200])) > 0.2
    assert abs(float(alignment.score(x[200:], y[200:]))) < 0.1


@each("make", ALL)
@each("dtype", ["float32", "float64"])
def test_every_framework(eager, make, dtype):
    (x, y), (new_x, new_y) = (tuple(z.astype(dtype) for z in half) for half in halves(q=3))
    plain = make().fit(x.astype(float), y.astype(float))
    alignment = make().fit(eager.array(x), eager.array(y))
    out = alignment.transform(eager.array(new_x))
    assert eager.owns(out)
    assert eager.dtype(out) == dtype
    digits = {"float32": 1e-3, "float64": 1e-9}[dtype]
    found, expected = eager.numpy(out), plain.transform(new_x.astype(float))
    if isinstance(plain, CCAAlignment):
        found, expected = np.abs(found), np.abs(expected)
    np.testing.assert_allclose(found, expected, atol=digits)
    score = alignment.score(eager.array(new_x), eager.array(new_y))
    assert eager.owns(score)
    assert tuple(score.shape) == ()
    assert float(score) == pytest.approx(
        float(plain.score(new_x.astype(float), new_y.astype(float))), abs=digits
    )


@each("make", ALL)
def test_scales_means_and_labels(make):
    (x, y), (new_x, new_y) = halves()
    expected = float(make().fit(x, y).score(new_x, new_y))
    if make is PermutationAlignment or make is ProcrustesAlignment:
        moves = [(1.0, 1e4)]
    else:
        moves = [(1e-150, 0.0), (1e150, 0.0), (1.0, 1e4)]
    for scale, mean in moves:
        both = [(z * scale + mean) for z in (x, new_x)]
        out = make().fit(both[0], y).score(both[1], new_y)
        assert float(out) == pytest.approx(expected, abs=1e-8)
    named = [xarray.DataArray(z, dims=("image", "unit")) for z in (x, y, new_x, new_y)]
    assert float(make().fit(*named[:2]).score(*named[2:])) == expected


def test_gradients_reach_new_samples():
    torch = pytest.importorskip("torch")
    (x, y), (new_x, new_y) = (tuple(map(torch.tensor, half)) for half in halves())
    for make in ALL:
        alignment = make().fit(x, y)
        given = new_x.clone().requires_grad_()
        alignment.score(given, new_y).backward()
        assert float(given.grad.abs().max()) > 1e-6


@each("make", ALL)
def test_errors(make):
    (x, y), (new_x, new_y) = halves(q=3)
    name = type(make()).__name__
    for call in (lambda a: a.transform(x), lambda a: a.score(x, y)):
        with refuses(repsim.InputError, f"{name}: it is not fitted yet", "fit(x, y)"):
            call(make())
    alignment = make().fit(x, y)
    with refuses(repsim.InputError, f"{name}: x must have the features that were fitted", "(n, 4)"):
        alignment.transform(y)
    with refuses(repsim.InputError, f"{name}: y must have the features", "(n, 3)"):
        alignment.score(x, x)
    with refuses(repsim.InputError, f"{name}: x and y must describe the same samples"):
        alignment.score(x, y[1:])
    with refuses(repsim.InputError, f"{name}: x must vary over the samples"):
        make().fit(0 * x + 0.1, y)
    with refuses(repsim.InputError, "same samples"):
        make().fit(x, y[1:])
    with refuses(repsim.NonFiniteError, f"{name}: x must be finite"):
        alignment.transform(np.where(x == x[2, 1], np.nan, x))
    with refuses(repsim.ArrayTypeError, f"{name}: x must be an array"):
        alignment.transform(x.tolist())
    torch = pytest.importorskip("torch")
    with refuses(repsim.ArrayTypeError, f"{name}: x and the fitted samples must belong to one"):
        alignment.transform(torch.tensor(x))
    with pytest.warns(repsim.DegenerateWarning, match=f"{name}: y .* NaN"):
        assert np.isnan(alignment.score(new_x, 0 * new_y + 0.1))


def test_options():
    with refuses(repsim.InputError, "ProcrustesAlignment: scale must be True or False"):
        ProcrustesAlignment(scale="yes")
    with refuses(repsim.InputError, "RegressionAlignment: ridge must be"):
        RegressionAlignment(ridge=-1)
    with refuses(repsim.InputError, "CCAAlignment: components must be a positive integer"):
        CCAAlignment(components=0)
    with refuses(repsim.InputError, "CCAAlignment: variance must be"):
        CCAAlignment(variance=2)
    (x, y), _ = halves(q=3)
    with refuses(repsim.InputError, "CCAAlignment: there are 3 pairs", "components=4"):
        CCAAlignment(components=4).fit(x, y)
    wide = related(10, 12, 3)
    with refuses(repsim.InputError, "CCAAlignment: x spans all 9 dimensions", "variance=0.99"):
        CCAAlignment().fit(*wide)
    assert CCAAlignment(variance=0.9).fit(*wide).correlations_.shape == (2,)


def test_a_score_that_overflows_is_nan_with_a_warning():
    (x, y), _ = halves()
    for make in (ProcrustesAlignment, PermutationAlignment):
        alignment = make().fit(x * 1e200, y * 1e-200)
        with pytest.warns(repsim.DegenerateWarning, match="R² overflows"):
            assert np.isnan(alignment.score(x * 1e200, y * 1e-200))
        alignment = make().fit((x * 1e18).astype("f4"), (y * 1e-18).astype("f4"))
        with pytest.warns(repsim.DegenerateWarning, match="R² overflows"):
            assert np.isnan(alignment.score((x * 1e18).astype("f4"), (y * 1e-18).astype("f4")))
