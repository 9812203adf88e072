"""A measure of x and y with y's samples in another order; shared work is done once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import Indices, accumulator_dtype
from repsim.estimators import feature_product, inner
from repsim.inference._null_moments import FEWEST, item_moments
from repsim.measures import KernelItem, Measure

__all__ = [
    "Fixed",
    "Rearranged",
    "has_moments",
    "root_of_itself",
    "rounding_of",
    "size_of",
    "slack_of",
    "uses_features",
]

GATHER = 16
"""Multiplications that take as long as fetching one entry of a rearranged Gram."""


class Rearranged:
    """The value of a measure for (x, y[order]).

    For HSIC and related measures, reordering the samples reorders the rows and columns of a centred
    Gram, or the rows of centred features, and self-products do not change. A measure may say how
    its items are reordered. Others prepare y again for every order.

    Parameters
    ----------
    operation : str
        The caller, for errors and warnings.
    measure : Measure
        Its registry entry.
    settings : mapping
        All of its options.
    xp, x, y
        What :func:`repsim.arrays.paired` returns: the namespace, (n, p) and (n, q).
    """

    def __init__(
        self,
        operation: str,
        measure: Measure,
        settings: Mapping[str, Any],
        xp: Namespace,
        x: Array,
        y: Array,
    ) -> None:
        self._operation, self._measure, self._settings = operation, measure, settings
        self.xp, self._y = xp, y
        self.item_x = measure.prepare(operation, x, name="x", **settings)
        self.item_y = measure.prepare(operation, y, name="y", **settings)
        self.kernel = isinstance(self.item_x, KernelItem)
        if self.kernel:
            self._features = uses_features(self.item_x, self.item_y)
            self._fixed_x = Fixed(self.item_x, self._features)

    @cached_property
    def nothing(self) -> bool:
        """Whether a measure of constants, HSIC, is zero in every order, up to rounding.

        The test must not compare one rounding error with others. (|⟨A, B⟩| ≤ ‖A‖ ‖B‖.)
        """
        if not (self.kernel and self._measure.defined_for_constant):
            return False
        return any(item.vanishes(self._features) for item in (self.item_x, self.item_y))

    @np.errstate(over="ignore")  # what overflows is reported by its callers
    def value(self, order: Indices | None = None) -> Array:
        """Return the measure of x and y[order], 0-d; without an order, that of x and y."""
        if self.kernel:
            taken = None if order is None else self.xp.asarray(order, device=device(self._y))
            fixed = Fixed(self.item_y, self._features, taken)
            found = self._measure.compare(self._fixed_x, fixed, **self._settings)
            return self.xp.zeros_like(found) if self.nothing else found
        item = self.item_y
        if order is not None:
            item = self._measure.reordered(item, order)
        if item is None:
            y = self._measure.taken(self._y, order, self._settings)
            item = self._measure.prepare(self._operation, y, name="y", **self._settings)
        return self._measure.compare(self.item_x, item, **self._settings)

    def values(self, orders: list[Indices]) -> Array:
        """Return the measure for each order, (m,), in float64 where the device has it."""
        out = [self.value(order) for order in orders]
        wide = accumulator_dtype(self.xp, out[0])
        stacked: Array = self.xp.stack([self.xp.astype(v, wide, copy=False) for v in out])
        return stacked

    def unit(self) -> Array | None:
        """Return a CKA of 1 in the measure's unit, √(f(x, x) f(y, y)); only for kernel measures."""
        if not self.kernel or self.nothing:
            return None
        of_x, of_y = (
            root_of_itself(self._measure, item, self._features, self._settings)
            for item in (self.item_x, self.item_y)
        )
        return of_x * of_y

    def exact_moments(self) -> tuple[float, float] | None:
        """Return mean and standard deviation over all n! orders if a closed form exists."""
        if self.nothing:
            return 0.0, 0.0
        if not has_moments(self._measure, self.item_x):
            return None
        moments = item_moments(self.item_x, self.item_y, features=self._features)
        unit = self.unit() if self._measure.name == "hsic" else None
        size = 1.0 if unit is None else float(unit)
        return size * float(moments.mean), size * math.sqrt(float(moments.variance))


def has_moments(measure: Measure, item: Any) -> bool:
    """Whether the moments of the measure over all orders have a closed form."""
    return type(item) is KernelItem and measure.name in ("cka", "hsic") and item.n >= FEWEST


def root_of_itself(
    measure: Measure, item: KernelItem, features: bool, settings: Mapping[str, Any]
) -> Array:
    """Return √f(x, x) of a kernel measure."""
    if not measure.defined_for_constant:
        fixed = Fixed(item, features)
        root: Array = item.xp.sqrt(measure.compare(fixed, fixed, **settings))
        return root
    # HSIC, which may overflow where that of two arrays does not.
    norm = item.xp.sqrt(item.self_product(features)) * item.form(features)[1]
    out: Array = norm / math.sqrt(item.estimator.divisor(item.n))
    return out


def uses_features(x: KernelItem, y: KernelItem) -> bool:
    """Whether the products of reordered samples are cheaper from features than from Grams."""
    # A permutation costs n p q multiplications from features, or n² fetches from Grams.
    return x.from_features(y, self_products=False) and x.p * y.p <= GATHER * x.n


class Fixed:
    """A prepared representation in one of its two forms, with reordered samples.

    Parameters
    ----------
    item : KernelItem
        The representation in the order of its samples.
    features : bool
        Whether products are of features, and not of Grams.
    order : array of n indices, optional
        The new order.
    """

    def __init__(self, item: KernelItem, features: bool, order: Array | None = None) -> None:
        self.xp, self.n, self.p, self.estimator = item.xp, item.n, item.p, item.estimator
        self.is_cosine = item.is_cosine
        self._item, self._features, self._order = item, features, order
        self._form: tuple[Array, Array] | None = None

    def from_features(self, other: Fixed, *, self_products: bool) -> bool:
        """Return the chosen form, which does not depend on the other side."""
        return self._features

    def form(self, features: bool) -> tuple[Array, Array]:
        """Return features or Gram in the new order, and the scale of the Gram."""
        if self._form is None:
            a, scale = self._item.form(features)
            if self._order is not None:
                a = self.xp.take(a, self._order, axis=0)
                a = a if features else self.xp.take(a, self._order, axis=1)
            self._form = a, scale
        return self._form

    def product(self, other: Fixed, features: bool) -> Array:
        """Return ⟨A, B⟩ of the centred Grams, divided by both scales."""
        a, b = self.form(features)[0], other.form(features)[0]
        return feature_product(self.xp, a, b, self.estimator) if features else inner(self.xp, a, b)

    def self_product(self, features: bool) -> Array:
        """Return ⟨A, A⟩, which the order does not change."""
        return self._item.self_product(features)


def rounding_of(rearranged: Rearranged, measure: Measure, value: float, like: Array) -> float:
    """Return the difference that the order of the sums alone can cause.

    It is relative to the range, or to the value of x with itself, because a value near zero does
    not show the size of its terms.
    """
    unit = None if math.isfinite(measure.range[1]) else rearranged.unit()
    size = size_of(measure, value if unit is None else float(unit))
    moments = rearranged.exact_moments()
    xp, near = rearranged.xp, None
    if moments is not None:
        near = abs(value) + abs(moments[0]) + moments[1]
    eps, wide = (float(xp.finfo(d).eps) for d in (like.dtype, accumulator_dtype(xp, like)))
    return float(slack_of(eps, size, wide, near))


def size_of(measure: Measure, value: float) -> float:
    """Return what the terms of a value can add up to: the range, if it is finite."""
    low, high = measure.range
    if math.isfinite(high - low):
        return high - low
    # R² of other samples: at most 1, and as low as may be
    return high + abs(value) if math.isfinite(high) else abs(value)


def slack_of(eps: Any, size: Any, wide: float = 0.0, near: Any = None) -> Any:
    """Return how far another order of n² terms can change the last digits of their sum.

    Parameters
    ----------
    eps : float or array
        That of the dtype of the terms.
    size : float or array
        What the terms can add up to.
    wide : float
        The eps of the dtype that CKA and HSIC add up in, float64 if the device has it.
    near : float or array, optional
        For CKA and HSIC: the value and what it is by chance, added. The rounding of float32 terms
        is relative to this. It falls as 1/n, as the deviation by chance does; relative to ``size``
        it would exceed that deviation for many samples.
    """
    return 64 * eps * size if near is None else 64 * (eps * near + wide * size)
