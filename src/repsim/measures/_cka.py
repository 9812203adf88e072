"""Centred kernel alignment, from activations or from Gram matrices."""

from __future__ import annotations

from repsim._array import as_square, known, namespace, paired, scalar
from repsim._errors import DegenerateWarning, InputError, warn
from repsim._typing import Array, Namespace
from repsim.estimators import Products, alignment, gram_products, resolve_estimator
from repsim.kernels import Kernel, resolve_kernel
from repsim.measures._hsic import representation_products

__all__ = ["cka", "cka_from_gram"]


def cka(x: Array, y: Array, *, kernel: str | Kernel = "linear", estimator: str = "biased") -> Array:
    """Centred kernel alignment: how similar two representations of the same samples are.

    ::

        CKA = HSIC(x, y) / (√HSIC(x, x) · √HSIC(y, y))      (Kornblith et al. 2019, Eq. 5)
        linear, biased: ‖XcᵀYc‖²_F / (‖XcᵀXc‖_F · ‖YcᵀYc‖_F)

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
        The estimator of all three HSICs. Biased CKA of *independent* data is well above zero when
        the features are many: about p/(n + p) for white noise. Prefer the unbiased one whenever n
        is not large beside p and q.

    Returns
    -------
    array, 0-d
        In [0, 1] (biased) or [−1, 1] (unbiased, around 0 for independent data); 1 for equal
        representations. Same namespace and device as the inputs, differentiable where they are;
        float32 for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 (unbiased: 4) samples, one-dimensional or empty input, NaN or
        infinity (``NonFiniteError``), unknown kernel or estimator.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: CKA is undefined and NaN is returned.

    Notes
    -----
    Linear CKA is invariant to orthogonal maps, isotropic scale, translation and feature
    permutations of either input, symmetric, and *not* invariant to invertible linear maps. It is a
    similarity; arccos(CKA) is a metric.

    The linear kernel computes from features in O(n (p² + pq + q²)) or from Grams in O(n² (p + q)),
    whichever is less, with the same result to rounding; the other kernels from Grams. Memory: the
    centred features and the p×q or n×n products.

    Not defined for non-finite values; under ``jax.jit`` values cannot be read, so neither errors
    about values nor warnings are possible there, and the result is NaN.

    References
    ----------
    Kornblith, Norouzi, Lee, Hinton 2019, "Similarity of neural network representations revisited",
    arXiv:1905.00414. Cortes, Mohri, Rostamizadeh 2012. Nguyen, Raghu, Kornblith 2021,
    arXiv:2010.15327, for the unbiased estimator.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 10))
    >>> q, _ = np.linalg.qr(rng.standard_normal((10, 10)))
    >>> round(float(repsim.cka(x, 3 * x @ q + 7)), 6)
    1.0
    >>> y = rng.standard_normal((200, 500))
    >>> bool(repsim.cka(x, y) > 0.1), bool(abs(repsim.cka(x, y, estimator="unbiased")) < 0.1)
    (True, True)
    """
    resolved = resolve_estimator("cka", estimator)
    with_kernel = resolve_kernel("cka", kernel)
    xp, a, b = paired(
        "cka", x, y, min_samples=resolved.min_samples, why=f"the {resolved.name} estimator"
    )
    products, _ = representation_products(
        "cka", xp, a, b, with_kernel, resolved, self_products=True
    )
    return _finish("cka", ("x", "y"), xp, products, a.dtype)


def cka_from_gram(k: Array, l: Array, *, estimator: str = "biased") -> Array:  # noqa: E741
    """Centred kernel alignment of two Gram matrices of the same samples.

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
    array, 0-d
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

    Notes
    -----
    Cost O(n²). In float32 a Gram of features that are far from their mean has already lost what
    CKA needs: centre the features first, or pass them to :func:`cka`, which does.

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414, Eq. 5.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 8))
    >>> k = x @ x.T
    >>> bool(np.isclose(repsim.cka_from_gram(k, k**2), repsim.cka_from_gram(k**2, k)))
    True
    >>> bool(np.isclose(repsim.cka_from_gram(k, 5 * k), 1.0))
    True
    """
    resolved = resolve_estimator("cka_from_gram", estimator)
    xp = namespace("cka_from_gram", k=k, l=l)
    a = as_square("cka_from_gram", xp, k, "k", min_samples=resolved.min_samples)
    b = as_square("cka_from_gram", xp, l, "l", min_samples=resolved.min_samples)
    if a.shape != b.shape:
        raise InputError(
            f"cka_from_gram: k and l must describe the same samples.\n"
            f"  k: {tuple(a.shape)} → n={a.shape[0]}    l: {tuple(b.shape)} → n={b.shape[0]}\n"
            f"  Compute both Grams from the same rows."
        )
    dtype = xp.result_type(a.dtype, b.dtype)
    products, _ = gram_products(
        xp, xp.astype(a, dtype, copy=False), xp.astype(b, dtype, copy=False), resolved
    )
    return _finish("cka_from_gram", ("k", "l"), xp, products, dtype)


def _finish(
    operation: str, names: tuple[str, str], xp: Namespace, products: Products, dtype: object
) -> Array:
    """Normalise, say so where that is impossible, and return a 0-d array of the inputs' dtype."""
    for name, product in zip(names, products[1:], strict=True):
        if known(product > 0) is not False:
            continue
        why = (
            "has no finite Gram matrix (a row of zeros has no direction for a cosine; large "
            "features overflow)"
            if known(xp.isnan(product))
            else "is constant over the samples (its HSIC with itself is zero)"
        )
        warn(
            f"{operation}: {name} {why}, so the similarity is undefined and NaN is returned.",
            DegenerateWarning,
        )
    return scalar(xp, alignment(xp, products), dtype)
