"""Sums over batches in a bounded number of blocks, which a jackknife leaves out in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from repsim._typing import Array
from repsim.arrays import array_namespace, same_home, to_numpy
from repsim.estimators import Products, alignment, permutation_variance

__all__ = ["BlockSums", "Sums", "cka_of_sums"]

CAPACITY = 128
"""The most blocks kept. A standard error from 64 to 128 blocks has a relative error of 6-9 %."""

MOST = 1e-4
"""The share of a layer's sum below which what other blocks hold is added up anew."""


class Sums(NamedTuple):
    """Σ_b ⟨A_b, B_b⟩ of all layer pairs (Lx, Ly), and of each layer with itself, in float64."""

    xy: Array
    xx: Array
    yy: Array
    batches: int

    def plus(self, other: Sums) -> Sums:
        """Return the sums over the batches of both; on the CPU if their devices differ."""
        if not same_home(self.xy, other.xy):  # restored from a state, or merged from another device
            return self.on_host().plus(other.on_host())
        return Sums(
            self.xy + other.xy,
            self.xx + other.xx,
            self.yy + other.yy,
            self.batches + other.batches,
        )

    def null_sd(self, n: int) -> Array:
        """Return the standard deviation of ⟨A, B⟩ over permutations of a batch of n, (Lx, Ly)."""
        xp = array_namespace(self.xx)
        factor = math.sqrt(permutation_variance(n))
        # Roots first: the product of two self-products overflows.
        out: Array = xp.sqrt(self.xx)[:, None] * (xp.sqrt(self.yy) * factor)[None, :]
        return out

    def on_host(self) -> Sums:
        """Return the same sums as NumPy arrays."""
        return Sums(to_numpy(self.xy), to_numpy(self.xx), to_numpy(self.yy), self.batches)

    def in_double(self) -> Sums:
        """Return the same sums as NumPy arrays in float64, for devices without it."""
        xy, xx, yy = (to_numpy(v).astype(np.float64) for v in (self.xy, self.xx, self.yy))
        return Sums(xy, xx, yy, self.batches)


@dataclass(frozen=True)
class BlockSums:
    """Sums over batches in at most ``capacity`` blocks of the same number of batches.

    At first every batch is one block. When there are too many, adjacent blocks are joined, and each
    holds 2, 4, 8, ... batches. The total does not depend on the blocks.
    """

    blocks: Sequence[Sums] = ()
    batches_per_block: int = 1
    capacity: int = CAPACITY

    def plus(self, other: BlockSums) -> BlockSums:
        """Return the blocks of both, at the coarser of the two block sizes."""
        size = max(self.batches_per_block, other.batches_per_block)
        out = self._of_size(size)
        for block in other._of_size(size).blocks:
            out = out._with(block)
        return out

    def total(self) -> Products:
        """Return the sums over all batches, as NumPy arrays."""
        first, *rest = self.blocks
        for block in rest:
            first = first.plus(block)
        return Products(to_numpy(first.xy), to_numpy(first.xx), to_numpy(first.yy))

    def cka(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the CKA over all batches, (Lx, Ly); NaN for constant layers."""
        return cka_of_sums(self.total())

    def on_host(self) -> BlockSums:
        """Return the same blocks as NumPy arrays."""
        return replace(self, blocks=[block.on_host() for block in self.blocks])

    def jackknife(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the delete-one-block jackknife standard error of CKA, (Lx, Ly).

        √((k−1)/k · Σ_b (θ₍₋b₎ − θ̄)²) over the k blocks, θ₍₋b₎ the CKA without block b; NaN for a
        single block. Takes two passes over the blocks and the memory of one matrix.
        """
        total = self.total()
        k = len(self.blocks)
        if k < 2:
            return np.full_like(total.xy, np.nan)
        mean = sum(self._without(total, at) for at in range(k)) / k
        squares = sum((self._without(total, at) - mean) ** 2 for at in range(k))
        out: np.ndarray[Any, np.dtype[np.float64]] = np.sqrt((k - 1) / k * squares)
        return out

    def in_one_block(self) -> tuple[Any, Any]:
        """Return which layers, (Lx,) and (Ly,), vary in one of several blocks alone."""
        x, y = (
            np.sum([to_numpy(getattr(block, side)) > 0 for block in self.blocks], axis=0) == 1
            for side in ("xx", "yy")
        )
        return x, y

    def as_plain(self) -> dict[str, Any]:
        """Return the blocks stacked into four NumPy arrays."""
        return {
            "batches_per_block": self.batches_per_block,
            "batches": np.array([b.batches for b in self.blocks], dtype=np.int64),
            **{
                name: np.array([to_numpy(getattr(b, name)) for b in self.blocks], dtype=np.float64)
                for name in ("xy", "xx", "yy")
            },
        }

    @classmethod
    def from_plain(cls, state: Mapping[str, Any]) -> BlockSums:
        """Return what :meth:`as_plain` stacked; the blocks stay on the host."""
        columns = zip(state["xy"], state["xx"], state["yy"], state["batches"], strict=True)
        return cls(
            [Sums(np.array(xy), np.array(xx), np.array(yy), int(b)) for xy, xx, yy, b in columns],
            int(state["batches_per_block"]),
        )

    def _with(self, sums: Sums) -> BlockSums:
        """Add a batch, or a block that holds at most as many batches as these."""
        last = self.blocks[-1].batches if self.blocks else self.batches_per_block
        if last + sums.batches <= self.batches_per_block:
            blocks = [*self.blocks[:-1], self.blocks[-1].plus(sums)]
        else:
            blocks = [*self.blocks, sums]
        out = replace(self, blocks=blocks)
        while len(out.blocks) > self.capacity:
            out = out._joined()
        return out

    def _of_size(self, batches_per_block: int) -> BlockSums:
        out = self
        while out.batches_per_block < batches_per_block:
            out = out._joined()
        return out

    def _joined(self) -> BlockSums:
        """Join each two neighbours to one block."""
        pairs = zip(self.blocks[::2], self.blocks[1::2], strict=False)
        joined = [a.plus(b) for a, b in pairs]
        rest = self.blocks[2 * len(joined) :]
        return replace(self, blocks=[*joined, *rest], batches_per_block=2 * self.batches_per_block)

    def _without(self, total: Products, at: int) -> Any:
        """Return the CKA without one block."""
        block = self.blocks[at].on_host()
        left = Products(total.xy - block.xy, total.xx - block.xx, total.yy - block.yy)
        # Where a block holds nearly all of a layer, the difference would be rounding.
        selves = ((left.xx, total.xx), (left.yy, total.yy))
        if any(np.any(np.asarray(rest < MOST * whole)) for rest, whole in selves):
            rest = [*self.blocks[:at], *self.blocks[at + 1 :]]
            left = replace(self, blocks=rest).total()
        return cka_of_sums(left)


def cka_of_sums(sums: Products) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the CKA (Lx, Ly) of sums (Lx, Ly), (Lx,) and (Ly,); NaN for constant layers."""
    return to_numpy(alignment(np, Products(sums.xy, sums.xx[:, None], sums.yy[None, :])))
