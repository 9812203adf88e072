"""The item of HSIC and CKA for one array: scaled features or a centred Gram, made once."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
from array_api_compat import device, is_numpy_array, is_torch_array

from repsim._errors import BandwidthError, NonFiniteError
from repsim._typing import Array
from repsim.arrays import accumulator_dtype, array_namespace, known, square, unit_scale
from repsim.estimators import (
    Estimator,
    Products,
    block_products,
    blockwise,
    feature_product,
    feature_self_product,
    features_are_cheaper,
    inner,
    mean_by_chance,
    scaled_features,
    scaled_gram,
    warn_of_few_digits,
)
from repsim.kernels import RBF, Kernel, Laplacian, Linear
from repsim.measures._registry import undefined

__all__ = ["KernelItem", "why_zero"]


class KernelItem:
    """One representation, prepared for inner products with others.

    The linear kernel has two forms with the same value: p×q products of features and n×n Grams.
    Which one is cheaper depends on both sides of a pair, so each form is made on first use and
    kept.

    Parameters
    ----------
    operation, name : str
        For errors and warnings: the name of the caller and that of this array.
    x : array, shape (n, p)
        Checked features.
    kernel : Kernel
        Resolved.
    estimator : Estimator
        Resolved.
    """

    is_cosine = True
    """Whether CKA of such items is a cosine of matrices, at most 1."""

    def __init__(
        self, operation: str, name: str, x: Array, kernel: Kernel, estimator: Estimator
    ) -> None:
        self.xp = array_namespace(x)
        self.n, self.p = x.shape
        self.estimator = estimator
        self._x, self._kernel = x, kernel
        self._operation, self._name = operation, name
        self._forms: dict[bool, tuple[Array, Array]] = {}
        self._squares: dict[bool, Array] = {}
        self._self_products: dict[bool, Array] = {}
        self._in_blocks: tuple[Array, Array] | None = None  # trace and self-product of `once`

    def from_features(self, other: KernelItem, *, self_products: bool) -> bool:
        """Whether the pair is cheaper from features than from Grams."""
        # A precision rounds the factors of Grams; products of features are never rounded.
        return self._kernel == Linear() and features_are_cheaper(
            self.n, self.p, other.p, self_products=self_products
        )

    def form(self, features: bool) -> tuple[Array, Array]:
        """Return scaled features (n, p) or a scaled centred Gram (n, n), and the Gram's scale."""
        if features not in self._forms:
            self._forms[features] = self._features() if features else self._gram()
        return self._forms[features]

    def product(self, other: KernelItem, features: bool) -> Array:
        """Return ⟨A, B⟩ of the centred Grams, divided by both scales."""
        a, b = self.form(features)[0], other.form(features)[0]
        return feature_product(self.xp, a, b, self.estimator) if features else inner(self.xp, a, b)

    def self_product(self, features: bool) -> Array:
        """Return ⟨A, A⟩, divided by the scale twice; zero with a warning for a constant."""
        if features not in self._self_products:
            if not self._self_products:  # warn once, and not of both forms
                self._warn_of_constant(self._square(features))
            self._self_products[features] = self._square(features)
        return self._self_products[features]

    def vanishes(self, features: bool) -> bool:
        """Whether the centred Gram is zero up to rounding, so that every HSIC with it is zero."""
        return known(self._square(features) <= 0) is True

    def _square(self, features: bool) -> Array:
        a, _ = self.form(features)  # that of a Gram comes with it
        if features not in self._squares:
            self._squares[features] = feature_self_product(self.xp, a, self.estimator)
        return self._squares[features]

    def once(self, other: KernelItem, *, self_products: bool) -> tuple[Products, float] | None:
        """Return the products of a pair that is compared only once, and the scale of ``xy``.

        Blocks of rows replace whole Grams, and nothing is kept. This saves time and memory if no
        product of either side is needed again. Returns ``None`` if the pair cannot be computed in
        blocks: other kernels, residuals of Grams, rounded factors, and frameworks that may trace
        values. The products of tensors in main memory are numbers of NumPy, where a step takes a
        third of the time; :meth:`placed` returns them to torch.
        """
        if not (type(self) is type(other) is KernelItem and isinstance(self._kernel, Linear)):
            return None
        if self._kernel.precision != "highest":
            return None
        if not (blockwise(self._x) and blockwise(other._x)):
            return None
        products, scale = block_products(
            self.xp, self._x, other._x, self.estimator, self_products=self_products
        )
        if self_products:
            self._warn_of_constant(products.xx)
            other._warn_of_constant(products.yy)
            if products.traces is not None:
                self._in_blocks = products.traces[0], products.xx
                other._in_blocks = products.traces[1], products.yy
        return products, scale

    def placed(self, value: Array) -> Array:
        """Return a number that follows from those of :meth:`once` beside the features."""
        if self.xp is np or not is_numpy_array(value):
            return value
        out: Array = self.xp.asarray(float(value), dtype=self.xp.float64, device=device(self._x))
        return out

    def mean_by_chance(self, other: KernelItem) -> Array:
        """Return the mean biased CKA over all permutations of the samples of the other side.

        Cost O(n), or O(n p) from features, after the products of the pair.
        """
        sides = [self._in_blocks, other._in_blocks]
        if None in sides:
            features = self.from_features(other, self_products=True)
            sides = [(item.trace(features), item.self_product(features)) for item in (self, other)]
        traces, squares = zip(*sides, strict=True)
        return mean_by_chance(array_namespace(*squares), self.n, traces, squares)

    def trace(self, features: bool) -> Array:
        """Return tr A of the centred Gram, divided by its scale."""
        a, _ = self.form(features)
        return inner(self.xp, a, a) if features else self.xp.linalg.trace(a)

    def _warn_of_constant(self, product: Array) -> None:
        if known(product <= 0):  # NaN was warned of when the Gram was made
            undefined(self._operation, self._name, True, why_zero(self.estimator))

    def _features(self) -> tuple[Array, Array]:
        a, scale = scaled_features(self.xp, self._x, self.estimator)
        return a, square(self.xp.astype(scale, accumulator_dtype(self.xp, a)))

    def _of_kernel(self, x: Array) -> Array:
        try:
            return self._kernel.gram(x)
        except BandwidthError as error:
            raise error.named(self._operation, self._name) from None

    def _gram(self) -> tuple[Array, Array]:
        xp, kernel, x = self.xp, self._kernel, self._x
        linear = isinstance(kernel, Linear)
        # A bandwidth that follows the data follows the scale too and cancels it.
        if linear or (isinstance(kernel, RBF | Laplacian) and kernel.sigma is None):
            x, size = unit_scale(xp, x)
        else:
            size = xp.ones_like(x[0, 0])
        # Non-finite values are an error, or NaN with a reason. torch does not warn of them, and its
        # compiler does not know NumPy's setting.
        with nullcontext() if is_torch_array(x) else np.errstate(all="ignore"):
            gram = self._of_kernel(x)
        finite = known(xp.all(xp.isfinite(gram)))
        if finite is False and known(xp.any(xp.isinf(gram))):
            raise NonFiniteError(
                f"{self._operation}: the Gram matrix of {self._name} overflows {gram.dtype}.\n"
                f"  kernel: {kernel!r}\n"
                f"  Standardise the features of {self._name}, or pass them as float64."
            )
        if finite is False:
            undefined(
                self._operation,
                self._name,
                True,
                "has no finite Gram matrix (a row of zeros has no direction for a cosine; large "
                "features overflow)",
            )
        found = scaled_gram(xp, gram, self.estimator)
        self._squares[False] = found.square
        if linear:
            return found.gram, found.scale * square(xp.astype(size, found.scale.dtype))
        if known(found.few_digits):
            warn_of_few_digits(self._operation, [self._name], kernel)
        return found.gram, found.scale


def why_zero(estimator: Estimator) -> str:
    """Return the words of a warning: why a representation has no HSIC with itself."""
    if estimator.name == "biased":
        return "is constant over the samples (its HSIC with itself is zero)"
    # One-hot features of different samples are not constant, but no pair is nearer than another.
    return (
        "is constant over the samples, or all pairs of them are equally alike (its unbiased HSIC "
        "with itself is zero)"
    )
