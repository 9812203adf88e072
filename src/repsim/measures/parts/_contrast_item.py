"""The item of linear HSIC and CKA for contrasts, where the samples themselves are not at hand."""

from __future__ import annotations

from repsim._errors import InputError
from repsim._typing import Array
from repsim.arrays import array_namespace, square
from repsim.estimators import (
    above_rounding,
    inner,
    resolve_estimator,
    unbiased_product,
)
from repsim.kernels import Kernel, Linear, resolve_kernel
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._kernel_item import KernelItem

__all__ = ["ContrastItem", "crossed_norms", "linear_item"]


class ContrastItem(KernelItem):
    """As :class:`KernelItem` of the linear kernel, always from features.

    The unbiased product needs Σ a_i b_i of the squared norms, which contrasts of them give.
    """

    def __init__(self, operation: str, name: str, z: Contrasts, estimator: str) -> None:
        super().__init__(
            operation, name, z.points, Linear(), resolve_estimator(operation, estimator)
        )
        self.n = z.dimensions + 1
        self.contrasts = z
        self._forms[True] = z.points, square(z.scale)

    def from_features(self, other: KernelItem, *, self_products: bool) -> bool:
        """True: there is no Gram."""
        return True

    def product(self, other: KernelItem, features: bool) -> Array:
        """Return ⟨A, B⟩ of the centred Grams, divided by both scales."""
        assert isinstance(other, ContrastItem)
        xp, a, b = self.xp, self.contrasts, other.contrasts
        cross = xp.matrix_transpose(a.points) @ b.points
        total = inner(xp, cross, cross)
        if self.estimator.name == "biased":
            return total
        traces = self.trace(True), other.trace(True)
        out: Array = unbiased_product(self.n, total, crossed_norms(a, b, *traces), *traces)
        return out

    def self_product(self, features: bool) -> Array:
        """Return ⟨A, A⟩, divided by the scale twice; zero with a warning for a constant."""
        if features not in self._self_products:
            trace = self.trace(True)
            total = self.product(self, True)
            product = above_rounding(self.xp, total, trace * trace, total.dtype)
            self._self_products[features] = product
            self._warn_of_constant(product)
        return self._self_products[features]


def crossed_norms(a: Contrasts, b: Contrasts, trace_a: Array, trace_b: Array) -> Array:
    """Return Σ a_i b_i of the squared norms of both, whose sums are the traces."""
    xp = array_namespace(a.points)
    assert a.norms is not None
    assert b.norms is not None
    out: Array = inner(xp, a.norms, b.norms) + trace_a * (trace_b / (a.dimensions + 1))
    return out


def linear_item(
    operation: str, z: Contrasts, *, name: str, kernel: str | Kernel, estimator: str
) -> ContrastItem:
    """Prepare one representation for linear HSIC or CKA."""
    if resolve_kernel(operation, kernel) != Linear():
        raise InputError(
            f"{operation}: only the linear kernel follows from covariances.\n"
            f"  got kernel={kernel!r}\n"
            f"  Pass kernel='linear', or use repsim.MinibatchCKA or repsim.pairwise."
        )
    return ContrastItem(operation, name, z, estimator)
