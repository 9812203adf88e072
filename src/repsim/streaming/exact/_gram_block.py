"""A block of one Gram: from products of rows to centred kernel values, a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from repsim.kernels import RBF, Kernel, Laplacian, Linear
from repsim.streaming.exact._kernels import LayerKernel, Rows
from repsim.streaming.exact._sources import Floats

__all__ = ["GramBlock", "PartSums", "largest_of"]


class PartSums(NamedTuple):
    """The sums of a few rows of a block of a Gram; before centring, its largest entry and trace."""

    largest: float
    """The largest size of an entry of two different samples."""
    trace: float
    rows: Floats
    columns: Floats


@dataclass(frozen=True, slots=True)
class GramBlock:
    """A block of one Gram, whose products become centred kernel values a few rows at a time."""

    layer: LayerKernel
    k: Floats
    a: Rows
    b: Rows
    means: tuple[Floats, Floats]
    scale: float
    same: bool
    hollow: bool
    """The diagonal of the Gram is zero and stays zero."""

    @np.errstate(all="ignore")  # a thread does not have the setting of its caller
    def finish(self, part: slice) -> PartSums | None:
        """Make all steps of some rows while they are in the cache.

        A linear Gram has no sums: its rows sum to zero, without the diagonal too.
        """
        linear = isinstance(self.layer.kernel, Linear)
        some, square = self.k[part], self.k[part, part]
        self.layer.of_products(self.k, part, self.a, self.b, same=self.same)
        if self.scale != 1:
            some *= 1 / self.scale
        diagonal = square.diagonal().astype(np.float64) if self.same else np.zeros(1)
        if self.same:
            np.fill_diagonal(square, 0)
        largest = 0.0 if linear else largest_of(some, self.layer.kernel)
        if self.same and not self.hollow:
            np.fill_diagonal(square, diagonal)
        some -= self.means[0][part, None]
        some -= self.means[1]
        if self.hollow:
            np.fill_diagonal(square, 0)
        if linear:
            return None
        return PartSums(largest, float(diagonal.sum()), some.sum(axis=1), some.sum(axis=0))


def largest_of(k: Floats, kernel: Kernel) -> float:
    """Return the largest size of the entries of a block of a Gram."""
    if isinstance(kernel, RBF | Laplacian):
        return float(k.max())  # their values are positive
    return max(float(k.max()), -float(k.min()))
