"""The sums over the stream of a model, of one process or of several, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from repsim._errors import CaptureError, DegenerateWarning, warn
from repsim.analysis.residual._found_blocks import Block
from repsim.analysis.run._sequence_means import SequenceMeans
from repsim.analysis.run.ranks import one_for_all
from repsim.capture import listing
from repsim.results import BLOCK_INFLUENCE

if TYPE_CHECKING:
    import xarray

__all__ = ["InfluenceTotals", "Place", "left_out_for_masks"]

Place: TypeAlias = tuple[int, int]
"""A chain, and a place in it: the input of the block there, or the output of the last block."""


@dataclass(frozen=True)
class InfluenceTotals:
    """The sums of all blocks.

    Attributes
    ----------
    blocks : list of Block
        The blocks, in the order in which they run.
    spans : list of int
        The spans, in blocks.
    own : mapping of (str, int) to SequenceMeans
        By block: how far it turns its input, and the ratio of norms.
    between : mapping of Place to SequenceMeans
        By place of the end: the angle of each span.
    left_out : mapping of int to str
        Why a chain has no result.
    n_samples : int
        The number of samples.
    """

    blocks: list[Block]
    spans: list[int]
    own: Mapping[tuple[str, int], SequenceMeans]
    between: Mapping[Place, SequenceMeans]
    left_out: Mapping[int, str]
    n_samples: int

    @staticmethod
    def merge(parts: Sequence[InfluenceTotals]) -> InfluenceTotals:
        """Return the sums over the samples of all parts."""
        first, operation = parts[0], "block_influence"
        one_for_all(
            operation,
            "blocks",
            [[(each.label, each.chain) for each in part.blocks] for part in parts],
            "Leave out blocks that run for some inputs only: blocks=[...].",
        )
        for i, block in enumerate(first.blocks):
            axes = [(part.blocks[i].batch, part.blocks[i].channels) for part in parts]
            what = f"axes of samples and features of block {block.label!r}"
            one_for_all(operation, what, axes, "Pass batch_dim= and channel_dim= on all ranks.")
        left_out = {chain: why for part in parts for chain, why in part.left_out.items()}
        if {block.chain for block in first.blocks} == set(left_out):
            raise CaptureError(left_out_for_masks(left_out))
        if left_out:
            warn(left_out_for_masks(left_out))
        own = {
            block.source.key: SequenceMeans.merge([part.own[block.source.key] for part in parts])
            for block in first.blocks
            if block.chain not in left_out
        }
        between = {
            place: SequenceMeans.merge([part.between[place] for part in parts])
            for place in first.between
            if place[0] not in left_out
        }
        n_samples = sum(part.n_samples for part in parts)
        return InfluenceTotals(first.blocks, first.spans, own, between, left_out, n_samples)

    def dataset(self) -> xarray.Dataset:
        """Return the means; see :func:`repsim.block_influence`."""
        blocks = [block for block in self.blocks if block.chain not in self.left_out]
        rows = {(block.chain, block.place): i for i, block in enumerate(blocks)}
        own = np.array([self.own[block.source.key].result() for block in blocks])
        angular = np.full((2, len(blocks), len(self.spans)), np.nan)
        for (chain, place), means in self.between.items():
            for j, values in enumerate(zip(*means.result(), strict=True)):
                angular[:, rows[chain, place - self.spans[j]], j] = values
        labels = [block.label for block in blocks]
        undefined = [
            label for label, row in zip(labels, own, strict=True) if np.isnan(row[0]).any()
        ]
        if undefined:
            warn(
                "block_influence: the stream is exactly zero at some tokens, NaN there: "
                f"{listing(undefined)}.",
                DegenerateWarning,
            )
        variables = {
            "influence": own[:, 0, 0],
            "influence_standard_error": own[:, 1, 0],
            "norm_ratio": own[:, 0, 1],
            "norm_ratio_standard_error": own[:, 1, 1],
            "angular": angular[0],
            "angular_standard_error": angular[1],
        }
        coords = {"block": labels, "start": labels, "span": self.spans}
        return BLOCK_INFLUENCE.dataset(variables, coords)


def left_out_for_masks(left_out: Mapping[int, str]) -> str:
    """Return the message about chains with another number of tokens than the mask."""
    shown = "".join(f"  {why}\n" for why in list(left_out.values())[:8])
    return (
        "block_influence: blocks with another number of tokens than the mask are left out, "
        f"from these on:\n{shown}  Give each sequence its mask: mask={{block or glob: key of "
        "the batch}, with None for blocks without padding."
    )
