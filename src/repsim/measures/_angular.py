"""CKA as an angle, which is a metric."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from repsim._typing import Array, EstimatorName, KernelName
from repsim.arrays import accumulator_dtype, array_namespace
from repsim.estimators import BIASED_CKA
from repsim.kernels import Kernel
from repsim.measures._cka import alignment_once, floor_by_chance, kernel_alignment
from repsim.measures._hsic import kernel_item, samples_needed
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts._contrast_item import linear_item
from repsim.measures.parts._geometry import angle
from repsim.measures.parts._kernel_item import KernelItem

__all__ = ["angular_cka"]


def angular_cka(
    x: Array,
    y: Array,
    *,
    kernel: KernelName | Kernel = "linear",
    estimator: EstimatorName = "biased",
) -> Array:
    """Angular CKA: the angle between two centred Gram matrices.

    >>> import numpy as np, repsim
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0], [4.0, 1.0]])
    >>> float(repsim.angular_cka(x, 3 * x + 1))
    0.0
    >>> value = repsim.angular_cka(x, x * [1.0, 3.0])
    >>> bool(np.isclose(np.cos(value), repsim.cka(x, x * [1.0, 3.0])))
    True

    ::

        θ = arccos(CKA(x, y))

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    kernel : str or Kernel, default "linear"
        As in :func:`cka`.
    estimator : {"biased", "unbiased"}, default "biased"
        As in :func:`cka`. The unbiased CKA may be negative, and the angle then exceeds π/2.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, π/2] (biased) or [0, π] (unbiased), radians; 0 for equal representations. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        As :func:`cka` raises it.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: NaN is returned.
    ChanceWarning
        If the biased CKA of independent data would be above 0.1, with this number.

    Notes
    -----
    A metric: the triangle inequality holds, so layers can be clustered or embedded with it. Its
    invariances and its bias are those of CKA with the same kernel: the angle between independent
    representations of many features and few samples is near 0, not near π/2.

    The arccosine magnifies the rounding of a CKA near 1, so it is computed in float64 where the
    device has it, and an angle below about 1e-7 (3e-3 without float64) is returned as exactly 0.
    Differentiable where the angle is not 0. Cost as :func:`cka`.

    References
    ----------
    Williams, Kunz, Kornblith, Linderman 2021, "Generalized shape metrics on neural
    representations", arXiv:2110.14739. Lange, Kwok, Matelsky, Wang, Rolnick, Kording 2023, "Deep
    networks as paths on the manifold of neural representations".
    """
    return evaluate("angular_cka", x, y, kernel=kernel, estimator=estimator)


def _prepare(operation: str, x: Array, **options: Any) -> KernelItem:
    xp = array_namespace(x)
    return kernel_item(operation, xp.astype(x, accumulator_dtype(xp, x), copy=False), **options)


def _compare(x: KernelItem, y: KernelItem, **_: Any) -> Array:
    return angle(x.xp, kernel_alignment(x, y))


def _compare_once(x: KernelItem, y: KernelItem, **_: Any) -> Array:
    return angle(x.xp, alignment_once(x, y))


register(
    Measure(
        name="angular_cka",
        family="kernel",
        function=angular_cka,
        range=(0.0, math.pi / 2),
        similarity=False,
        metric=True,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"}),
        minimum_samples=2,
        cost="item O(n² p), pair O(n²); or item O(n p²), pair O(n p q)",
        reference="Williams et al. 2021",
        prepare=_prepare,
        prepare_contrasts=linear_item,
        compare=_compare,
        compare_once=_compare_once,
        needs=partial(samples_needed, operation="angular_cka"),
        units="rad",
        floor=floor_by_chance,
        floor_words=BIASED_CKA,
    )
)
