"""Reducing the tokens or the map of a layer to one vector per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from repsim._errors import InputError
from repsim._options import got, is_whole
from repsim.capture._means import equal_in_batch, mean_of
from repsim.capture._near import values_of
from repsim.capture._output import UnusableOutput

__all__ = ["REDUCERS", "Reducer", "token"]

Function: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
"""An output (B, ..., D) and its mask (B, N) or None, to one vector per sample."""


@dataclass(frozen=True)
class Reducer:
    """A function of one layer's output, batch first, with the shapes that it accepts.

    Attributes
    ----------
    name : str
        Its name in ``transform=``.
    function : callable
        Of an output and its mask.
    ndims : frozenset of int
        The numbers of axes it accepts; empty for any.
    """

    name: str
    function: Function = field(repr=False)
    ndims: frozenset[int] = frozenset()
    takes: str = ""
    wants_layer: ClassVar[bool] = True  # for errors that name the layer

    def __call__(
        self,
        tensor: Tensor,
        layer: str = "x",
        call: int = 0,
        *,
        mask: Tensor | None = None,
        features_first: bool | None = None,
    ) -> Tensor:
        """Reduce one tensor.

        Parameters
        ----------
        tensor : torch.Tensor, shape (B, ...)
            The output.
        layer, call : str, int
            For the error message.
        mask : torch.Tensor, shape (B, N), optional
            True where a position of (B, N, ...) is real; by default all are.
        features_first : bool, optional
            Whether axis 1 holds the features, as in the map of a convolution; otherwise the last
            axis does. By default maps of four and five axes have them first, and tokens last.
        """
        if self.ndims and tensor.ndim not in self.ndims:
            shape = tuple(tensor.shape)
            raise UnusableOutput(
                f"{self.name}: layer {layer!r} returned {shape}, and this takes {self.takes}.\n"
                '  Select other layers, or use transform="flatten", "mean" or a callable.',
                brief=f"{shape}: {self.name} takes {self.takes}",
                repair='another transform=, such as "mean"; the layers of a second model may have '
                "their own, transform_y=.",
            )
        if self.ndims and tensor.ndim > 2:
            first = tensor.ndim > 3 if features_first is None else features_first
            tensor = tensor.movedim(1, -1) if first and mask is None else tensor
        try:
            return self.function(tensor, mask)
        except _NoToken as problem:
            shape = tuple(tensor.shape)
            raise UnusableOutput(
                f"{self.name}: there are {problem} tokens in layer {layer!r}, {shape}.\n"
                "  Choose another token, or other layers.",
                brief=f"{shape} has {problem} tokens",
            ) from None


class _NoToken(Exception):  # noqa: N818 - turned into an UnusableOutput that names the layer
    """The number of tokens, where the wanted one is beyond."""


def token(index: int) -> Reducer:
    """Make a reducer that takes one token of (B, N, D).

    >>> import torch
    >>> token(-1)(torch.arange(6.0).reshape(1, 3, 2))
    tensor([[4., 5.]])

    Parameters
    ----------
    index : int
        Which of the N tokens; negative counts from the end. With a mask, which of each sample's
        real tokens.

    Returns
    -------
    Reducer
        (B, N, D) → (B, D). It raises CaptureError for any other number of axes (a map has
        positions, not tokens; a vector has neither), and if there is no such token.
    """
    if not is_whole(index):
        raise InputError(f"token: index must be an integer.\n  got {got(index)}")
    return _taking(f"token({index})", int(index))


def _taking(name: str, index: int) -> Reducer:
    """Make a reducer of this name that takes one token."""

    def take(x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            if not -x.shape[1] <= index < x.shape[1]:
                raise _NoToken(x.shape[1])
            return x[:, index]
        counts = mask.sum(1)
        fewest = int(values_of(mask).sum(1).min())
        if not -fewest <= index < fewest:
            raise _NoToken(fewest)
        wanted = counts.new_full(counts.shape, index) if index >= 0 else counts + index
        # The place of each sample's real token of this number.
        rank = mask.cumsum(1) - 1
        place = ((rank == wanted[:, None]) & mask).int().argmax(1)
        return x[torch.arange(len(x), device=x.device), place]

    return Reducer(name, take, frozenset({3}), "tokens (B, N, D)")


def _flatten(x: Tensor, _mask: Tensor | None) -> Tensor:
    return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    if x.ndim == 2:
        return x
    mean, rounding = mean_of(x, mask)
    return equal_in_batch(mean, rounding)


REDUCERS: Mapping[str, Reducer] = MappingProxyType(
    {
        "flatten": Reducer("flatten", _flatten),
        "cls": _taking("cls", 0),
        "first": _taking("first", 0),
        "last": _taking("last", -1),
        "mean": Reducer(
            "mean",
            _mean,
            frozenset({2, 3, 4, 5}),
            "(B, D), tokens (B, N, D) or maps (B, C, H, W), (B, H, W, C), (B, C, T, H, W)",
        ),
    }
)
"""Reducers by name, for ``transform=``.

- ``"flatten"``: (B, ...) → (B, p), every value a feature, as in the papers.
- ``"cls"``, ``"first"``, ``"last"``: (B, N, D) → (B, D), one token; with a mask, the first or last
  real one of each sample. Any other shape raises CaptureError. So does "cls" if the model is known
  to have no such token, or to have it behind the patches.
- ``"mean"``: tokens (B, N, D) → (B, D), with a mask over the real ones; maps of one to three
  dimensions → (B, C), whether their channels are first or last; (B, D) is returned unchanged. Means
  of half precision are float32. In texts, one axis is as long as the texts, and "mean" is over it
  alone: (B, heads, N, d) → (B, heads, d). Pairs of tokens (B, N, N, D) raise CaptureError.

A shape does not say where the channels are. The kind of the module, the widths of the modules
around it, the aspect of the image and the strides of a permuted map do; a map whose channels these
do not find raises CaptureError. Linear layers that mix tokens, as in MLP-Mixer, return (B, D, N),
and "mean" is over N. If an image has as many patches as features (N = D), such a layer is not
recognised, and "mean" is over D.
"""
