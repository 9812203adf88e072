"""Difference of magnitudes: how far the means of two representations are from the origin."""

from __future__ import annotations

import math
from typing import NamedTuple

from repsim._typing import Array
from repsim.arrays import accumulator_dtype, array_namespace, root, unit_scale
from repsim.measures._registry import Measure, evaluate, register

__all__ = ["magnitude_difference"]


def magnitude_difference(x: Array, y: Array) -> Array:
    """Magnitude difference: how much the norms of the mean samples differ.

    >>> import numpy as np, repsim
    >>> x = np.array([[3.0, 0.0], [3.0, 8.0]])
    >>> y = np.array([[0.0], [2.0]])
    >>> float(repsim.magnitude_difference(x, y))
    4.0

    ::

        | ‖mean_i x_i‖ − ‖mean_i y_i‖ |

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.

    Returns
    -------
    array, 0-d, or NumPy scalar
        At least 0, in the units of the features. Same namespace and device as the inputs;
        float32 for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``).

    Warns
    -----
    DegenerateWarning
        If the value is larger than the dtype can hold: NaN is returned. A constant representation
        has a value.

    Notes
    -----
    The order of the samples does not matter, so 0 does not mean that two representations are alike.
    Symmetric; a dissimilarity, not a metric. Invariant to orthogonal maps and feature permutations
    of either input; not to scale or translation. Differentiable where neither mean nor the value is
    0. Computed in float64 where the device has it. Cost: O(n p) once for each array, O(1) for a
    pair.

    References
    ----------
    Wang et al. 2022, "Towards understanding the instability of network embedding", IEEE TKDE 34.
    Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329.
    """
    return evaluate("magnitude_difference", x, y)


class _Magnitude(NamedTuple):
    """The norm of the mean, divided by ``scale``."""

    norm: Array
    scale: Array


def _prepare(operation: str, x: Array, *, name: str) -> _Magnitude:
    xp = array_namespace(x)
    scaled, scale = unit_scale(xp, xp.astype(x, accumulator_dtype(xp, x), copy=False))
    mean = xp.mean(scaled, axis=0)
    return _Magnitude(root(xp, xp.sum(mean * mean)), scale)


def _compare(x: _Magnitude, y: _Magnitude) -> Array:
    xp = array_namespace(x.norm)
    # In units of the larger scale, because 1e308 + 1e308 is infinite.
    unit = xp.maximum(x.scale, y.scale)
    out: Array = xp.abs(x.norm * (x.scale / unit) - y.norm * (y.scale / unit)) * unit
    return out


register(
    Measure(
        name="magnitude_difference",
        family="statistics",
        function=magnitude_difference,
        range=(0.0, math.inf),
        similarity=False,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation"}),
        minimum_samples=2,
        cost="item O(n p), pair O(1)",
        reference="Wang et al. 2022; Klabunde et al. 2023",
        prepare=_prepare,
        compare=_compare,
        defined_for_constant=True,
        units="of the features",
    )
)
