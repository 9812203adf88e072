"""A model whose hooks keep the features of each layer, on the CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from repsim.analysis._extract_rows import ToHost, Values
from repsim.analysis.maps._side import RecordedSide, SideOptions
from repsim.analysis.run._token_samples import TokenSamples
from repsim.capture import BoundTransform, Layers

__all__ = ["FeatureSide"]


class FeatureRows(ToHost):
    """A transform for the recorder: the compared part of an output, (n, p), on the CPU."""

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Tensor:
        if self.tokens is None and self.transform.function is None:
            self.transform.note_padding(layer, tensor, call)
        values = super().__call__(tensor, layer, call)
        return values.flatten(1)

    def forget(self) -> None:
        """Do nothing: no value of the forward before is shared with the next."""

    def masks(self, values: Any) -> dict[str, tuple[str, Values]]:
        """Return no masks, because rows are compared as they are."""
        return {}


class FeatureSide(RecordedSide):
    """One model with the recorder that keeps the features of its layers.

    Parameters
    ----------
    operation, model, layers, options, tokens, **more
        As in :class:`RecordedSide`.

    Attributes
    ----------
    rows : FeatureRows
        What made the features of the outputs.
    """

    def __init__(
        self,
        operation: str,
        model: nn.Module,
        layers: Layers,
        options: SideOptions,
        *,
        tokens: TokenSamples | None = None,
        **more: Any,
    ) -> None:
        def reduction(transform: BoundTransform) -> FeatureRows:
            self.rows = FeatureRows(transform, tokens=tokens, operation=operation)
            return self.rows

        super().__init__(
            operation, model, layers, options, reduction=reduction, tokens=tokens, least=1, **more
        )
