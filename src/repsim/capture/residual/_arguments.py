"""The arguments of torch functions, as a ``TorchFunctionMode`` gets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from repsim.capture.residual._ops import INPLACE_ADDS

__all__ = ["attribute_of", "placed", "summands", "tensors_among", "trains"]


def attribute_of(getter: Any) -> str:
    """Return the name of the attribute that a ``__get__`` reads."""
    return str(getattr(getattr(getter, "__self__", None), "__name__", ""))


def tensors_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors among a function's arguments, including those in the list of a stack."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (item for item in value if isinstance(item, Tensor))


def summands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Return the two tensors of an addition; None if one of them is a number."""
    both = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)]
    if len(both) != 2 or not all(isinstance(each, Tensor) for each in both):
        return None
    return both[0], both[1]


def placed(branch: Tensor, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the branch in place of the sum: in the same tensor and with the same dtype."""
    pair = summands(args, kwargs)
    assert pair is not None
    target = pair[0] if name in INPLACE_ADDS else kwargs.get("out")
    if target is not None:
        return target if branch is target else target.copy_(branch)
    return branch.to(torch.result_type(*pair))


def trains(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of dropout, (input, p, training), may change its input."""
    named = kwargs.get("training", kwargs.get("train"))
    return bool(args[2] if named is None and len(args) > 2 else named in (None, True))
