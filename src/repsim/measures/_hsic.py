"""The Hilbert-Schmidt independence criterion of two representations."""

from __future__ import annotations

from typing import Any

from repsim._typing import Array, EstimatorName, KernelName
from repsim.estimators import resolve_estimator
from repsim.kernels import Kernel, resolve_kernel
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts._contrast_item import linear_item
from repsim.measures.parts._kernel_item import KernelItem

__all__ = ["hsic", "kernel_item", "samples_needed"]


def hsic(
    x: Array,
    y: Array,
    *,
    kernel: KernelName | Kernel = "linear",
    estimator: EstimatorName = "biased",
) -> Array:
    """Hilbert-Schmidt independence criterion between two representations of the same samples.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 5))
    >>> float(repsim.hsic(x, x, estimator="unbiased")) > 0
    True
    >>> abs(float(repsim.hsic(x, rng.standard_normal((100, 5)), estimator="unbiased"))) < 0.2
    True

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
        It is at least zero, and about 1/n too large even for independent data. The unbiased one
        averages to the population value and may be negative. :func:`repsim.pairwise` and the
        command ``repsim measure`` are unbiased by default.

    Returns
    -------
    array, 0-d, or NumPy scalar
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

    Warns
    -----
    DegenerateWarning
        If a Gram is not finite, as with the cosine of a row of zeros, or if the value is outside
        the range of the dtype: NaN is returned.
    RepsimWarning
        If the entries of a Gram differ in so few digits that their rounding counts, as for
        :func:`cka`.

    Notes
    -----
    Cost O(n p q) from features or O(n² (p + q)) from Grams, whichever is less, for the linear
    kernel; O(n² (p + q)) for the others. Invariant to orthogonal maps of either input, to
    translation of either input (except for polynomial and cosine kernels) and to a common
    permutation of the samples.

    Non-finite values raise an error. Under ``jax.jit``, ``torch.compile`` and ``torch.vmap`` values
    cannot be read, so there the result is NaN without errors about values or warnings. The
    transforms of ``torch.func`` and forward mode differentiate as ``backward()`` does.

    References
    ----------
    Gretton et al. 2005, "Measuring statistical dependence with Hilbert-Schmidt norms".
    Song et al. 2012, "Feature selection via dependence maximization", JMLR 13.
    Székely & Rizzo 2014, "Partial distance correlation with methods for dissimilarities".
    """
    return evaluate("hsic", x, y, kernel=kernel, estimator=estimator)


def kernel_item(
    operation: str, x: Array, *, name: str, kernel: str | Kernel, estimator: str
) -> KernelItem:
    """Prepare one representation for HSIC or CKA."""
    return KernelItem(
        operation,
        name,
        x,
        resolve_kernel(operation, kernel),
        resolve_estimator(operation, estimator),
    )


def samples_needed(*, operation: str = "hsic", estimator: str, **_: object) -> tuple[int, str]:
    """Return the fewest samples of the estimator, and its name for an error."""
    resolved = resolve_estimator(operation, estimator)
    return resolved.min_samples, f"the {resolved.name} estimator"


def _compare(x: KernelItem, y: KernelItem, **_: Any) -> Array:
    features = x.from_features(y, self_products=False)
    scale = x.form(features)[1] * y.form(features)[1]
    out: Array = x.product(y, features) * scale / x.estimator.divisor(x.n)
    return out


def _compare_once(x: KernelItem, y: KernelItem, **options: Any) -> Array:
    found = x.once(y, self_products=False)
    if found is None:
        return _compare(x, y, **options)
    products, scale = found
    out: Array = x.placed(products.xy) * scale / x.estimator.divisor(x.n)
    return out


register(
    Measure(
        name="hsic",
        family="kernel",
        function=hsic,
        range=(0.0, float("inf")),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "translation"}),
        minimum_samples=2,
        cost="item O(n² p), pair O(n²); or pair O(n p q)",
        reference="Gretton et al. 2005; Song et al. 2012",
        prepare=kernel_item,
        prepare_contrasts=linear_item,
        compare=_compare,
        compare_once=_compare_once,
        needs=samples_needed,
        self_is_best=False,
        defined_for_constant=True,
    )
)
