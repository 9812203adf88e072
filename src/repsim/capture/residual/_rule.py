"""The rule that decides from their origins whether two values are a skip and its branch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from repsim.capture.residual._ops import DIFFERENCES, PERMUTES

if TYPE_CHECKING:
    from repsim.capture.residual._join import Part

__all__ = [
    "CONSTANT",
    "Kind",
    "Value",
    "are_parallel",
    "axis_after",
    "looks_residual",
    "relation",
    "union",
]

Kind: TypeAlias = Literal["identity", "projection", "parallel"]


@dataclass(slots=True)
class Value:
    """The origin of the contents of a tensor; bit sets are integers.

    Attributes
    ----------
    bit : int
        Identifies the contents; views, casts and multiples by a number share it. 0 for a constant.
    ancestors : int
        The bits of all values that it was computed from, including its own.
    passed : int
        The marks of the weight matrices and nonlinearities on the way.
    channels : int or None
        The axis of the features, if the operations show it.
    skip : int
        For a residual sum, the bit of its skip.
    joined : bool
        Whether it is a stack of a skip and its branch.
    scaled : bool
        Whether it is a multiple of these contents.
    is_maximum : bool
        Whether it is a maximum of values.
    minus : int
        For a difference, the bit of what is subtracted.
    source : weak reference or None
        For a residual sum, the tensor of its skip.
    parts : tuple of Part
        For a sum of parallel branches, these.
    """

    bit: int = 0
    ancestors: int = 0
    passed: int = 0
    channels: int | None = None
    skip: int = 0
    joined: bool = False
    scaled: bool = False
    is_maximum: bool = False
    minus: int = 0
    source: Callable[[], Tensor | None] | None = None
    parts: tuple[Part, ...] = ()


CONSTANT = Value()  # neither an input nor computed from one


def relation(a: Value, b: Value, weights: int) -> tuple[Kind, Literal[0, 1]] | None:
    """Decide whether two summands are a skip and its branch.

    - a is an ancestor of b, and b passed a weight matrix that a did not pass: identity skip a,
      branch b;
    - a is a residual sum whose skip is such an ancestor of b: a parallel branch b;
    - after a common ancestor both passed different weight matrices; the one with fewer of them
      passed no additional nonlinearity, the other did: projection shortcut and branch.

    Anything else is not a residual connection. x + (q - x) is q; quantisers write it so, because
    the gradient then passes to x. Position embeddings and the tokens have no common ancestor.
    Rotary embeddings and gates tie. The sum of attention and MLP has a nonlinearity on both sides,
    and a low-rank adapter has none on either side.

    Parameters
    ----------
    a, b : Value
        The summands.
    weights : int
        Which marks in ``passed`` are weight matrices; the others are nonlinearities.

    Returns
    -------
    (kind, index), or None
        The index says which of the two is the skip.
    """
    if not a.ancestors & b.ancestors or _cancel(a, b) or _cancel(b, a):
        return None
    only_a, only_b = a.passed & ~b.passed, b.passed & ~a.passed
    weights_a, weights_b = only_a & weights, only_b & weights
    if weights_b and a.bit & b.ancestors:
        return "identity", 0
    if weights_a and b.bit & a.ancestors:
        return "identity", 1
    if weights_b and a.skip & b.ancestors:
        return "parallel", 0
    if weights_a and b.skip & a.ancestors:
        return "parallel", 1
    n_a, n_b = weights_a.bit_count(), weights_b.bit_count()
    if not n_a or not n_b or n_a == n_b:
        return None
    skip, branch = (only_a, only_b) if n_a < n_b else (only_b, only_a)
    # A shortcut is linear, unlike attention next to an MLP; a branch is nonlinear, unlike a
    # low-rank adapter.
    if skip & ~weights or not branch & ~weights:
        return None
    return ("projection", 0) if n_a < n_b else ("projection", 1)


def _cancel(a: Value, b: Value) -> bool:
    """Whether b is a difference that subtracts a."""
    return bool(a.bit & b.minus) and not a.scaled


def looks_residual(name: str, given: list[tuple[torch.Size, Value]], weights: int) -> bool:
    """Whether an operation other than an addition may join a skip and its branch.

    A difference may do so if it subtracts the branch. It does not if it subtracts the skip, or a
    maximum that keeps exponents finite (RWKV, xLSTM).
    """
    less = DIFFERENCES.get(name)
    if less is not None and less < len(given) and given[less][1].is_maximum:
        return False
    return any(
        shape == other_shape
        and (related := relation(value, other, weights)) is not None
        and related[0] == "identity"
        and (less is None or (i, j)[related[1]] != less)
        for i, (shape, value) in enumerate(given)
        for j, (other_shape, other) in enumerate(given[:i])
    )


def are_parallel(a: Value, b: Value, weights: int) -> bool:
    """Whether two summands are parallel branches, such as attention next to an MLP.

    After a common ancestor each passed weight matrices and nonlinearities that the other did not
    pass. A low-rank adapter passed none of its own nonlinearities.
    """
    only_a, only_b = a.passed & ~b.passed, b.passed & ~a.passed
    if not a.ancestors & b.ancestors:
        return False
    return all(only & weights and only & ~weights for only in (only_a, only_b))


def union(values: list[Value]) -> Value:
    """Merge the origins of several values; the bit is set later."""
    ancestors = passed = 0
    for value in values:
        ancestors |= value.ancestors
        passed |= value.passed
    return Value(0, ancestors, passed)


def axis_after(name: str, before: Tensor, axis: int | None, after: Tensor) -> int | None:
    """Track the feature axis through a change of shape."""
    if axis is None:
        return None
    size = before.shape[axis]
    if name in PERMUTES:  # always views: sizes and strides move together
        same = (size, before.stride(axis))
        found = [j for j in range(after.dim()) if (after.shape[j], after.stride(j)) == same]
        return found[0] if len(found) == 1 else None
    if after.shape == before.shape:
        return axis
    outer = before.shape[:axis].numel()
    for j in range(after.dim()):
        if after.shape[j] == size and after.shape[:j].numel() == outer:
            return j
    return None
