"""Sums of token-patch products over batches, with bounded memory for Gram matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repsim._errors import InputError, NonFiniteError
from repsim.analysis.images._batch import axes_of
from repsim.analysis.images._localization_total import (
    LayerSums,
    Localized,
    described,
    other_positions,
    times,
)
from repsim.analysis.run._first_bad import FirstBad
from repsim.arrays import accumulator_dtype, array_namespace, compute_dtype, promote, to_numpy
from repsim.capture.tokens import TokenGrid
from repsim.estimators import ESTIMATORS, centred
from repsim.kernels import Linear, centre_features
from repsim.streaming import CHUNK, pair_products, self_products

__all__ = ["TokenPatchSums", "patch_edges"]

MAKING = 8
"""Matrices in memory at a time for each Gram that is computed and centred."""

GROUP_BYTES = 1 << 26
"""The most bytes computed at a time: enough for full speed with small Grams."""

FEW_TOKENS = 32
"""Tokens below which copying all patches for a product takes longer than the product."""


class _Running(NamedTuple):
    """The sums so far of one layer, in float64 if its device has it; see :class:`LayerSums`."""

    grid: TokenGrid
    patches: tuple[int, ...]
    image: tuple[int, ...]
    xy: Tensor
    xx: Tensor
    yy: Tensor

    def read(self) -> LayerSums:
        sums = (to_numpy(x).astype(np.float64) for x in (self.xy, self.xx, self.yy))
        return LayerSums(self.grid, self.patches, self.image, *sums)


class _Budget(NamedTuple):
    """Tokens and patches whose Grams are in memory at a time, and tokens computed at a time."""

    tokens: int
    patches: int
    making: int


class TokenPatchSums:
    """Accumulate products of the U-centred Grams of tokens with those of image patches.

    Parameters
    ----------
    operation : str
        For error messages.
    patches : tuple of int, optional
        (Frames,) rows and columns of patches; by default those of each layer's grid.
    memory : int
        Bytes at a time for Grams, for the intermediate results of computing them, and for the
        float64 copies that are summed.
    """

    def __init__(self, operation: str, patches: tuple[int, ...] | None, memory: int) -> None:
        self.operation = operation
        self._patches = patches
        self._memory = memory
        self._image: Tensor | None = None
        # The patch Grams of the current images on one grid, if memory holds all of them.
        self._held: tuple[object, Tensor, Tensor] | None = None
        self._sums: dict[tuple[str, int], _Running] = {}
        self._labels: dict[str, tuple[str, int]] = {}
        self._first_bad = FirstBad(self._not_finite)
        self.n_samples = 0
        self.n_batches = 0
        self._skipped: list[int] = []

    def skip(self, n: int) -> None:
        """Count a batch that has too few samples for unbiased CKA."""
        self._skipped.append(n)

    def start(self, image: Tensor) -> None:
        """Start the next batch with its images or videos, which get their channels in front."""
        axis, _ = axes_of(self.operation, image)
        self._image = image.movedim(axis, 1)

    def add(self, output: Tensor, grid: TokenGrid, layer: str, call: int) -> tuple[str, int]:
        """Add one layer's output, batch first, and return the key of its sums."""
        image = self._image
        assert image is not None, "start() comes first"
        tokens = grid.tokens(output)
        mine = self._layer(layer, call, grid, tuple(image.shape[2:]), tokens)
        xp: Any = array_namespace(tokens)
        budget = self._budget(tokens, image, mine)
        xx = torch.zeros_like(mine.xx)
        for columns, b, yy in self._patch_blocks(mine.patches, tokens.device, budget):
            mine.yy[columns] += yy
            for start in range(0, len(xx), budget.tokens):
                rows = slice(start, min(start + budget.tokens, len(xx)))
                a = _token_grams(tokens[:, rows], budget.making)
                mine.xy[rows, columns] += pair_products(xp, a, b)  # type: ignore[arg-type]
                if columns.start == 0:
                    xx[rows] = self_products(xp, a)  # type: ignore[assignment]
                del a  # free them before the next are computed
        self._note_finite(xx, f"layer {layer!r}, token")
        mine.xx[:] += xx
        return layer, call

    def finish(self, labels: Mapping[str, tuple[str, int]]) -> None:
        """End a batch. ``labels`` maps the labels of the layers to keep to their keys."""
        assert self._image is not None, "start() comes first"
        before, now = self._labels.keys(), labels.keys()
        if self.n_batches and before != now:
            raise InputError(
                f"{self.operation}: every batch must have the layers of the first.\n"
                f"  missing: {sorted(before - now)[:8]}    new: {sorted(now - before)[:8]}\n"
                f"  Leave out layers that run in some batches only."
            )
        self._labels = dict(labels)
        self.n_samples += int(self._image.shape[0])
        self._first_bad.check(wait=False)
        self.n_batches += 1
        self._image = self._held = None

    def total(self) -> Localized | None:
        """Return what all batches left behind, or None; raise if a batch was not finite."""
        if not (self.n_batches or self._skipped):
            return None
        self._first_bad.check(wait=True)
        return Localized(
            self.operation,
            {label: self._sums[key].read() for label, key in self._labels.items()},
            n_samples=self.n_samples,
            n_batches=self.n_batches,
            n_skipped_batches=len(self._skipped),
            n_skipped_samples=sum(self._skipped),
        )

    def _layer(
        self, layer: str, call: int, grid: TokenGrid, image: tuple[int, ...], tokens: Tensor
    ) -> _Running:
        mine = self._sums.get((layer, call))
        if mine is not None:
            if (mine.grid, mine.image) != (grid, image):
                now = f"batch {self.n_batches}: {described(grid, image)}"
                raise other_positions(self.operation, layer, mine, now)
            return mine
        patches, wanted = self._patches or grid.extent, _names(image)
        if len(patches) != len(image):
            raise InputError(
                f"{self.operation}: patches must have the axes of the input.\n"
                f"  layer {layer!r}: {times(patches)} patches of {times(image)} pixels\n"
                f"  Pass patches={wanted}."
            )
        if any(parts > length for parts, length in zip(patches, image, strict=True)):
            raise InputError(
                f"{self.operation}: a patch must hold at least one pixel.\n"
                f"  layer {layer!r}: {times(patches)} patches of {times(image)} pixels\n"
                f"  Pass patches={wanted}, or channels_last= if the grid is wrong."
            )
        count = math.prod(patches)
        size = 8 * grid.n_tokens * count
        if size > self._memory:
            raise InputError(
                f"{self.operation}: the result must fit into memory.\n"
                f"  layer {layer!r}: {grid.n_tokens} tokens × {count} patches take "
                f"{size / 2**20:.3g} MiB, memory is {self._memory / 2**20:.3g} MiB\n"
                f"  Pass patches={wanted} for coarser ones, or choose coarser layers."
            )
        wide = accumulator_dtype(array_namespace(tokens), tokens)
        shapes = (grid.n_tokens, count), (grid.n_tokens,), (count,)
        sums = (tokens.new_zeros(shape, dtype=wide) for shape in shapes)
        return self._sums.setdefault((layer, call), _Running(grid, patches, image, *sums))

    # -- blocks ----------------------------------------------------------------------------------

    def _budget(self, tokens: Tensor, image: Tensor, mine: _Running) -> _Budget:
        """Divide the memory among the Grams of tokens, those of patches, and their computation."""
        p, q = mine.xy.shape
        n = int(image.shape[0])
        item = max(_item_size(tokens), _item_size(image))
        # Products are summed in float64, one chunk of entries at a time.
        row = item * n * n + 2 * 8 * min(n * n, CHUNK)
        # With few samples, a Gram is smaller than its features.
        sides = zip(mine.image, mine.patches, strict=True)
        pixels = image.shape[1] * math.prod(-(-length // parts) for length, parts in sides)
        one = item * n * (MAKING * n + max(4 * tokens.shape[2], 2 * pixels))
        making = max(one, min(self._memory // 16, GROUP_BYTES))
        held = (self._memory - making) // row
        if held < 2:
            raise InputError(
                f"{self.operation}: memory must hold two Gram matrices while one is computed.\n"
                f"  n={n}: {(one + 2 * row) / 2**20:.3g} MiB    "
                f"memory: {self._memory / 2**20:.3g} MiB\n"
                f"  Give it more, or take smaller batches."
            )
        if q + min(p, FEW_TOKENS) <= held:
            return _Budget(min(p, held - q), q, making // one)
        few = max(1, min(p, FEW_TOKENS, held // 4))
        return _Budget(few, min(q, held - few), making // one)

    def _patch_blocks(
        self, patches: tuple[int, ...], device: torch.device, budget: _Budget
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield blocks of patches: their slice, Grams (patches, n²) and self-products."""
        count = math.prod(patches)
        key = (patches, device)
        if self._held is not None:
            if self._held[0] == key and budget.patches == count:
                yield slice(0, count), *self._held[1:]
                return
            self._held = None  # free them before the next are computed
        for start in range(0, count, budget.patches):
            which = slice(start, min(start + budget.patches, count))
            block = self._patch_grams(patches, which, device, budget.making)
            selves: Any = self_products(array_namespace(block), block)
            self._note_finite(selves, "image patch", first=start)
            if budget.patches == count:
                self._held = key, block, selves
            yield which, block, selves
            del block

    def _patch_grams(
        self, patches: tuple[int, ...], which: slice, device: torch.device, group: int
    ) -> Tensor:
        assert self._image is not None, "start() comes first"
        image = self._image.detach().to(device)
        sides = [
            [slice(start, stop) for start, stop in pairwise(patch_edges(length, parts))]
            for length, parts in zip(image.shape[2:], patches, strict=True)
        ]
        cuts = list(product(*sides))
        grams: list[Tensor] = []
        out: Tensor | None = None
        for index in range(which.start, which.stop):
            pixels = image[(slice(None), slice(None), *cuts[index])]
            grams.append(Linear().gram(pixels.reshape(len(image), -1)))  # type: ignore[arg-type]
            if len(grams) < group and index + 1 < which.stop:
                continue
            if out is None:
                out = grams[0].new_empty(which.stop - which.start, len(image) ** 2)
            done = index + 1 - which.start
            out[done - len(grams) : done] = _centred(torch.stack(grams))
            grams.clear()
        assert out is not None, "a block has patches"
        return out

    def _note_finite(self, selves: Tensor, what: str, first: int = 0) -> None:
        """Note whether a Gram is not finite, without waiting for an accelerator."""
        bad = ~torch.isfinite(selves)
        self._first_bad.add(what, ~bad.any(), self.n_batches, first + bad.int().argmax())

    def _not_finite(self, what: str, batch: int) -> NonFiniteError:
        return NonFiniteError(
            f"{self.operation}: tokens and patches must be finite, and so must their Gram.\n"
            f"  {what} {self._first_bad.detail(what)}, batch {batch} (counted from 0)\n"
            f"  Half precision overflows at 65504, and features above 1e17 overflow a float32 "
            f"Gram."
        )


def patch_edges(size: int, parts: int) -> list[int]:
    """Return the parts + 1 pixels, from 0 to size, at which an axis of the image is cut."""
    return [i * size // parts for i in range(parts + 1)]


def _token_grams(tokens: Tensor, group: int) -> Tensor:
    """Return the U-centred Grams of tokens (n, p, d) as rows of (p, n²), computed in groups."""
    n, p, d = tokens.shape
    xp = array_namespace(tokens)
    out: Tensor | None = None
    for start in range(0, p, group):
        block: Any = promote(xp, tokens[:, start : start + group])
        # Centre first, because a raw Gram in float32 would cancel. Columns are independent, so all
        # tokens of the group are centred at once.
        centre: Any = centre_features(xp, block.reshape(n, -1))
        features: Tensor = centre.reshape(n, -1, d).transpose(0, 1)
        grams = features @ features.transpose(1, 2)
        if out is None:
            out = grams.new_empty(p, n * n)
        out[start : start + group] = _centred(grams)
    assert out is not None, "a block has tokens"
    return out


def _centred(grams: Tensor) -> Tensor:
    found = centred(array_namespace(grams), grams, ESTIMATORS["unbiased"])
    rows: Tensor = found.gram  # type: ignore[assignment]
    return rows.reshape(len(grams), -1)


def _item_size(tensor: Tensor) -> int:
    return int(torch.finfo(compute_dtype(array_namespace(tensor), tensor)).bits // 8)


def _names(image: tuple[int, ...]) -> str:
    return "(frames, rows, columns)" if len(image) == 3 else "(rows, columns)"
