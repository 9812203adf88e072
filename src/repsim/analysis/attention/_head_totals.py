"""The sums of head subsets over batches, of one process or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import warn
from repsim.analysis.attention._totals import AttentionTotals
from repsim.analysis.run.ranks import one_for_all
from repsim.results import HEAD_SUBSET_CKA
from repsim.streaming import BlockSums, MinibatchCKA, Sums

if TYPE_CHECKING:
    import xarray

__all__ = ["LAYER", "HeadTotals"]

LAYER = "layer "
"""Prefix of the names of layers of y, which must differ from those of heads."""


@dataclass(frozen=True)
class HeadTotals:
    """What all batches left behind; that of several ranks adds up.

    Attributes
    ----------
    attention : AttentionTotals
        The sums of the distances of the heads.
    cka : mapping
        The state of the accumulator of the Grams: heads against heads and the layers of y.
    """

    attention: AttentionTotals
    cka: Mapping[str, Any]

    @staticmethod
    def merge(parts: Sequence[HeadTotals]) -> HeadTotals:
        """Return the sums over the batches of all parts."""
        layers = [each.cka["layers_y"] for each in parts if each.cka["layers_y"]]
        if layers:
            repair = "Leave out layers that run in some batches only."
            one_for_all("head_subset_cka", "heads and layers of y", layers, repair)
        total = MinibatchCKA(kernel="linear")
        for each in parts:
            total.merge(MinibatchCKA.from_state_dict(each.cka))
        attention = AttentionTotals.merge([each.attention for each in parts])
        return HeadTotals(attention, total.state_dict())

    def dataset(self, kinds: Sequence[str], width: int | None) -> xarray.Dataset:
        """Return the CKA of subsets of these kinds; see :func:`repsim.head_subset_cka`."""
        acc = MinibatchCKA.from_state_dict(self.cka)
        acc.compute()  # warns about constant and skipped data
        assert acc.layers_x is not None, "compute raises without a batch"
        count = len(acc.layers_x)
        distances = self.attention.dataset()
        width = max(1, count // 4) if width is None else width
        result = _dataset(acc, distances.distance.values[0, :count], kinds, width)
        for name in ("head_distance", "mean_distance"):  # pixels, or tokens of a text
            result[name].attrs["units"] = distances.distance.attrs["units"]
        return result.assign_attrs(
            layer=distances.layer.values[0].item(),
            n_samples=acc.n_samples,
            n_batches=acc.n_batches,
            n_skipped_batches=acc.n_skipped_batches,
            n_skipped_samples=acc.n_skipped_samples,
        )


def _chosen(order: Sequence[int], kinds: Sequence[str], width: int) -> list[tuple[str, list[int]]]:
    """Return the subsets as (kind, heads from local to global)."""
    count = len(order)
    growing = [list(order[:size]) for size in range(1, count + 1)]
    sliding = [list(order[at : at + width]) for at in range(count - width + 1)]
    return [
        (kind, members)
        for kind in kinds
        for members in {"growing": growing, "sliding": sliding}[kind]
    ]


def _dataset(acc: MinibatchCKA, distances: Any, kinds: Sequence[str], width: int) -> xarray.Dataset:
    count = len(distances)
    assert acc.layers_y is not None, "heads and layers stand side by side in y"
    # Use the order of the first batch, because layers may run in another order later.
    layers = [name.removeprefix(LAYER) for name in acc.layers_y[count:]]
    order = np.argsort(distances, kind="stable")
    subsets = _chosen(order.tolist(), kinds, width)
    members = np.zeros((len(subsets), count))
    for row, (_, chosen) in enumerate(subsets):
        members[row, chosen] = 1.0
    sums = acc.block_sums()
    cka, error = _subset_cka(sums, members)
    head_cka, _ = _subset_cka(sums, np.eye(count))
    if len(sums.blocks) < 2:
        warn(
            "head_subset_cka: one batch has no spread, so there is no standard error (NaN).\n"
            "  Pass several batches."
        )
    return HEAD_SUBSET_CKA.dataset(
        {
            "cka": cka,
            "standard_error": error,
            "head_cka": head_cka,
            "head_distance": distances,
        },
        {
            "layer_y": layers,
            "head": np.arange(count),
            "mean_distance": members @ distances / members.sum(1),
            "size": members.sum(1).astype(int),
            "kind": [kind for kind, _ in subsets],
            "heads": [",".join(map(str, chosen)) for _, chosen in subsets],
        },
    )


def _subset_cka(sums: BlockSums, members: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return CKA and standard error, (subsets, layers), because HSIC is linear in each Gram."""
    count = members.shape[1]
    mapped = BlockSums(
        [
            Sums(
                members @ block.xy[:, count:],
                (members @ block.xy[:, :count] * members).sum(1),
                block.yy[count:],
                block.batches,
            )
            for block in sums.blocks
        ],
        sums.batches_per_block,
        sums.capacity,
    )
    return mapped.cka(), mapped.jackknife()
