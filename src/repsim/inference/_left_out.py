"""Unbiased CKA of some arrays without each sample, or without each group of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import device

from repsim._errors import DegenerateWarning, InputError, warn
from repsim._typing import Array
from repsim.arrays import (
    Groups,
    Indices,
    accumulator_dtype,
    array_namespace,
    resolve_groups,
    to_numpy,
)
from repsim.estimators import Products, alignment, resolve_estimator
from repsim.inference._interval import Values
from repsim.kernels import resolve_kernel
from repsim.measures import KernelItem, resolve_measure

__all__ = ["FEWEST", "LeftOut"]

FEWEST = 5
"""Fewest samples: after leaving one out, the unbiased estimator needs four."""

MOST = 1e-3
"""The share of ⟨A, A⟩ below which what other samples hold is computed from them alone."""


class LeftOut:
    """The unbiased CKA of arrays of the same samples, of all and without each sample (group).

    The Gram of each array is computed once.

    Parameters
    ----------
    operation : str
        For errors.
    arrays : mapping of str to array, each (n, p)
        At least 5 checked samples, by the name for messages.
    kernel : str or Kernel
        As in :func:`repsim.cka`.
    groups : labels, optional
        As the user passed them. Whole groups are left out.

    Attributes
    ----------
    groups : Groups or None
        The groups, checked.
    sizes : array, shape (k,), float64
        How many samples are left out at a time.
    """

    def __init__(
        self, operation: str, arrays: Mapping[str, Array], kernel: Any, groups: Any
    ) -> None:
        self._operation, self._arrays = operation, arrays
        n = next(iter(arrays.values())).shape[0]
        self.groups = _groups_of(operation, groups, n)
        self.sizes = np.ones(n) if self.groups is None else np.asarray(self.groups.sizes)
        self._measure = resolve_measure(operation, "cka")
        options: dict[str, Any] = {"kernel": kernel, "estimator": "unbiased"}
        self._options: dict[str, Any] = dict(self._measure.options(operation, options))
        self._items = {
            name: self._measure.prepare(operation, array, name=name, **self._options)
            for name, array in arrays.items()
        }
        self._own: dict[tuple[str, str], Array] = {}
        self._warned: set[str] = set()

    def value(self, first: str, second: str) -> float:
        """Return the CKA of two arrays, by their names."""
        items = self._items[first], self._items[second]
        return float(self._measure.compare(*items, **self._options))

    def of(self, first: str, second: str) -> tuple[float, Values]:
        """Return the CKA of two arrays, by their names, and that without each sample (group)."""
        items = [self._items[first], self._items[second]]
        value = self.value(first, second)
        array = self._arrays[first]
        xp, n, whole = array_namespace(array), array.shape[0], self.groups
        products = Products(
            self._product(first, second),
            self._product(first, first),
            self._product(second, second),
        )
        rows = [np.array([i]) for i in range(n)] if whole is None else list(whole.rows)
        without = np.array(to_numpy(alignment(xp, products)))
        if not math.isnan(value):
            places = _dominating(products, items)
            without[places] = self._anew((first, second), [rows[int(at)] for at in places])
        return value, without

    def _product(self, first: str, second: str) -> Array:
        """Return ⟨A, B⟩ without each sample (group); that of an array with itself is kept."""
        if (first, second) not in self._own:
            array = self._arrays[first]
            xp = array_namespace(array)
            wide = accumulator_dtype(xp, array)
            forms = (self._items[name].form(False)[0] for name in (first, second))
            a, b = (xp.astype(form, wide, copy=False) for form in forms)
            whole = self.groups
            found = _without_each(a, b) if whole is None else _without_groups(a, b, whole)
            if first != second:
                return found
            self._own[first, second] = found
        return self._own[first, second]

    def standard_error(self, value: float, without: Values) -> float:
        """Delete-m jackknife (Busing et al. 1999, Eq. 4).

        For equal m it is √((k−1)/k Σ (θ₍₋ᵢ₎ − θ̄)²).
        """
        k, h = len(without), float(np.sum(self.sizes)) / self.sizes
        pseudo = h * value - (h - 1) * without
        estimate = k * value - np.sum((1 - 1 / h) * without)
        return float(np.sqrt(np.mean((pseudo - estimate) ** 2 / (h - 1))))

    def _anew(self, names: tuple[str, str], few: Sequence[Indices]) -> Values:
        """Return the CKA without each of a few sets of rows, from the other rows alone.

        It is NaN where an array is constant without them.
        """
        out, constant = np.full(len(few), math.nan), dict.fromkeys(names, 0)
        if not few:
            return out
        sides = [self._arrays[name] for name in names]
        xp, options = array_namespace(sides[0]), self._options
        kernel = resolve_kernel(self._operation, options["kernel"])
        estimator = resolve_estimator(self._operation, options["estimator"])
        # A bandwidth is that of all samples.
        kernels = [kernel.fit(side) for side in sides]
        for at, rows in enumerate(few):
            kept = np.delete(np.arange(sides[0].shape[0]), rows)
            kept = xp.asarray(kept, device=device(sides[0]))
            x, y = (
                KernelItem(self._operation, name, xp.take(side, kept, axis=0), fitted, estimator)
                for name, side, fitted in zip(names, sides, kernels, strict=True)
            )
            features = x.from_features(y, self_products=True)
            gone = {name: item.vanishes(features) for name, item in zip(names, (x, y), strict=True)}
            constant = {name: count + gone[name] for name, count in constant.items()}
            if not any(gone.values()):
                out[at] = float(self._measure.compare(x, y, **options))
        self._warn_of_constants(constant)
        return out

    def _warn_of_constants(self, constant: Mapping[str, int]) -> None:
        unit = "sample" if self.groups is None else "group"
        for name, count in constant.items():
            if count and name not in self._warned:
                self._warned.add(name)
                warn(
                    f"{self._operation}: {name} is constant without one of its {unit}s ({count} "
                    f"such {unit}{'s' * (count > 1)}), so the standard error and the interval are "
                    "NaN.",
                    DegenerateWarning,
                )


def _groups_of(operation: str, groups: Any, n: int) -> Groups | None:
    whole = resolve_groups(operation, groups, n)
    if whole is not None and n - max(whole.sizes) < FEWEST - 1:
        raise InputError(
            f"{operation}: without any group at least {FEWEST - 1} samples must be left.\n"
            f"  n={n}, the largest of {len(whole.sizes)} groups has {max(whole.sizes)} samples\n"
            f"  Bring more groups."
        )
    return whole


def _without_each(a: Array, b: Array) -> Array:
    """Return ⟨A, B⟩ without each sample (n,), up to a factor that depends on n.

    The rows of A and B sum to zero, so Song's estimator for n − 1 samples reduces to Σ r − 2 r_i −
    2 r_i/(n − 3).
    """
    xp, n = array_namespace(a), a.shape[0]
    rows = xp.sum(a * b, axis=1)
    out: Array = xp.sum(rows) - rows * (2 * (n - 2) / (n - 3))
    return out


def _without_groups(a: Array, b: Array, groups: Groups) -> Array:
    """Return ⟨A, B⟩ of the samples outside each group (g,), up to one factor per group.

    Song et al. 2012, Eq. 5 for the m remaining samples. With z the indicator of a group S, and A1 =
    B1 = 0: Σ A_ij over the remaining samples is zᵀAz, their row sums are −(Az)_i, and Σ A_ij B_ij
    is Σ r − 2 Σ_S r + zᵀ(A∘B)z.
    """
    xp, n = array_namespace(a), a.shape[0]
    indicator = np.zeros((n, len(groups.rows)))
    for g, rows in enumerate(groups.rows):
        indicator[rows, g] = 1.0
    z = xp.asarray(indicator, dtype=a.dtype, device=device(a))
    m = xp.asarray(n - np.asarray(groups.sizes, dtype=np.float64), dtype=a.dtype, device=device(a))
    both = a * b
    az, bz, both_z = a @ z, b @ z, both @ z
    pairs = xp.sum(both) - 2 * xp.sum(both_z, axis=0) + xp.sum(z * both_z, axis=0)
    total = xp.sum(z * az, axis=0) * xp.sum(z * bz, axis=0)
    rows_left = xp.sum((1 - z) * az * bz, axis=0)
    out: Array = pairs + total / ((m - 1) * (m - 2)) - 2 * rows_left / (m - 2)
    return out


def _dominating(left: Products, items: Sequence[Any]) -> Indices:
    """Return the few samples (groups) without which hardly anything is left of a side.

    There the difference of sums would be their rounding.
    """
    selves = zip((left.xx, left.yy), items, strict=True)
    few = [to_numpy(product < MOST * item.self_product(False)) for product, item in selves]
    return np.flatnonzero(few[0] | few[1])
