"""Kernels of inner products: linear, polynomial, cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from repsim._options import as_count, as_number
from repsim._typing import Array
from repsim.arrays import (
    array_namespace,
    promote,
    require_precision,
    row_products,
    without_autocast,
)
from repsim.kernels._precision import Precision, repr_of
from repsim.kernels._products import centred_products

__all__ = ["Cosine", "Linear", "Polynomial"]


@dataclass(frozen=True, slots=True, repr=False)
class Linear:
    """The linear kernel, k(a, b) = a·b.

    >>> import numpy as np
    >>> Linear().gram(np.array([[1.0, 0.0], [3.0, 0.0]]))
    array([[ 1., -1.],
           [-1.,  1.]])
    >>> Linear(precision="bf16").gram(np.array([[0.0], [200.3]])).tolist()
    [[10000.0, -10000.0], [-10000.0, 10000.0]]

    The Gram matrix is that of the *centred* features. HSIC with a linear kernel does not depend on
    their mean, but the rounding of a raw Gram does: in float32, a mean of 30 standard deviations
    leaves no digit of the difference.

    Invariances of linear CKA: orthogonal maps, isotropic scale, feature permutations, translation.

    Parameters
    ----------
    precision : {"highest", "tf32", "bf16"}, default "highest"
        How many digits the centred features keep when they are multiplied: all, or 11 or 8
        significant bits, rounded to nearest. Products are summed in at least float32. On CUDA,
        rounded float32 features use the tensor cores. Elsewhere they are rounded by arithmetic,
        which gives the same numbers and takes longer. The page on precision lists the measured
        errors of CKA.
    """

    precision: Precision = "highest"

    __repr__ = repr_of

    def __post_init__(self) -> None:
        require_precision("Linear", self.precision)

    @without_autocast
    def gram(self, x: Array) -> Array:
        """Return XcXcᵀ (n, n) for ``x`` (n, p). Cost O(n²p), memory O(n²)."""
        return centred_products(array_namespace(x), x, self.precision)

    def fit(self, x: Array) -> Linear:
        """Return the kernel itself: nothing in it depends on data."""
        return self


@dataclass(frozen=True, slots=True)
class Polynomial:
    """The polynomial kernel, k(a, b) = (γ a·b + c₀)^d.

    >>> import numpy as np
    >>> Polynomial(degree=2, gamma=1.0).gram(np.array([[1.0], [2.0]]))
    array([[ 4.,  9.],
           [ 9., 25.]])

    Parameters
    ----------
    degree : int, default 2
        d ≥ 1.
    gamma : float, optional
        γ > 0; by default 1/p with p the number of features, so the value does not grow with p.
    coef0 : float, default 1.0
        c₀ ≥ 0; with 0 the CKA does not depend on the scale of the features.

    Notes
    -----
    The features are not centred, because this kernel, unlike the linear one, depends on their mean.
    """

    precision: ClassVar[Precision] = "highest"

    degree: int = 2
    gamma: float | None = None
    coef0: float = 1.0

    def __post_init__(self) -> None:
        as_count("Polynomial", "degree", self.degree)
        if self.gamma is not None:
            as_number("Polynomial", "gamma", self.gamma, above=0, hint="None is 1/p.")
        semidefinite = "Below 0 the kernel would not be positive semi-definite."
        as_number("Polynomial", "coef0", self.coef0, least=0, hint=semidefinite)

    @without_autocast
    def gram(self, x: Array) -> Array:
        """Return the Gram matrix (n, n) for ``x`` (n, p). Cost O(n²p)."""
        xp = array_namespace(x)
        x = promote(xp, x)
        gamma = 1.0 / x.shape[1] if self.gamma is None else self.gamma
        gram = (gamma * row_products(xp, x) + self.coef0) ** int(self.degree)
        # Equal rows may have products that differ in the last digit. Centring would leave that
        # digit, and it would look like a representation.
        out: Array = xp.where(xp.all(x == x[:1, :]), gram[:1, :1], gram)
        return out

    def fit(self, x: Array) -> Polynomial:
        """Return the kernel itself: nothing in it depends on data."""
        return self


@dataclass(frozen=True, slots=True)
class Cosine:
    """The cosine kernel, k(a, b) = a·b/(‖a‖‖b‖).

    >>> import numpy as np
    >>> Cosine().gram(np.array([[2.0, 0.0], [0.0, 3.0]]))
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])

    The Gram matrix is that of the centred unit vectors, because HSIC does not depend on their mean,
    and the cosines of samples far from the origin are all near 1.

    A row of zeros has no direction, so the entries are NaN, and so is every similarity that uses
    them.
    """

    precision: ClassVar[Precision] = "highest"

    @without_autocast
    def gram(self, x: Array) -> Array:
        """Return the Gram matrix (n, n) for ``x`` (n, p). Cost O(n²p)."""
        xp = array_namespace(x)
        x = promote(xp, x)
        # Divide by the largest entry first, because the square of 1e-30 is zero in float32.
        largest = xp.max(xp.abs(x), axis=1, keepdims=True)
        zero = largest <= 0
        x = x / xp.where(zero, xp.ones_like(largest), largest)
        norm = xp.linalg.vector_norm(x, axis=1, keepdims=True)
        x = x / xp.where(zero, xp.full_like(norm, float("nan")), norm)
        gram = centred_products(xp, x)
        # Unit vectors of one direction differ by the rounding of their norms.
        longest = xp.max(xp.linalg.diagonal(gram))
        same = longest <= (8 * xp.finfo(x.dtype).eps) ** 2
        out: Array = xp.where(same, xp.zeros_like(gram), gram)
        return out

    def fit(self, x: Array) -> Cosine:
        """Return the kernel itself: nothing in it depends on data."""
        return self
