"""Reducing the tokens or the map of a layer to one vector per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from repsim._errors import CaptureError, InputError

__all__ = ["REDUCERS", "Reducer", "token"]


@dataclass(frozen=True)
class Reducer:
    """A function of one layer's output, batch first, with the shapes that it accepts.

    Attributes
    ----------
    name : str
        Its name in ``transform=``.
    ndims : frozenset of int
        The numbers of axes it accepts; empty for any.
    """

    name: str
    function: Callable[[Tensor], Tensor] = field(repr=False)
    ndims: frozenset[int] = frozenset()
    takes: str = ""
    wants_layer: ClassVar[bool] = True  # for errors that name the layer

    def __call__(self, tensor: Tensor, layer: str = "x", call: int = 0) -> Tensor:
        """Reduce one tensor; `layer` and `call` are for the error message."""
        if self.ndims and tensor.ndim not in self.ndims:
            raise CaptureError(
                f"{self.name}: layer {layer!r} returned {tuple(tensor.shape)}, "
                f"and this takes {self.takes}.\n"
                '  Select other layers, or use transform="flatten", "mean" or a callable.'
            )
        return self.function(tensor)


def token(index: int) -> Reducer:
    """Make a reducer that takes one token of (B, N, D).

    Parameters
    ----------
    index : int
        Which of the N tokens; negative counts from the end.

    Returns
    -------
    Reducer
        (B, N, D) → (B, D). It raises CaptureError for any other number of axes (a map has
        positions, not tokens; a vector has neither), and if there is no such token.

    Examples
    --------
    >>> import torch
    >>> token(-1)(torch.arange(6.0).reshape(1, 3, 2))
    tensor([[4., 5.]])
    """
    if not isinstance(index, int) or isinstance(index, bool):
        raise InputError(f"token: index must be an int, got {index!r}.")
    name = f"token({index})"

    def take(x: Tensor) -> Tensor:
        if not -x.shape[1] <= index < x.shape[1]:
            raise CaptureError(f"{name}: there are {x.shape[1]} tokens in {tuple(x.shape)}.")
        return x[:, index]

    return Reducer(name, take, frozenset({3}), "tokens (B, N, D)")


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)


def _cls(x: Tensor) -> Tensor:
    return x[:, 0]


def _mean(x: Tensor) -> Tensor:
    if x.ndim == 4:
        return x.mean((2, 3))
    return x.mean(1) if x.ndim == 3 else x


REDUCERS: Mapping[str, Reducer] = MappingProxyType(
    {
        "flatten": Reducer("flatten", _flatten),
        "cls": Reducer("cls", _cls, frozenset({3}), "tokens (B, N, D)"),
        "mean": Reducer(
            "mean", _mean, frozenset({2, 3, 4}), "(B, D), tokens (B, N, D) or maps (B, C, H, W)"
        ),
    }
)
"""Reducers by name, for ``transform=``.

- ``"flatten"``: (B, ...) → (B, p), every value a feature, as in the papers.
- ``"cls"``: (B, N, D) → (B, D), the first token. Any other shape raises CaptureError.
- ``"mean"``: tokens (B, N, D) → (B, D) and maps (B, C, H, W) → (B, C); (B, D) is returned
  unchanged.

A shape does not say what its axes are: a channels-last map (B, H, W, C), as in Swin, is averaged
over W and C, and the map (B, C, L) of a one-dimensional convolution over C. Pass a callable there:
``transform=lambda x: x.mean((1, 2))``.
"""
