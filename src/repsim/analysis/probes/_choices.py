"""From the output of a layer to the vectors that a probe is trained on: CLS, means, each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError
from repsim.analysis.images._patches import declared_prefix, map_sizes
from repsim.capture import unwrap

__all__ = ["ChosenTokens", "TokenChoices", "Tokens", "prefix_of"]

Tokens: TypeAlias = str | int | Sequence[str | int]
"""What ``tokens=`` accepts."""

NAMED = ("cls", "mean", "mean_without_cls")

CLS_NAMES = ("cls_token", "class_token", "class_embedding")
"""How timm, torchvision and transformers call the parameter."""

OTHER_NAMES = ("dist_token", "distillation_token", "reg_token", "register_tokens")


@dataclass(frozen=True)
class ChosenTokens:
    """T vectors of p features for each of B samples, with the names of the choices."""

    names: tuple[str, ...]
    values: Tensor  # (T, B, p), float32 or float64


class TokenChoices:
    """A recorder's transform that keeps the chosen tokens of an output, stacked.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    model : torch.nn.Module
        Asked for its prefix tokens where ``prefix`` is not given.
    tokens : str, int, or a sequence of these
        ``"cls"``, ``"mean"``, ``"mean_without_cls"``, positions, ``"each"`` for all of them.
    prefix : int, optional
        How many tokens precede the spatial ones, the first of them CLS.
    """

    wants_layer = True

    def __init__(
        self, operation: str, model: nn.Module, tokens: Tokens, prefix: int | None
    ) -> None:
        self._operation = operation
        self.named, self.each = _resolved(operation, tokens)
        self._declared = prefix
        if prefix is None:
            self._prefix, self._has_cls = prefix_of(model)
        else:
            self._prefix, self._has_cls = prefix, prefix > 0
        self._maps: list[tuple[int, int]] = []
        # Those that keep channels last have one; without, a map in doubt is channels first.
        self._mixed = any(isinstance(module, nn.LayerNorm) for module in unwrap(model).modules())
        self.unknown: dict[str, tuple[int, ...]] = {}
        """Layers in which the prefix could not be told, with the shape of their output."""

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Follow the size of the model's maps: they tell a CLS token from a patch."""
        with map_sizes(unwrap(model)) as self._maps:
            yield

    def start(self) -> None:
        """Get ready for the next forward."""
        self._maps.clear()

    def __call__(self, tensor: Tensor, layer: str, call: int) -> ChosenTokens:
        """Return the chosen tokens of one output; those that it lacks are left out."""
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
            # (B, N, D) either way: the positions of a map are its tokens.
            sequence = tensor if tensor.ndim == 3 else self._of_map(tensor, layer)
            known = 0 if tensor.ndim == 4 else self._prefix_in(tensor, layer)
            for name in self.named:
                if (vector := self._vector(sequence, name, known, wide)) is not None:
                    chosen[name] = vector
        parts = [torch.stack(list(chosen.values()))] if chosen else []
        names = list(chosen)
        if self.each and tensor.ndim > 2:
            parts.append(sequence.transpose(0, 1).to(wide, copy=not parts))
            names += [str(i) for i in range(sequence.shape[1])]
        if not parts:
            return ChosenTokens((), tensor.new_zeros((0, tensor.shape[0], 1), dtype=wide))
        return ChosenTokens(tuple(names), parts[0] if len(parts) == 1 else torch.cat(parts))

    def _vector(
        self, sequence: Tensor, name: str, prefix: int | None, wide: torch.dtype
    ) -> Tensor | None:
        if name == "mean":
            return sequence.mean(1, dtype=wide)
        if name == "mean_without_cls":
            return None if prefix is None else sequence[:, prefix:].mean(1, dtype=wide)
        if name == "cls":
            return sequence[:, 0].to(wide) if prefix and self._has_cls else None
        index = int(name)
        return sequence[:, index].to(wide) if index < sequence.shape[1] else None

    def _of_map(self, tensor: Tensor, layer: str) -> Tensor:
        """Return a map as (B, N, D); where its channels are shows from those of convolutions."""
        first, last = (self._fits(*tensor.shape[1 + at : 3 + at]) for at in (1, 0))
        if first == last and self._mixed:
            raise CaptureError(
                f"{self._operation}: layer {layer!r} returned {tuple(tensor.shape)}.\n"
                "  Which of its axes are positions does not show from the model's convolutions.\n"
                "  Leave the layer out, or make (B, N, D) of it by select=: x.flatten(1, 2) if its "
                "channels are last,\n  x.flatten(2).transpose(1, 2) if they are first."
            )
        return tensor.flatten(1, 2) if last and not first else tensor.flatten(2).transpose(1, 2)

    def _fits(self, rows: int, columns: int) -> bool:
        """Whether a map of this size is one of a convolution, or that pooled by an integer."""
        return any(
            h % rows == 0 and w % columns == 0 and h // rows == w // columns for h, w in self._maps
        )

    def _prefix_in(self, tensor: Tensor, layer: str) -> int | None:
        """How many tokens of (B, N, D) are no patches; None where that cannot be told.

        A model may have a CLS token and layers that do not see it: its patch embedding, blocks
        before it is added (CaiT), blocks that see nothing else.
        """
        n, prefix = tensor.shape[1], self._prefix
        if prefix == 0:
            return 0
        if self._declared is not None or not self._maps:
            known = prefix if n > prefix else None
        else:
            patches = {h * w for h, w in self._maps}
            with_prefix, without = n - prefix in patches, n in patches
            known = None if with_prefix == without else prefix if with_prefix else 0
        if known is None and ({"cls", "mean_without_cls"} & set(self.named)):
            self.unknown.setdefault(layer, tuple(tensor.shape))
        return known


def prefix_of(model: nn.Module) -> tuple[int, bool]:
    """Return how many tokens a model puts before its patches, and whether the first is CLS.

    timm's ``num_prefix_tokens`` where there is one; otherwise the parameters by their names in
    timm, torchvision and transformers. A model without any has no prefix.
    """
    count: int | None = None
    others = cls = 0
    for module in unwrap(model).modules():
        if count is None:
            count = declared_prefix(module)
        cls = max(cls, *(_length(module, name) for name in CLS_NAMES))
        others = max(others, sum(_length(module, name) for name in OTHER_NAMES))
    return (others + cls if count is None else count), cls > 0


def _length(module: nn.Module, name: str) -> int:
    value: Any = module._parameters.get(name)
    if value is None:
        return 0
    return value.shape[-2] if value.ndim > 1 else 1


def _resolved(operation: str, tokens: Tokens) -> tuple[tuple[str, ...], bool]:
    """Return the named and numbered choices, each once and in order, and whether "each" is one."""
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
    # "each" has all the positions.
    named = [n for n in known if n != "each" and not (each and n.isdecimal())]
    return tuple(dict.fromkeys(str(int(n)) if n.isdecimal() else n for n in named)), each
