"""Attention written out: following a softmax to the matrix product that consumes it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["FOLLOWED", "PRODUCTS", "SOFTMAX", "EagerAttention", "Product", "Softmax"]

SOFTMAX = frozenset({"softmax", "special_softmax"})
"""Functions that produce attention weights."""

PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "bmm", "einsum"})
"""Functions that consume them."""

# Functions that keep the position of every entry.
_SAME_SHAPE = frozenset(
    {
        *("to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda"),
        *("contiguous", "clone", "detach", "alias", "view_as", "reshape_as", "requires_grad_"),
        *("masked_fill", "masked_fill_", "nan_to_num", "nan_to_num_"),
    }
)
_DROPOUT = frozenset({"dropout", "dropout_"})
_TRANSPOSE = frozenset({"transpose", "swapaxes", "swapdims", "transpose_"})
# Functions that may regroup the axes before the keys, but must keep the keys last.
_REGROUP = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"),
        *("expand", "expand_as", "__getitem__"),
    }
)
_TRANSPOSED_VIEWS = (torch.Tensor.mT, torch.Tensor.mH)

FOLLOWED = _SAME_SHAPE | _DROPOUT | _TRANSPOSE | _REGROUP | {"permute", "__get__", "where"}
"""Functions that may be applied to weights before their use."""


@dataclass(eq=False)
class Softmax:
    """An observed softmax, and whether it turned out to be attention."""

    layer: str
    shape: tuple[int, ...]
    over_last: bool
    matched: bool = False

    @property
    def resembles_attention(self) -> bool:
        """Whether it has a row of weights for each of several queries and heads."""
        if len(self.shape) < 3 or not self.over_last:
            return False
        return len(self.shape) > 3 or self.shape[-1] == self.shape[-2]

    def __str__(self) -> str:
        last = "" if self.over_last else ", not over the last axis"
        return f"{self.layer}: {self.shape}{last}"


@dataclass(frozen=True, eq=False)
class Product:
    """Weights at the matrix product that consumes them.

    Attributes
    ----------
    weights : torch.Tensor
        (*lead, queries, keys), before dropout.
    output : torch.Tensor
        (*lead, queries, d).
    value : torch.Tensor or None
        (…, keys, d), whose leading axes broadcast to those of the weights; None if an einsum has
        several axes in place of one.
    softmax : Softmax
        The softmax that computed the weights.
    """

    weights: Tensor
    output: Tensor
    value: Tensor | None
    softmax: Softmax


@dataclass(frozen=True, eq=False)
class _Followed:
    """A tensor of attention weights before its use, and its axis of keys."""

    alive: weakref.ref[Tensor]
    softmax: Softmax
    axis: int
    clean: Tensor | None  # the weights before dropout, if that changed them


class EagerAttention:
    """Follows softmaxes through moves of axes, changes of dtype and dropout."""

    def __init__(self) -> None:
        self.softmaxes: list[Softmax] = []
        self._followed: dict[int, _Followed] = {}

    def clear(self) -> None:
        """Forget the last forward."""
        self.softmaxes.clear()
        self._followed.clear()

    @property
    def idle(self) -> bool:
        """Whether no softmax is being followed."""
        return not self._followed

    def begin(
        self, layer: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Record a softmax."""
        if not isinstance(result, Tensor) or result.is_nested:
            return
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        last = isinstance(dim, int) and dim in (-1, result.ndim - 1)
        softmax = Softmax(layer, tuple(result.shape), last)
        self.softmaxes.append(softmax)
        if last and result.ndim >= 3:
            self._follow(result, softmax, result.ndim - 1, None)

    def step(
        self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Record any other function, which may move weights that are followed."""
        source = args[0] if args else kwargs.get("input")
        if name == "where":
            source = self._replaced(args, kwargs)
        known = self._known(source)
        if known is None or not isinstance(source, Tensor):
            return
        if not isinstance(result, Tensor) or result is source:
            return
        axis = _moved(known.axis, func, name, args, kwargs, source, result)
        if axis is None:
            return
        clean = known.clean
        if name in _DROPOUT:
            rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            training = args[2] if len(args) > 2 else kwargs.get("training", True)
            if rate and training and clean is None:
                clean = source
        elif clean is not None and name == "where":
            clean = func(*(clean if each is source else each for each in args), **kwargs)
        elif clean is not None:
            clean = func(clean, *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
        self._follow(result, known.softmax, axis, clean)

    def _replaced(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the weights in ``where(condition, weights, 0)``, whose other entries become 0."""
        if kwargs or len(args) != 3:
            return None
        values = [each for each in args if not _is_condition(each)]
        weights = [each for each in values if self._known(each) is not None]
        others = [each for each in values if all(each is not known for known in weights)]
        return weights[0] if len(weights) == 1 and len(others) == 1 and _is_zero(*others) else None

    def product(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> Product | None:
        """Record a matrix product; return its weights if it consumes them over their keys."""
        if kwargs and name != "einsum":
            args = [*args, *(kwargs[key] for key in ("input", "mat2", "other") if key in kwargs)]
        if not isinstance(result, Tensor):
            return None
        if name == "einsum":
            return self._einsum(args, result)
        if len(args) != 2:
            return None
        left, right = reversed(args) if name == "__rmatmul__" else args
        known, value = self._known(left), right
        if known is not None and known.axis == left.ndim - 1:
            weights, output = _clean(known, left), result
        else:  # (P Vᵀ)ᵀ = V Pᵀ
            known, value = self._known(right), left
            if known is None or known.axis != right.ndim - 2 or left.ndim < 2:
                return None
            weights, output = _clean(known, right).transpose(-1, -2), result.transpose(-1, -2)
            value = value.transpose(-1, -2)
        if known.softmax.matched or output.ndim < 2 or value.ndim < 2:
            return None
        weights = weights.expand(*output.shape[:-1], weights.shape[-1])
        return Product(weights, output, value, known.softmax)

    def _einsum(self, args: Sequence[Any], result: Tensor) -> Product | None:
        if len(args) == 2 and isinstance(args[1], list | tuple):
            args = [args[0], *args[1]]
        if len(args) != 3 or not isinstance(args[0], str):
            return None
        operands = args[1:]
        which = 0 if self._known(operands[0]) is not None else 1
        weights, value = operands[which], operands[1 - which]
        known = self._known(weights)
        if known is None or known.softmax.matched or not isinstance(value, Tensor):
            return None
        labels, out = _labels(args[0], operands, result)
        own, other = labels[which], labels[1 - which]
        key = own[known.axis]
        # The query axis is the one that the values lack. If there are several, they are queries and
        # heads of values that heads share, with queries first (b l h p, b p k).
        unshared = [label for label in own if label not in other and label in out]
        if key in out or key not in other or not unshared:
            return None
        lead = [label for label in own if label not in (key, unshared[0])]
        width = [label for label in out if label not in own]
        if any(label not in out for label in lead):
            return None  # it sums over heads
        order = [*lead, unshared[0]]
        p = _clean(known, weights).permute([own.index(label) for label in (*order, key)])
        o = result.permute([out.index(label) for label in (*order, *width)])
        o = o.flatten(len(order)) if width else o.unsqueeze(-1)
        shared = [label for label in lead if label in other]
        v = None
        if len(width) == 1 and set(other) == {*shared, key, *width}:
            v = value.permute([other.index(label) for label in (*shared, key, *width)])
            for axis, label in enumerate(lead):
                v = v if label in other else v.unsqueeze(axis)
        return Product(p.expand(*o.shape[:-1], -1), o, v, known.softmax)

    def _known(self, tensor: Any) -> _Followed | None:
        known = self._followed.get(id(tensor))
        return known if known is not None and known.alive() is tensor else None

    def _follow(self, tensor: Tensor, softmax: Softmax, axis: int, clean: Tensor | None) -> None:
        key = id(tensor)
        followed = self._followed

        def forget(dead: weakref.ref[Tensor]) -> None:
            if key in followed and followed[key].alive is dead:
                del followed[key]

        followed[key] = _Followed(weakref.ref(tensor, forget), softmax, axis, clean)


def _is_condition(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool


def _is_zero(value: Any) -> bool:
    return not (value.any() if isinstance(value, Tensor) else value)


def _clean(known: _Followed, tensor: Tensor) -> Tensor:
    return tensor if known.clean is None else known.clean


def _moved(
    axis: int,
    func: Any,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    source: Tensor,
    result: Tensor,
) -> int | None:
    """Return the axis of keys after a function; None if it cannot be followed."""
    n = source.ndim
    if name in _SAME_SHAPE or name in _DROPOUT or name == "where":
        return axis if result.shape == source.shape else None
    if name in _TRANSPOSE:
        dims = [*args[1:], *(kwargs[k] for k in ("dim0", "dim1", "axis0", "axis1") if k in kwargs)]
        a, b = (dim % n for dim in dims)
        return b if axis == a else a if axis == b else axis
    if name == "permute":
        dims = list(args[1:]) or [kwargs["dims"]]
        if isinstance(dims[0], list | tuple):
            dims = list(dims[0])
        return [dim % n for dim in dims].index(axis)
    if name == "__get__" and getattr(func, "__self__", None) in _TRANSPOSED_VIEWS:
        return {n - 1: n - 2, n - 2: n - 1}.get(axis, axis)
    if name == "__getitem__" and _cuts_columns(axis, args[1], source, result):
        return axis
    if name in _REGROUP:
        whole = axis == n - 1 and result.ndim and result.shape[-1] == source.shape[-1]
        return result.ndim - 1 if whole else None
    return None


def _cuts_columns(axis: int, index: Any, source: Tensor, result: Tensor) -> bool:
    """Whether an index cuts off the last columns of keys, and nothing else.

    Learned sinks are columns without values: they take part in the softmax and are cut off.
    """
    if axis != source.ndim - 1 or result.shape[:-1] != source.shape[:-1]:
        return False
    last = index[-1] if isinstance(index, tuple) else None
    if not isinstance(last, slice):
        return False
    start, stop, step = last.indices(source.shape[-1])
    return step == 1 and start == 0 and stop > 0


def _labels(
    equation: str, operands: Sequence[Tensor], result: Tensor
) -> tuple[list[list[str]], list[str]]:
    """Give every axis of an einsum a label; those of an ellipsis are numbered from the right."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        letters = inputs.replace(",", "").replace(".", "")
        output = ("..." if "." in inputs else "") + "".join(
            sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        )

    def spelled(term: str, ndim: int) -> list[str]:
        before, dots, after = term.partition("...")
        hidden = ndim - len(before) - len(after) if dots else 0
        return [*before, *(f"…{i}" for i in range(hidden, 0, -1)), *after]

    labelled = [spelled(term, x.ndim) for term, x in zip(terms, operands, strict=True)]
    return labelled, spelled(output, result.ndim)
