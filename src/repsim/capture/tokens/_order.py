"""Whether the tokens of a model are its patches, row by row: evidence from values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn

from repsim.capture._containers import tensors_in
from repsim.capture.layers._walk import unwrap
from repsim.capture.tokens._evidence import Declared

__all__ = ["Order", "PatchOrder"]

MOST_OTHERS = 1024
"""The most tokens beside the patches in which patches are looked for."""

MOST_PATCHES = 64
"""How many patches are looked for: they are spread over the map."""

MOST_MISSES = 4
"""After as many sequences without the patches, they have been mixed."""

BY_TOKEN = (nn.LayerNorm, nn.RMSNorm, nn.Linear)
"""Modules that change each token alone."""


@dataclass(frozen=True, slots=True)
class Order:
    """Where the patches lie among the tokens of a sequence.

    Attributes
    ----------
    before : int or None
        The number of tokens before the patches; None if these are not row by row.
    after : int
        The number of tokens after them.
    """

    before: int | None
    after: int = 0

    @property
    def problem(self) -> str:
        """Why only the caller can give these tokens a grid; empty if the patches come last."""
        if self.before is None:
            return "its patches are not in the order of rows; grid= says that they are"
        if self.after == 1:
            return "its last token follows the patches"
        return f"{self.after} of its tokens follow the patches" if self.after else ""

    def forbids(self, grid: tuple[int, ...] | None, n: int) -> bool:
        """Whether n tokens have no places, also with the caller's grid.

        A grid says in which order patches are, and not that other tokens follow them. One of all n
        tokens gives these places too.
        """
        if grid is None or self.before is None:
            return bool(self.problem) and grid is None
        return self.after > 0 and math.prod(grid) < n


class PatchOrder:
    """Finds the patches of an image among the tokens of a model, by their values.

    A model may put the patches in another order (Hiera puts windows one after the other) or other
    tokens behind them (GroupViT). Position embeddings are alike for all samples, so the difference
    of two samples has the same rows before and after them. The first forward shows where each row
    is. It follows the patches through modules that change each token alone. If no convolution makes
    patches, a class token behind them shows itself (Llama 4): it is alike for all samples, and the
    tokens before it are not. Nothing is found if there is only one sample.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._root = unwrap(model)
        self._map: Tensor | None = None  # (patches, channels), the difference of two samples
        self._changing: nn.Module | None = None  # it got the patches row by row
        self._has_maps = False
        self._misses = 0
        self._now: dict[int, Order] = {}
        self._known: dict[tuple[str, int], Order | None] = {}
        self._forwards = 0
        self._hooks = ExitStack()

    @cached_property
    def _declared(self) -> Declared:
        return Declared.by(self._root)  # looks at all modules, and few transforms ask for it

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the convolutions and the inputs of all modules in the first forward."""
        hooks = (self._saw_map, self._saw_tokens, self._saw_changed)
        saw_map, saw_tokens, saw_changed = map(_unseen, hooks)
        with self._hooks as stack:
            for module in self._root.modules():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks
                if isinstance(module, nn.Conv2d):
                    stack.callback(module.register_forward_hook(saw_map).remove)
                hook = module.register_forward_pre_hook(saw_tokens, with_kwargs=True)
                stack.callback(hook.remove)
                if isinstance(module, BY_TOKEN):
                    stack.callback(module.register_forward_hook(saw_changed).remove)
            yield

    def start(self) -> None:
        """Prepare for the next forward."""
        self._map = self._changing = None
        self._forwards += 1
        if self._forwards > 1:  # hooks of all modules would cost time in every forward
            self._hooks.close()

    def of(self, layer: str, n: int) -> Order | None:
        """Return where patches lie among the n tokens of a layer; None if unknown.

        The answer is that of the first forward, because a layer may be before the tokens are put in
        another order.
        """
        return self._known.setdefault((layer, n), self._found(n))

    def _found(self, n: int) -> Order | None:
        if n in self._now:
            return self._now[n]
        # Fewer tokens than those in another order are merged ones, which may be in any order.
        scattered = any(known > n for known, order in self._now.items() if order.before is None)
        return Order(None) if scattered else None

    def _saw_map(self, _module: nn.Module, _args: object, output: object) -> None:
        if self._forwards != 1 or not isinstance(output, Tensor) or output.ndim != 4:
            return
        self._has_maps = True
        if len(output) > 1 and output.shape[2:].numel() > 1 and output.is_floating_point():
            self._map = _difference(output).flatten(1).mT
            self._misses = 0

    def _saw_changed(self, module: nn.Module, _args: object, output: object) -> None:
        if module is self._changing and isinstance(output, Tensor):
            self._map = _difference(output)
            self._misses = 0
        self._changing = None

    def _saw_tokens(self, module: nn.Module, args: object, kwargs: object) -> None:
        if self._forwards != 1 or (self._map is None and not self._declared.has_cls):
            return
        x = next(tensors_in((args, kwargs)), None)
        if x is None or x.is_nested or x.ndim != 3 or len(x) < 2 or not x.is_floating_point():
            return
        n = int(x.shape[1])
        if self._map is None:
            if not self._has_maps and (after := _alike_at_end(x)) == self._declared.named:
                self._now.setdefault(n, Order(0, after))
            return
        patches, channels = self._map.shape
        if x.shape[2] != channels or not patches <= n <= patches + MOST_OTHERS:
            return
        if order := _order_of(self._map, _difference(x)):
            self._now[n] = order
            if order == Order(0) and isinstance(module, BY_TOKEN):
                self._changing = module
            return
        self._misses += 1
        if self._misses == MOST_MISSES:
            self._map = None


def _unseen(hook: Callable[..., None]) -> Callable[..., None]:
    """Return a hook whose operations skip function modes, because these take longer than they."""

    @wraps(hook)
    def run(*args: Any) -> None:
        with torch._C.DisableTorchFunction():
            hook(*args)

    return run


def _difference(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x[1].detach().float() - x[0].detach().float()


def _alike_at_end(x: Tensor) -> int:
    """Return how many of the last tokens are alike for all samples; 0 if the first one is too."""
    alike = (x == x[:1]).all(2).all(0).tolist()
    return 0 if all(alike) or alike[0] else alike[::-1].index(False)


def _order_of(patches: Tensor, tokens: Tensor) -> Order | None:
    """Return where rows lie among other rows, if nearly all are found once; None if they are not.

    Rows are found up to the rounding of half precision. Rows that are alike, such as those of an
    empty background, show nothing.
    """
    count = len(patches)
    picked = torch.linspace(0, count - 1, min(count, MOST_PATCHES), device="cpu").long()
    rows = patches[picked.to(patches.device)].to(tokens.device)
    nearest = torch.cdist(rows, tokens).topk(min(2, len(tokens)), largest=False)
    close = nearest.values[:, 0] <= 0.02 * rows.norm(dim=1)
    alone = nearest.values[:, 0] < 0.1 * nearest.values[:, -1]
    places = torch.where(close & alone, nearest.indices[:, 0], -1).tolist()
    shifts = [place - p for place, p in zip(places, picked.tolist(), strict=True) if place >= 0]
    if len(shifts) < max(3, len(places) // 2):
        return None
    if set(shifts) == {shifts[0]} and shifts[0] >= 0:
        return Order(shifts[0], len(tokens) - count - shifts[0])
    return Order(None)
