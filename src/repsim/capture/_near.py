"""Small tensors of an accelerator whose values are known in main memory, so nothing waits for them.

Masks decide which rows are taken, and indexing by a mask on an accelerator waits for all that runs
there. But most masks came from main memory a moment ago.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["carried", "real_places", "remember", "values_of"]


class _Near(NamedTuple):
    """A tensor in main memory, and the versions of both tensors when they were equal."""

    tensor: Tensor
    versions: tuple[int, int]


_KNOWN: Any = WeakTensorKeyDictionary()


def carried(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, and remember the values of a mask or of tokens.

    A copy to an accelerator does not wait. One to main memory does, because a model there would
    read the values before they have arrived.

    Parameters
    ----------
    x : torch.Tensor
        Any tensor. Whole numbers and truth values of at most two axes are remembered.
    device : torch.device
        Where to.

    Returns
    -------
    torch.Tensor
        The copy; the tensor itself if it is there.
    """
    out = x.to(device, non_blocking=device.type != "cpu")
    if out is not x and out.ndim <= 2 and not (out.is_floating_point() or out.is_complex()):
        near = x if x.device.type == "cpu" else _known(x)
        if near is not None:
            remember(out, near)
    return out


def remember(far: Tensor, near: Tensor) -> None:
    """Remember that two tensors have the same values, until one of them is written to."""
    if far.device.type != "cpu":
        _KNOWN[far] = _Near(near, (_version(far), _version(near)))


def values_of(x: Tensor) -> Tensor:
    """Return the values of a tensor in main memory; wait for its device only if they are unknown.

    Parameters
    ----------
    x : torch.Tensor
        A tensor on any device.

    Returns
    -------
    torch.Tensor
        On the CPU: the tensor itself, the tensor from which it was copied, or a copy.
    """
    if x.device.type == "cpu":
        return x
    near = _known(x)
    if near is None:
        near = x.detach().cpu()
        remember(x, near)
    return near


def real_places(mask: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the places of the true entries of a mask, row by row.

    Parameters
    ----------
    mask : torch.Tensor, shape (B, N), bool
        On any device.
    device : torch.device
        Where the places are used.

    Returns
    -------
    rows : torch.Tensor
        int64, on this device.
    columns : torch.Tensor
        int64, on this device.
    """
    rows, columns = (
        torch.from_numpy(each).to(device, non_blocking=True)
        for each in np.nonzero(values_of(mask).numpy())
    )
    return rows, columns


def _known(x: Tensor) -> Tensor | None:
    near: _Near | None = _KNOWN.get(x)
    if near is None or near.versions != (_version(x), _version(near.tensor)):
        return None
    return near.tensor


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version
