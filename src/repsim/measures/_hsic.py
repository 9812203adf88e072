"""The Hilbert-Schmidt independence criterion of two representations."""

from __future__ import annotations

import numpy as np

from repsim._array import known, paired, scalar, unit_scale
from repsim._errors import NonFiniteError
from repsim._typing import Array, Namespace
from repsim.estimators import (
    Estimator,
    Products,
    feature_products,
    features_are_cheaper,
    gram_products,
    resolve_estimator,
)
from repsim.kernels import RBF, Kernel, Laplacian, Linear, resolve_kernel

__all__ = ["hsic", "representation_products"]


def representation_products(
    operation: str,
    xp: Namespace,
    x: Array,
    y: Array,
    kernel: Kernel,
    estimator: Estimator,
    *,
    self_products: bool,
) -> tuple[Products, Array]:
    """Return the inner products that HSIC and CKA are made of, by the cheaper of the two forms."""
    (n, p), q = x.shape, y.shape[1]
    linear = isinstance(kernel, Linear)
    if linear and features_are_cheaper(n, p, q, self_products=self_products):
        return feature_products(xp, x, y, estimator)
    # A bandwidth that follows the data follows the scale as well, and takes it out again.
    scale_free = linear or (isinstance(kernel, RBF | Laplacian) and kernel.sigma is None)
    a, scale_x = unit_scale(xp, x) if scale_free else (x, xp.ones_like(x[0, 0]))
    b, scale_y = unit_scale(xp, y) if scale_free else (y, xp.ones_like(y[0, 0]))
    with np.errstate(all="ignore"):  # what is not finite is an error, or NaN with a reason
        k, l = kernel.gram(a), kernel.gram(b)  # noqa: E741
    for name, gram in (("x", k), ("y", l)):
        if known(xp.any(xp.isinf(gram))):
            raise NonFiniteError(
                f"{operation}: the Gram matrix of {name} overflows {gram.dtype}.\n"
                f"  kernel: {kernel!r}\n"
                f"  Standardise the features of {name}, or pass them as float64."
            )
    products, scale = gram_products(xp, k, l, estimator)
    if linear:
        wide = scale.dtype
        scale = scale * xp.astype(scale_x, wide) ** 2 * xp.astype(scale_y, wide) ** 2
    return products, scale


def hsic(
    x: Array, y: Array, *, kernel: str | Kernel = "linear", estimator: str = "biased"
) -> Array:
    """Hilbert-Schmidt independence criterion between two representations of the same samples.

    With K, L the Gram matrices of x and y, H = I − 11ᵀ/n, and A, B their U-centred forms::

        biased    tr(KHLH)/(n−1)²        (Gretton et al. 2005, Eq. 9)
        unbiased  ⟨A, B⟩/(n(n−3))        (Song et al. 2012, Eq. 5, as a U-centred product)

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    kernel : str or Kernel, default "linear"
        ``"linear"``, ``"rbf"``, ``"laplacian"``, ``"polynomial"``, ``"cosine"``, or an instance
        from :mod:`repsim.kernels`.
    estimator : {"biased", "unbiased"}, default "biased"
        The biased estimator divides by (n−1)², as in 2005; the V-statistic of 2007 divides by n².
        It is at least zero, and above zero by about 1/n even for independent data. The unbiased
        one averages to the population value, and may be negative.

    Returns
    -------
    array, 0-d
        In the units of the product of both kernels (for the linear one x² y²); same namespace and
        device as the inputs, differentiable where they are. float32 for half precision and
        float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 (unbiased: 4) samples, one-dimensional or empty input, NaN or
        infinity (``NonFiniteError``), unknown kernel or estimator.

    Notes
    -----
    Cost O(n p q) from features or O(n² (p + q)) from Grams, whichever is less, for the linear
    kernel; O(n² (p + q)) for the others. Invariant to orthogonal maps of either input, to their
    translation (not: polynomial and cosine kernels) and to a common permutation of the samples.

    References
    ----------
    Gretton et al. 2005, "Measuring statistical dependence with Hilbert-Schmidt norms".
    Song et al. 2012, "Feature selection via dependence maximization", JMLR 13.
    Székely & Rizzo 2014, "Partial distance correlation with methods for dissimilarities".

    Examples
    --------
    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 5))
    >>> float(repsim.hsic(x, x, estimator="unbiased")) > 0
    True
    >>> abs(float(repsim.hsic(x, rng.standard_normal((100, 5)), estimator="unbiased"))) < 0.2
    True
    """
    resolved = resolve_estimator("hsic", estimator)
    with_kernel = resolve_kernel("hsic", kernel)
    xp, a, b = paired(
        "hsic", x, y, min_samples=resolved.min_samples, why=f"the {resolved.name} estimator"
    )
    products, scale = representation_products(
        "hsic", xp, a, b, with_kernel, resolved, self_products=False
    )
    value = products.xy * scale / resolved.divisor(a.shape[0])
    return scalar(xp, value, a.dtype)
