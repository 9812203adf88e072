"""Gram matrices of the outputs of one attention layer's heads, and how far each head looks."""

from __future__ import annotations

from torch import Tensor

from repsim._errors import CaptureError, InputError
from repsim.analysis.attention._distance import AttentionDistances
from repsim.analysis.attention._places import n_samples
from repsim.analysis.attention._sums import is_cross
from repsim.analysis.run._drive import Batch
from repsim.capture import AttentionCall, BoundTransform
from repsim.capture.tokens import TokenOptions
from repsim.kernels import Linear

__all__ = ["HeadGrams"]


class HeadGrams:
    """The Grams of one layer's heads in the current batch, and their distances over all batches.

    Parameters
    ----------
    options : TokenOptions
        The caller's options about where tokens lie.
    transform : BoundTransform
        Which part of a head's output (n, tokens, d) to compare.
    width : int or None
        The number of heads in a sliding subset, which must not be beyond that of the layer.
    """

    def __init__(self, options: TokenOptions, transform: BoundTransform, width: int | None) -> None:
        self.distances = AttentionDistances(options, transform.masks)
        self._transform = transform
        self._width = width
        self.grams: dict[str, Tensor] = {}

    def start(self, batch: Batch) -> None:
        """Prepare for the next batch."""
        self._transform.start(batch.value)
        self.distances.start(batch)
        self.grams = {}

    def add(self, call: AttentionCall) -> None:
        """Add the layer's attention call."""
        if self.grams:
            raise InputError(
                f"head_subset_cka: layer must hold one attention call.\n"
                f"  {call.name!r} holds several\n  Choose one of them: layer={call.name + ':0'!r}."
            )
        if is_cross(call):
            raise CaptureError(
                f"head_subset_cka: heads are ordered by distance, and layer {call.label!r} has "
                f"none.\n"
                f"  it attends to another sequence\n  Choose a layer of self-attention."
            )
        if self._width is not None and self._width > call.heads:
            raise InputError(
                f"head_subset_cka: width is beyond the number of heads.\n"
                f"  width: {self._width}    heads: {call.heads}"
            )
        self.distances.add(call)
        n = n_samples(call)
        # (samples × windows, heads, queries, d), samples first.
        out = call.output.reshape(n, -1, *call.output.shape[1:])
        self.grams = {
            f"head {h}": Linear().gram(self._features(out[:, :, h], call))  # type: ignore[misc]
            for h in range(call.heads)
        }

    def _features(self, output: Tensor, call: AttentionCall) -> Tensor:
        """Return the features (n, p) of one head's output (n, windows, queries, d)."""
        name = getattr(self._transform.function, "name", None)
        if output.shape[1] > 1 and name not in (None, "flatten", "mean"):
            raise InputError(
                f"head_subset_cka: transform_x of attention in windows must be 'flatten' or 'mean'."
                f"\n  layer {call.label!r} has {output.shape[1]} windows, whose tokens are in "
                f"another order"
            )
        tokens = output.flatten(1, 2)
        features: Tensor = self._transform(tokens, call.name, call.call)
        return features.reshape(len(tokens), -1)
