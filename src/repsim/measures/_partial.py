"""Partial alignment: how much two representations share beyond a third one."""

from __future__ import annotations

from repsim._errors import InputError
from repsim._typing import Array
from repsim.arrays import array_namespace, as_samples, check_finite, known, namespace, unlabelled
from repsim.estimators import Estimator, inner
from repsim.kernels import Kernel
from repsim.measures._registry import undefined
from repsim.measures.parts._kernel_item import KernelItem

__all__ = ["PartialItem"]


class PartialItem(KernelItem):
    """The centred Gram of a representation minus its projection on that of a third one.

    With A, C the centred Grams of x and of ``given``, R = A − (⟨A, C⟩/⟨C, C⟩) C. The cosine of two
    such residuals is the partial correlation (c_xy − c_xz c_yz)/√((1 − c_xz²)(1 − c_yz²)) of the
    alignments, without the cancellation in 1 − c².

    Parameters
    ----------
    operation, name, x, kernel, estimator
        As of :class:`KernelItem`.
    given : array, shape (n, r) or (n, ...)
        The third representation, of the same samples.
    """

    def __init__(
        self,
        operation: str,
        name: str,
        x: Array,
        kernel: Kernel,
        estimator: Estimator,
        given: Array,
    ) -> None:
        super().__init__(operation, name, x, kernel, estimator)
        self._given = KernelItem(
            operation, "given", _checked(operation, name, x, given, estimator), kernel, estimator
        )
        self._residual: Array | None = None

    def from_features(self, other: KernelItem, *, self_products: bool) -> bool:
        """Return False, because the residual of a linear Gram is not the Gram of any features."""
        return False

    def product(self, other: KernelItem, features: bool) -> Array:
        """Return ⟨R_x, R_y⟩, divided by both scales."""
        assert isinstance(other, PartialItem)
        return inner(self.xp, self._left(), other._left())

    def self_product(self, features: bool) -> Array:
        """Return ⟨R, R⟩; zero and a warning if the residual is zero or ``given`` is constant."""
        if features not in self._self_products:
            xp, whole = self.xp, super().self_product(features)
            third = self._given.self_product(features)
            left = inner(xp, self._left(), self._left())
            rounding = (64 * float(xp.finfo(self._left().dtype).eps)) ** 2 * whole
            nothing = left <= rounding
            undefined(
                self._operation,
                self._name,
                known((whole > 0) & (third > 0) & nothing) is True,
                "has the same centred Gram matrix as given, up to a factor",
            )
            usable = (third > 0) & ~nothing
            self._self_products[features] = xp.where(usable, left, xp.zeros_like(left))
        return self._self_products[features]

    def _left(self) -> Array:
        if self._residual is None:
            xp = self.xp
            a, c = self.form(False)[0], self._given.form(False)[0]
            square = inner(xp, c, c)
            share = inner(xp, a, c) / xp.where(square > 0, square, xp.ones_like(square))
            self._residual = a - xp.astype(share, a.dtype, copy=False) * c
        return self._residual


def _checked(operation: str, name: str, x: Array, given: Array, estimator: Estimator) -> Array:
    (given,) = unlabelled(operation, {"given": given})
    xp = namespace(operation, **{name: x, "given": given})
    third = as_samples(
        operation,
        xp,
        given,
        "given",
        min_samples=estimator.min_samples,
        why=f"the {estimator.name} estimator",
    )
    if third.shape[0] != x.shape[0]:
        raise InputError(
            f"{operation}: {name} and given must describe the same samples.\n"
            f"  {name}: {tuple(x.shape)} → n={x.shape[0]}    "
            f"given: {tuple(given.shape)} → n={given.shape[0]}\n"
            f"  Pair rows before comparing."
        )
    check_finite(operation, xp, third, "given")
    out: Array = array_namespace(x).astype(third, x.dtype, copy=False)
    return out
