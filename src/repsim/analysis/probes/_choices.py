"""Vectors for probes from the output of a layer: CLS, means, each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError
from repsim.capture import unwrap
from repsim.capture.tokens import (
    Convolution,
    Declared,
    ModelInput,
    TokenOptions,
    declared_prefix,
    grid_of_map,
    modules_around,
    prefix_of_sequence,
    watching,
)

__all__ = ["ChosenTokens", "TokenChoices", "Tokens"]

Tokens: TypeAlias = str | int | Sequence[str | int]
"""Types of ``tokens=``."""

NAMED = ("cls", "mean", "mean_without_cls")


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
        ``"cls"``, ``"mean"``, ``"mean_without_cls"``, positions, ``"each"`` for all of them.
    """

    wants_layer = True

    def __init__(self, options: TokenOptions, model: nn.Module, tokens: Tokens) -> None:
        self._operation = options.operation
        self._options = options
        self._root = unwrap(model)
        self._declared = Declared.by(model)
        self.named, self.each = _resolved(options.operation, tokens)
        self._convolutions: list[Convolution] = []
        self._input = ModelInput()
        self.unknown: dict[str, tuple[int, ...]] = {}
        """Layers with unknown prefix, with the shape of their output."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the input and the maps of the model, which tell a CLS token from a patch."""
        handle = self._root.register_forward_pre_hook(self._began, with_kwargs=True)
        try:
            with watching(self._root) as self._convolutions:
                yield
        finally:
            handle.remove()

    def _began(self, _module: nn.Module, args: object, kwargs: object) -> None:
        self._input = ModelInput.of((args, kwargs))

    def start(self) -> None:
        """Prepare for the next forward."""
        self._convolutions.clear()
        self._input = ModelInput()

    def __call__(self, tensor: Tensor, layer: str, call: int) -> ChosenTokens:
        """Return the chosen tokens of one output; tokens that it lacks are left out."""
        if not 2 <= tensor.ndim <= 4:
            raise CaptureError(
                f"{self._operation}: layer {layer!r} returned {tuple(tensor.shape)}.\n"
                "  A probe takes vectors (B, D), tokens (B, N, D) or maps (B, C, H, W).\n"
                "  Leave the layer out, or pass select= to make one of these of its output."
            )
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        chosen: dict[str, Tensor] = {}
        if tensor.ndim == 2:
            if "mean" in self.named:
                chosen["mean"] = tensor.to(wide)
        else:
            # (B, N, D) in both cases, because the positions of a map are its tokens.
            sequence = tensor if tensor.ndim == 3 else self._of_map(tensor, layer)
            given = self._options.prefix_of(f"{layer}:{call}", layer)
            known = 0 if tensor.ndim == 4 else self._prefix_in(tensor, layer, given)
            has_cls = bool(known) and (given is not None or self._declared.has_cls)
            for name in self.named:
                if (vector := _vector(sequence, name, known, has_cls, wide)) is not None:
                    chosen[name] = vector
        parts = [torch.stack(list(chosen.values()))] if chosen else []
        names = list(chosen)
        if self.each and tensor.ndim > 2:
            parts.append(sequence.transpose(0, 1).to(wide, copy=not parts))
            names += [str(i) for i in range(sequence.shape[1])]
        if not parts:
            return ChosenTokens((), tensor.new_zeros((0, tensor.shape[0], 1), dtype=wide))
        return ChosenTokens(tuple(names), parts[0] if len(parts) == 1 else torch.cat(parts))

    def _of_map(self, tensor: Tensor, layer: str) -> Tensor:
        """Return a map as (B, N, D); the maps of convolutions show which axis holds channels."""
        found = grid_of_map(
            (int(tensor.shape[1]), int(tensor.shape[2]), int(tensor.shape[3])),
            self._input.image,
            self._maps(),
            mixed=self._declared.channels_last,
        )
        if found is None:
            raise CaptureError(
                f"{self._operation}: layer {layer!r} returned {tuple(tensor.shape)}.\n"
                "  Which of its axes are positions does not show from the image or the maps of the "
                "model's convolutions.\n"
                "  Leave the layer out, or make (B, N, D) of it by select=: x.flatten(1, 2) if its "
                "channels are last,\n  x.flatten(2).transpose(1, 2) if they are first."
            )
        _, first = found
        return tensor.flatten(2).transpose(1, 2) if first else tensor.flatten(1, 2)

    def _maps(self) -> list[tuple[int, int]]:
        return [each.result for each in self._convolutions]

    def _prefix_in(self, tensor: Tensor, layer: str, given: int | None) -> int | None:
        """The number of tokens of (B, N, D) that are not patches; None if unknown."""
        known = prefix_of_sequence(
            int(tensor.shape[1]),
            self._maps(),
            prefix=given,
            declared=self._declared.named,
            around=declared_prefix(modules_around(self._root, layer)),
        )
        if known is None and ({"cls", "mean_without_cls"} & set(self.named)):
            self.unknown.setdefault(layer, tuple(tensor.shape))
        return known


def _vector(
    sequence: Tensor, name: str, prefix: int | None, has_cls: bool, wide: torch.dtype
) -> Tensor | None:
    """Return one choice of a sequence (B, N, D); None if it has no such token."""
    if name == "mean":
        return sequence.mean(1, dtype=wide)
    if name == "mean_without_cls":
        spatial = prefix is not None and prefix < sequence.shape[1]
        return sequence[:, prefix:].mean(1, dtype=wide) if spatial else None
    if name == "cls":
        return sequence[:, 0].to(wide) if has_cls else None
    index = int(name)
    return sequence[:, index].to(wide) if index < sequence.shape[1] else None


def _resolved(operation: str, tokens: Tokens) -> tuple[tuple[str, ...], bool]:
    """Return the named and numbered choices, once and in order, and whether "each" is one."""
    wanted = [tokens] if isinstance(tokens, str | int) else list(tokens)
    names = [str(token) for token in wanted if not isinstance(token, bool)]
    known = [name for name in names if name in (*NAMED, "each") or name.isdecimal()]
    if not wanted or len(known) < len(wanted):
        raise InputError(
            f"{operation}: tokens must be names or positions of tokens.\n"
            f"  one or more of: {', '.join(map(repr, NAMED))}, 'each', 0, 1, 2, ...\n"
            f"  got {tokens!r}"
        )
    each = "each" in known
    # "each" includes all positions.
    named = [n for n in known if n != "each" and not (each and n.isdecimal())]
    return tuple(dict.fromkeys(str(int(n)) if n.isdecimal() else n for n in named)), each
