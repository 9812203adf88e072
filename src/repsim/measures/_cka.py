"""Centred kernel alignment, from activations or from Gram matrices."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from repsim._errors import InputError
from repsim._options import require_choice
from repsim._typing import Array, EstimatorName, KernelName
from repsim.arrays import (
    array_namespace,
    as_square,
    check_same_samples,
    known,
    namespace,
    rounding_unit,
    scalar,
    unlabelled,
    without_autocast,
)
from repsim.estimators import (
    BIASED_CKA,
    Products,
    alignment,
    gram_products,
    high_floor,
    mean_by_chance,
    ratio,
    resolve_estimator,
    warn_of_chance,
    warn_of_few_digits,
)
from repsim.kernels import Kernel, resolve_kernel
from repsim.measures._hsic import kernel_item, samples_needed
from repsim.measures._partial import PartialItem
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._contrast_item import linear_item
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._kernel_item import KernelItem, why_zero
from repsim.measures.parts._sampled_item import SampledItem, are_sampled, range_with

__all__ = ["alignment_once", "cka", "cka_from_gram", "floor_by_chance", "kernel_alignment"]

FEATURES = ("all", "sampled")


def cka(
    x: Array,
    y: Array,
    *,
    kernel: KernelName | Kernel = "linear",
    estimator: EstimatorName = "biased",
    given: Array | None = None,
    features: Literal["all", "sampled"] = "all",
) -> Array:
    """Centred kernel alignment: how similar two representations of the same samples are.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 10))
    >>> q, _ = np.linalg.qr(rng.standard_normal((10, 10)))
    >>> round(float(repsim.cka(x, 3 * x @ q + 7)), 6)
    1.0
    >>> y = rng.standard_normal((200, 500))
    >>> bool(repsim.cka(x, y) > 0.1), bool(abs(repsim.cka(x, y, estimator="unbiased")) < 0.1)
    (True, True)
    >>> z = rng.standard_normal((200, 10))
    >>> noisy = [z + 0.5 * rng.standard_normal((200, 10)) for _ in range(2)]
    >>> bool(repsim.cka(*noisy) > 0.6), bool(abs(repsim.cka(*noisy, given=z)) < 0.1)
    (True, True)

    ::

        CKA = HSIC(x, y) / (√HSIC(x, x) · √HSIC(y, y))      (Kornblith et al. 2019, Eq. 5)
        linear, biased: ‖XcᵀYc‖²_F / (‖XcᵀXc‖_F · ‖YcᵀYc‖_F)
        given z: (c_xy − c_xz c_yz) / √((1 − c_xz²)(1 − c_yz²)), c the CKA of each two

    with Xc, Yc the activations minus their column means.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    kernel : str or Kernel, default "linear"
        ``"linear"``, ``"rbf"``, ``"laplacian"``, ``"polynomial"``, ``"cosine"``, or an instance
        from :mod:`repsim.kernels`.
    estimator : {"biased", "unbiased"}, default "biased"
        The estimator of all three HSICs. Biased CKA of *independent* data is well above zero if
        there are many features: about p/(n + p) for white noise. Prefer the unbiased one, which
        ``pairwise``, ``compare`` and the command ``repsim measure`` take by default.
    given : array, shape (n, r) or (n, ...), optional
        A third representation of the same samples. The value then measures what x and y share
        beyond what both share with it (partial CKA).
    features : {"all", "sampled"}, default "all"
        ``"sampled"`` corrects for features that were drawn at random from a larger population; only
        for the linear kernel, see the notes.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1] (biased) or [−1, 1] (unbiased, around 0 for independent data; or with ``given``);
        1 for equal representations. With ``features="sampled"`` it may be above 1. Same namespace
        and device as the inputs, differentiable where they are; float32 for half precision and
        float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 (unbiased: 4) samples, one-dimensional or empty input, NaN or
        infinity (``NonFiniteError``), unknown kernel or estimator; ``features="sampled"`` with
        another kernel, with one feature or with ``given``.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, if a row of zeros has no cosine, if ``given`` explains all
        of one, or if sampled features have nothing in common: CKA is undefined and NaN is returned.
    ChanceWarning
        If the biased CKA of independent data would be above 0.1, with this number.
    RepsimWarning
        If the entries of a Gram of another kernel than the linear one differ in few digits: an RBF
        of 50 times the distances in float32, or a polynomial of features far from zero.

    Notes
    -----
    Linear CKA is symmetric. It is invariant to orthogonal maps, isotropic scale, translation and
    feature permutations of either input, and *not* to invertible linear maps. It is a similarity;
    arccos(CKA) is a metric.

    The linear kernel computes from features in O(n (p + q)²) or from Grams in O(n² (p + q)),
    whichever is less, with the same result up to rounding. The other kernels compute from Grams.
    Memory for the linear kernel: with numpy and torch arrays, a thousand rows of both inputs and of
    their Grams, or two thousand rows (with few features, a million numbers) and the products of two
    thousand features with all others; with other frameworks, the centred features and the p×q or
    n×n products. Other kernels need n×n.

    Sampled features: ‖Kc‖² contains the products of each feature with itself. They are a share of
    1/p of its terms, so they matter for few features and make their CKA too low. The correction
    divides by the mean over *different* features instead. It holds if the features of x and of y
    were drawn at random and independently of each other. A feature that is on both sides biases it
    upwards: the value of x with itself is above 1, and that of two halves of one population is
    about 1. Values above 1 occur and are not clamped. The mean over draws is right to order 1/p; a
    single value may be far off for few features. The corrected value is not invariant to rotations.
    Selected features (the best neurons, non-overlapping channels) are not random. If you have all
    features of a network, there is nothing to correct. The bias from few *samples* is a different
    one; ``estimator="unbiased"`` removes it.

    Non-finite values raise an error. Under ``jax.jit``, ``torch.compile`` and ``torch.vmap`` values
    cannot be read, so there the result is NaN without errors about values or warnings. The
    transforms of ``torch.func`` and forward mode differentiate as ``backward()`` does.

    References
    ----------
    Kornblith, Norouzi, Lee, Hinton 2019, "Similarity of neural network representations revisited",
    arXiv:1905.00414. Cortes, Mohri, Rostamizadeh 2012. Nguyen, Raghu, Kornblith 2021,
    arXiv:2010.15327, for the unbiased estimator. Székely, Rizzo 2014, "Partial distance
    correlation with methods for dissimilarities", for the partial one. Chun, Canatar, Chung, Lee
    2025, "Estimating neural representation alignment from sparsely sampled inputs and features",
    arXiv:2502.15104.
    """
    check_same_samples("cka", {"x": x, "y": y, "given": given})
    return evaluate("cka", x, y, kernel=kernel, estimator=estimator, given=given, features=features)


@without_autocast
def cka_from_gram(k: Array, l: Array, *, estimator: EstimatorName = "biased") -> Array:  # noqa: E741
    """Centred kernel alignment of two Gram matrices of the same samples.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 8))
    >>> k = x @ x.T
    >>> bool(np.isclose(repsim.cka_from_gram(k, k**2), repsim.cka_from_gram(k**2, k)))
    True
    >>> bool(np.isclose(repsim.cka_from_gram(k, 5 * k), 1.0))
    True

    ::

        CKA = ⟨centre(K), centre(L)⟩ / (‖centre(K)‖ · ‖centre(L)‖)

    with centre(K) = HKH (biased) or the U-centred K (unbiased).

    Parameters
    ----------
    k, l : array, shape (n, n)
        Symmetric Gram matrices, of any kernel, one framework and device; centred or not.
    estimator : {"biased", "unbiased"}, default "biased"
        As in :func:`cka`.

    Returns
    -------
    array, 0-d, or NumPy scalar
        As :func:`cka` returns it.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Not square, not symmetric, different n, fewer than 2 (unbiased: 4) samples, NaN or infinity
        (``NonFiniteError``), unknown estimator.

    Warns
    -----
    DegenerateWarning
        If a Gram is constant to the rounding of its entries: NaN is returned.
    ChanceWarning
        If the biased CKA of independent data would be above 0.1, with this number.
    RepsimWarning
        If the entries of a Gram differ in so few digits that their rounding counts.

    Notes
    -----
    Cost O(n²). If the mean of the features is large compared with their spread, their Gram in
    float32 has already lost the digits that CKA needs. Centre the features first, or pass them to
    :func:`cka`, which centres them.

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414, Eq. 5.
    """
    resolved = resolve_estimator("cka_from_gram", estimator)
    k, l = unlabelled("cka_from_gram", {"k": k, "l": l})  # noqa: E741
    xp = namespace("cka_from_gram", k=k, l=l)
    a = as_square("cka_from_gram", xp, k, "k", min_samples=resolved.min_samples)
    b = as_square("cka_from_gram", xp, l, "l", min_samples=resolved.min_samples)
    if a.shape != b.shape:
        raise InputError(
            f"cka_from_gram: k and l must describe the same samples.\n"
            f"  k: {tuple(a.shape)} → n={a.shape[0]}    l: {tuple(b.shape)} → n={b.shape[0]}\n"
            f"  Compute both Grams from the same rows."
        )
    # Each is centred in its own dtype, whose rounding says what is constant.
    products, _ = gram_products(xp, a, b, resolved, (rounding_unit(k), rounding_unit(l)))
    for name, product in (("k", products.xx), ("l", products.yy)):
        undefined("cka_from_gram", name, known(product > 0) is False, why_zero(resolved))
    few = zip("kl", products.few_digits or (), strict=True)
    warn_of_few_digits("cka_from_gram", [name for name, is_few in few if known(is_few)])
    if resolved.name == "biased" and products.traces is not None:
        squares = products.xx, products.yy
        floor = high_floor(mean_by_chance(xp, a.shape[0], products.traces, squares))
        if floor is not None:
            warn_of_chance("cka_from_gram", BIASED_CKA, floor)
    return scalar(xp, alignment(xp, products), xp.result_type(a.dtype, b.dtype))


def _prepare(
    operation: str,
    x: Array,
    *,
    name: str,
    kernel: str | Kernel,
    estimator: str,
    given: Array | None,
    features: str,
) -> KernelItem:
    require_choice(operation, "features", features, FEATURES)
    if given is None and features == "all":
        return kernel_item(operation, x, name=name, kernel=kernel, estimator=estimator)
    if given is not None and features == "sampled":
        raise InputError(
            f"{operation}: given and features='sampled' do not go together.\n"
            f"  There is no correction of a partial alignment: pass features='all'."
        )
    resolved = resolve_kernel(operation, kernel), resolve_estimator(operation, estimator)
    if given is None:
        return SampledItem(operation, name, x, *resolved)
    return PartialItem(operation, name, x, *resolved, given)


def _prepare_contrasts(
    operation: str, z: Contrasts, *, name: str, given: Array | None, features: str, **options: Any
) -> KernelItem:
    require_choice(operation, "features", features, FEATURES)
    if given is not None or features == "sampled":
        raise InputError(
            f"{operation}: given= and features='sampled' need the samples, not covariances alone.\n"
            f"  Use repsim.pairwise."
        )
    return linear_item(operation, z, name=name, **options)


def kernel_alignment(x: KernelItem, y: KernelItem, **_: Any) -> Array:
    """Return CKA of two prepared representations."""
    features = x.from_features(y, self_products=True)
    products = Products(x.product(y, features), x.self_product(features), y.self_product(features))
    return alignment(x.xp, products) if x.is_cosine else ratio(x.xp, products)


def floor_by_chance(
    x: KernelItem, y: KernelItem, *, given: Array | None = None, **_: Any
) -> Array | None:
    """Return the mean of biased CKA over permutations of y; that of unbiased CKA is zero."""
    if x.estimator.name != "biased" or given is not None:
        return None
    return x.mean_by_chance(y)


def alignment_once(x: KernelItem, y: KernelItem, **_: Any) -> Array:
    """Return CKA of two representations that are compared only once."""
    found = x.once(y, self_products=True)
    if found is None:
        return kernel_alignment(x, y)
    products = found[0]
    return x.placed(alignment(array_namespace(products.xy), products))


def _entries(item: KernelItem) -> Array:
    """Return the centred Gram, whose cosine with another one is CKA."""
    if isinstance(item, SampledItem):
        raise InputError(
            "noise_ceiling: with features='sampled', CKA is not a cosine of matrices.\n"
            "  Pass features='all'."
        )
    item.self_product(False)  # warns of a constant
    return item.form(False)[0]


register(
    Measure(
        name="cka",
        family="kernel",
        function=cka,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"}),
        minimum_samples=2,
        cost="item O(n² p), pair O(n²); or item O(n p²), pair O(n p q)",
        reference="Kornblith et al. 2019, Eq. 5",
        prepare=_prepare,
        prepare_contrasts=_prepare_contrasts,
        compare=kernel_alignment,
        entries=_entries,
        compare_once=alignment_once,
        needs=partial(samples_needed, operation="cka"),
        self_is_best_with=lambda features, **_: not are_sampled(features),
        range_with=range_with,
        floor=floor_by_chance,
        floor_words=BIASED_CKA,
    )
)
