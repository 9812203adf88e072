"""Outputs as positions with features: vectors, tokens and maps in one form, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from repsim.capture import Masks, UnusableOutput, unwrap
from repsim.capture.samples import BatchAxis
from repsim.capture.tokens import (
    Convolution,
    Declared,
    PositionAxes,
    declared_prefix,
    grid_of_sequence,
    modules_around,
    watching,
)

__all__ = ["Form", "Held", "Positions", "Unfit", "brought"]


class Unfit(Exception):  # noqa: N818 - a reason, not an error: the pair is left out
    """Why the positions of a layer of x cannot take the place of those of a layer of y."""


@dataclass(frozen=True)
class Form:
    """Where positions and features lie in an output (B, ...).

    Attributes
    ----------
    sizes : tuple of int
        Of the axes of positions: none for a vector, one for tokens, two or three for a map.
    features_first : bool
        Whether the features are on axis 1.
    grid : (int, int) or None
        Of the patches among tokens, where it is known.
    prefix : int
        The number of tokens before the patches; 0 without a grid.
    """

    sizes: tuple[int, ...]
    features_first: bool
    grid: tuple[int, int] | None = None
    prefix: int = 0

    def positions(self, tensor: Tensor) -> Tensor:
        """Return an output as (B, N, D)."""
        if not self.sizes:
            return tensor[:, None]
        return (tensor.movedim(1, -1) if self.features_first else tensor).flatten(1, -2)

    def shaped(self, values: Tensor) -> Tensor:
        """Return positions (B, N, D) in the form of the output."""
        if not self.sizes:
            return values[:, 0]
        out = values.reshape(len(values), *self.sizes, values.shape[-1])
        return out.movedim(-1, 1) if self.features_first else out


@dataclass(frozen=True)
class Held:
    """What one call of a layer returned for a batch.

    Attributes
    ----------
    layer, call : str, int
        The module, and which of its calls.
    form : Form
        Where its positions lie.
    values : torch.Tensor, shape (B, N, D)
        Its positions, float32 or float64.
    real : torch.Tensor, shape (B, N), bool, or None
        Which of them are real; None if all are.
    """

    layer: str
    call: int
    form: Form
    values: Tensor
    real: Tensor | None


class Positions:
    """A transform for the recorder that keeps the positions of an output.

    Parameters
    ----------
    model : torch.nn.Module
        The model of the layers.
    masks : Masks
        Which positions are real.
    """

    wants_layer = True

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self._root, self.masks = unwrap(model), masks
        self._axes = PositionAxes(model)
        self._declared = Declared.by(model)
        self._convolutions: list[Convolution] = []
        self._samples: BatchAxis | None = None

    def follow(self, samples: BatchAxis) -> None:
        """Learn from the recorder which rows were folded into samples."""
        self._samples = samples

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the maps of the model, which tell patches from other tokens."""
        with watching(self._root) as self._convolutions:
            yield

    def start(self, batch: Any) -> None:
        """Start the next batch, in the form that the model gets."""
        self.masks.start(batch)
        self._axes.start(batch)
        self._convolutions.clear()

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Held:
        """Return the positions of one output, samples first."""
        form = self.form(tensor, layer, call)
        values = form.positions(tensor)
        real = self.masks.aligned(layer, values, "A stitching map", call) if form.sizes else None
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        return Held(layer, call, form, values.to(wide, copy=True), real)

    def form(self, tensor: Tensor, layer: str, call: int) -> Form:
        """Return where the positions of an output lie, samples first; raise if unknown."""
        shape = tuple(tensor.shape)
        if not 2 <= tensor.ndim <= 5:
            raise UnusableOutput(
                f"stitch: layer {layer!r} returned {shape}.\n"
                "  A stitching map takes vectors (B, D), tokens (B, N, D) or maps (B, C, H, W), "
                "(B, H, W, C), (B, C, T, H, W).\n  Choose another layer, or pass select=.",
                brief=f"{shape}: a stitching map takes vectors, tokens or maps",
            )
        rows = 1 if self._samples is None else self._samples.rows_of(layer, call)
        if rows > 1:
            raise UnusableOutput(
                f"stitch: layer {layer!r} returns {rows} rows for each sample, such as windows.\n"
                "  Choose a layer outside of windows.",
                brief=f"{shape}: {rows} windows or crops of each sample",
            )
        if tensor.ndim == 2:
            return Form((), features_first=False)
        first = self._axes.features_first(layer, shape)
        if first is None:
            raise UnusableOutput(
                f"stitch: the channels of layer {layer!r} may be first or last.\n"
                f"  it returned {shape}\n  Choose another layer.",
                brief=f"{shape}: its channels may be first or last",
            )
        sizes = shape[2:] if first else shape[1:-1]
        if len(sizes) > 1:
            return Form(sizes, features_first=first)
        maps = [each.result for each in self._convolutions]
        around = declared_prefix(modules_around(self._root, layer))
        known = self._declared.named if around is None else around
        grid, prefix = grid_of_sequence(sizes[0], maps, declared=known) or (None, 0)
        return Form(sizes, features_first=first, grid=grid, prefix=prefix)


def brought(x: Held, form: Form) -> Tensor:
    """Return the features of x at the positions of another form, (B, N, D); raise Unfit.

    Maps are resized bilinearly, with a wider kernel where they become smaller. Patches of tokens
    are a map.
    """
    if x.form.sizes == form.sizes:
        return x.values
    here, there = _as_map(x.form), _as_map(form)
    if here is None or there is None:
        raise Unfit(f"{_words(x.form)} cannot take the place of {_words(form)}")
    if form.prefix:
        raise Unfit(f"{_words(x.form)} have nothing for the {form.prefix} first of {_words(form)}")
    if len(x.form.sizes) == len(form.sizes) == 1:
        raise Unfit(f"{_words(x.form)} cannot take the place of {_words(form)}: other counts")
    if len(here) != len(there):
        raise Unfit(f"{_words(x.form)} cannot take the place of {_words(form)}")
    values = x.values[:, x.form.prefix :]
    if here == there:
        return values
    maps = values.transpose(1, 2).reshape(len(values), values.shape[-1], *here)
    if len(here) == 2:
        maps = interpolate(maps, there, mode="bilinear", antialias=True)
    else:
        maps = interpolate(maps, there, mode="trilinear")
    return maps.flatten(2).transpose(1, 2)


def _as_map(form: Form) -> tuple[int, ...] | None:
    return form.grid if len(form.sizes) == 1 else form.sizes or None


def _words(form: Form) -> str:
    if not form.sizes:
        return "a vector"
    if len(form.sizes) == 1:
        return f"{form.sizes[0]} tokens"
    return f"the {math.prod(form.sizes)} positions of a map {'×'.join(map(str, form.sizes))}"
