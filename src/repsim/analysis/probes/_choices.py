"""Vectors for probes from the output of a layer: CLS, means, each token, over real tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import InputError
from repsim._options import got
from repsim.arrays import uploaded
from repsim.capture import Masks, TextPositions, UnusableOutput, mean_of, unwrap, values_of
from repsim.capture.tokens import (
    Convolution,
    Declared,
    ModelInput,
    PatchOrder,
    PositionAxes,
    Queries,
    TokenOptions,
    declared_prefix,
    grid_of_map,
    maps_of_image,
    modules_around,
    prefix_of_sequence,
    watching,
)

__all__ = ["ChosenTokens", "TokenChoices", "Tokens"]

Tokens: TypeAlias = str | int | Sequence[str | int]
"""Types of ``tokens=``."""

NAMED = ("cls", "first", "last", "mean", "mean_without_cls")

ALL = "all"
"""The choice of every token as a sample with its own label."""


@dataclass(frozen=True)
class ChosenTokens:
    """T vectors of p features for each of B samples, with the names of the choices."""

    names: tuple[str, ...]
    values: Tensor  # (T, B, p), float32 or float64


class TokenChoices:
    """A transform for the recorder that stacks the chosen tokens of an output.

    Parameters
    ----------
    options : TokenOptions
        The caller's options about prefixes: the number of tokens before the spatial ones, the first
        of them CLS.
    model : torch.nn.Module
        The model.
    tokens : str, int, or a sequence of these
        ``"cls"``, ``"first"``, ``"last"``, ``"mean"``, ``"mean_without_cls"``, positions,
        ``"each"`` for all of them; or ``"all"``: every token is a sample.
    masks : Masks
        Which tokens are real; others are never chosen.
    """

    wants_layer = True

    def __init__(
        self, options: TokenOptions, model: nn.Module, tokens: Tokens, masks: Masks
    ) -> None:
        self._operation = options.operation
        self._options = options
        self._root = unwrap(model)
        self._declared = Declared.by(model)
        self.named, self.each = _resolved(options.operation, tokens)
        self._axes = PositionAxes(model)
        self._texts = TextPositions(options.operation, masks, self._axes)
        self.are_samples = self.named == (ALL,)
        self.masks = masks
        self._labelled: np.ndarray[Any, np.dtype[np.bool_]] | None = None
        self._convolutions: list[Convolution] = []
        self._input, self._queries = ModelInput(), Queries(model)
        self._order = PatchOrder(model)
        self.unknown: dict[str, tuple[int, ...]] = {}
        """Layers with unknown prefix, with the shape of their output."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the input and the maps of the model, which tell a CLS token from a patch."""
        handle = self._root.register_forward_pre_hook(self._began, with_kwargs=True)
        try:
            with (
                watching(self._root) as self._convolutions,
                self._queries.watching(),
                self._order.watching(),
            ):
                yield
        finally:
            handle.remove()

    def _began(self, _module: nn.Module, args: object, kwargs: object) -> None:
        self._input = ModelInput.of((args, kwargs))
        self._axes.start((args, kwargs))

    def start(self, labelled: np.ndarray[Any, np.dtype[np.bool_]] | None = None) -> None:
        """Prepare for the next forward; `labelled` (B, N) says which tokens are samples."""
        self._labelled = labelled
        self._convolutions.clear()
        self._queries.clear()
        self._order.start()
        self._input = ModelInput()

    def __call__(self, tensor: Tensor, layer: str, call: int) -> ChosenTokens:
        """Return the chosen tokens of one output; tokens that it lacks are left out."""
        if not 2 <= tensor.ndim <= 5:
            raise UnusableOutput(
                f"{self._operation}: layer {layer!r} returned {tuple(tensor.shape)}.\n"
                "  A probe takes vectors (B, D), tokens (B, N, D) or maps (B, C, H, W), "
                "(B, C, T, H, W).\n"
                "  Leave the layer out, or pass select= to make one of these of its output.",
                brief=f"{tuple(tensor.shape)}: a probe takes vectors, tokens or maps",
            )
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        if self._labelled is not None:
            return self._samples(tensor, layer, call, self._labelled, wide)
        chosen: dict[str, Tensor] = {}
        if tensor.ndim == 2:
            if "mean" in self.named:
                chosen["mean"] = tensor.to(wide)
        else:
            # (B, N, D) in both cases, because the positions of a map are its tokens.
            sequence = tensor if tensor.ndim == 3 else self._of_map(tensor, layer, call)
            given = self._options.prefix_of(f"{layer}:{call}", layer)
            known = 0 if tensor.ndim > 3 else self._prefix_in(tensor, layer, given)
            has_cls = bool(known) and (given is not None or self._declared.has_cls)
            mask = self._mask(sequence, layer, call)
            for name in self.named:
                if name == "cls" and not has_cls:
                    continue
                if (vector := _vector(sequence, name, known, mask, wide)) is not None:
                    chosen[name] = vector
        parts = [torch.stack(list(chosen.values()))] if chosen else []
        names = list(chosen)
        if self.each and tensor.ndim > 2:
            parts.append(sequence.transpose(0, 1).to(wide, copy=not parts))
            names += [str(i) for i in range(sequence.shape[1])]
        if not parts:
            return ChosenTokens((), tensor.new_zeros((0, tensor.shape[0], 1), dtype=wide))
        return ChosenTokens(tuple(names), parts[0] if len(parts) == 1 else torch.cat(parts))

    def _samples(
        self,
        tensor: Tensor,
        layer: str,
        call: int,
        labelled: np.ndarray[Any, np.dtype[np.bool_]],
        wide: torch.dtype,
    ) -> ChosenTokens:
        """Return every labelled token as a sample of one choice."""
        sequence = self._of_map(tensor, layer, call) if tensor.ndim > 3 else tensor
        if sequence.ndim != 3 or tuple(sequence.shape[:2]) != labelled.shape:
            shape = tuple(tensor.shape)
            raise UnusableOutput(
                f"{self._operation}: the labels of tokens do not fit layer {layer!r}.\n"
                f"  it returned: {shape}    labels: {labelled.shape}\n"
                "  Choose layers (B, N, D) whose N is that of the labels.",
                brief=f"{shape}: its tokens are not those of the labels {labelled.shape}",
            )
        rows, columns = (uploaded(places, tensor) for places in np.nonzero(labelled))
        return ChosenTokens((ALL,), sequence[rows, columns][None].to(wide))

    def _mask(self, sequence: Tensor, layer: str, call: int) -> Tensor | None:
        """Return the mask of (B, N, D); None if all its tokens are real."""
        mask = self.masks.aligned(layer, sequence, "A probe", call)
        if mask is None or not self.masks.n_padding(layer, tuple(sequence.shape), call):
            return None
        if self.each:
            raise InputError(
                f'{self._operation}: tokens="each" needs samples without padding.\n'
                f"  layer {layer!r}: {tuple(sequence.shape)}, and some tokens are padding\n"
                '  Take tokens by number, or bring a label for every token and take tokens="all".'
            )
        return mask

    def _of_map(self, tensor: Tensor, layer: str, call: int) -> Tensor:
        """Return a map as (B, N, D); the maps of convolutions show which axis holds channels.

        Of a text, all axes beside its positions are features: streams, heads, and their widths.
        """
        first: bool | None = None
        if (found := self._texts.found(tensor, layer, call)) is not None:
            return found.flatten(2)
        if tensor.ndim == 5 or self._input.image is None:
            first = self._axes.features_first(layer, tuple(tensor.shape), tensor.stride())
        has_image = self._input.image is not None
        if first is None and tensor.ndim == 4 and (has_image or not self._input.lengths):
            size = grid_of_map(
                (int(tensor.shape[1]), int(tensor.shape[2]), int(tensor.shape[3])),
                self._input.image,
                self._maps(),
                mixed=self._declared.channels_last,
            )
            first = None if size is None else size[1]
        if first is None:
            raise UnusableOutput(
                f"{self._operation}: layer {layer!r} returned {tuple(tensor.shape)}.\n"
                "  Neither the image nor the maps of the model's convolutions show which of its "
                "axes are positions.\n"
                "  Leave the layer out, or make (B, N, D) of it by select=: x.flatten(1, -2) if "
                "its channels are last,\n  x.flatten(2).transpose(1, 2) if they are first.",
                brief=f"{tuple(tensor.shape)}: which of its axes are positions is unknown",
            )
        return tensor.flatten(2).transpose(1, 2) if first else tensor.flatten(1, -2)

    def _maps(self) -> list[tuple[int, int]]:
        return maps_of_image(self._convolutions, self._input.image)

    def _prefix_in(self, tensor: Tensor, layer: str, given: int | None) -> int | None:
        """The number of tokens of (B, N, D) that are not patches; None if unknown."""
        n = int(tensor.shape[1])
        is_text = n in self._input.lengths
        order = self._order.of(layer, n)
        # The first tokens are then no prefix: they are queries, or patches before other tokens.
        none = self._queries.hold(layer, n, self._input) or (order is not None and order.after > 0)
        known = None
        if given is not None or is_text or not none:
            known = prefix_of_sequence(
                n,
                self._maps(),
                prefix=given,
                declared=self._declared.named,
                around=declared_prefix(modules_around(self._root, layer)),
            )
        if known is None and ({"cls", "mean_without_cls"} & set(self.named)):
            self.unknown.setdefault(layer, tuple(tensor.shape))
        return known


def _vector(
    sequence: Tensor, name: str, prefix: int | None, mask: Tensor | None, wide: torch.dtype
) -> Tensor | None:
    """Return one choice of a sequence (B, N, D); None if a sample has no such token."""
    if name in ("mean", "mean_without_cls"):
        skipped = 0 if name == "mean" else prefix
        return None if skipped is None else _mean(sequence, skipped, mask)
    index = {"cls": 0, "first": 0, "last": -1}[name] if name in NAMED else int(name)
    if mask is None:
        return sequence[:, index].to(wide) if index < sequence.shape[1] else None
    if index >= int(values_of(mask).sum(1).min()):
        return None
    counts = mask.sum(1)
    wanted = counts - 1 if index < 0 else torch.full_like(counts, index)
    at = (mask & (mask.cumsum(1) - 1 == wanted[:, None])).int().argmax(1)
    return sequence[torch.arange(len(sequence), device=sequence.device), at].to(wide)


def _mean(sequence: Tensor, skipped: int, mask: Tensor | None) -> Tensor | None:
    """Mean over the real tokens after the first ones; None if a sample has no others."""
    if mask is None:
        return mean_of(sequence[:, skipped:], None)[0] if skipped < sequence.shape[1] else None
    if int(values_of(mask).sum(1).min()) <= skipped:
        return None
    return mean_of(sequence, mask & (mask.cumsum(1) > skipped))[0]


def _resolved(operation: str, tokens: Tokens) -> tuple[tuple[str, ...], bool]:
    """Return the named and numbered choices, once and in order, and whether "each" is one."""
    wanted: list[Any] = list(tokens) if isinstance(tokens, list | tuple) else [tokens]
    names = [str(token) for token in wanted if not isinstance(token, bool)]
    if names == [ALL]:
        return (ALL,), False
    known = [name for name in names if name in (*NAMED, "each") or name.isdecimal()]
    if not wanted or len(known) < len(wanted):
        raise InputError(
            f"{operation}: tokens must be names or positions of tokens.\n"
            f"  one or more of: {', '.join(map(repr, NAMED))}, 'each', 0, 1, 2, ...;\n"
            f"  or 'all' alone\n"
            f"  got {got(tokens)}"
        )
    each = "each" in known
    # "each" includes all positions.
    named = [n for n in known if n != "each" and not (each and n.isdecimal())]
    return tuple(dict.fromkeys(str(int(n)) if n.isdecimal() else n for n in named)), each
