"""Gram matrices computed inside the hooks, so no activation is kept."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from repsim.analysis.maps._gram_buffer import GramBuffer
from repsim.analysis.run._reduced import reduced
from repsim.analysis.run._token_samples import TokenSamples
from repsim.capture import BoundTransform
from repsim.kernels import KERNELS
from repsim.streaming import MIN_BATCH, PilotKernels

__all__ = ["LayerGrams"]


class LayerGrams:
    """A transform for the recorder: the (n, n) Gram of an output of any size.

    Layers that return one tensor share one Gram: a container and its last child, dropout and
    identities in evaluation, and a flattening or transposition without a copy. A tensor is
    recognised by its memory, as long as that is alive, and by its version, which in-place
    operations increase.

    The kernels of the library do not depend on the order of features, so features are read in the
    order of memory, and a map in channels-last format is not copied.

    Parameters
    ----------
    kernels : PilotKernels
        The kernel of each layer.
    transform : BoundTransform
        Applied to the output before it is flattened: tokens to one token, maps to their mean.
    tokens : TokenSamples, optional
        Which tokens are samples; by default the Gram is that of whole outputs.
    operation : str
        The first word of error messages.
    """

    wants_layer = True

    def __init__(
        self,
        kernels: PilotKernels,
        transform: BoundTransform,
        *,
        tokens: TokenSamples | None = None,
        operation: str = "compare",
    ) -> None:
        self._operation = operation
        self._kernels = kernels
        self.transform = transform
        self._tokens = tokens
        self._reduce = None if transform.function is None and tokens is None else transform
        self._sharing = not transform.depends_on_layer
        self._any_order = type(kernels.kernel) in KERNELS.values()
        self._seen: dict[tuple[Any, ...], tuple[weakref.ref[Tensor], int, Tensor]] = {}
        self._buffer = GramBuffer()

    def forget(self) -> None:
        """Forget the tensors of the last forward and its Grams."""
        self._seen.clear()
        self._buffer.forget()

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Tensor:
        """Return the Gram (n, n) of an output (n, ...)."""
        if self._tokens is not None and self._tokens.surveying:
            return self._tokens.rows(self.transform, tensor, layer, call)
        inner = tensor if self._reduce or not self._any_order else _as_in_memory(tensor)
        if not self._sharing or not inner.is_contiguous() or not _knows_versions(tensor):
            return self._gram(tensor, layer, call)
        # Without a reducer, a map and its flattening have the same Gram; with one they may differ.
        shape = tensor.shape if self._reduce else (tensor.shape[0], tensor.numel())
        key = (tensor.data_ptr(), tuple(shape), tensor.dtype, tensor.device)
        known = self._seen.get(key)
        if known is not None:
            alive, version, gram = known
            if alive() is not None and version == tensor._version:
                return gram
        gram = self._gram(tensor, layer, call)
        self._seen[key] = (weakref.ref(tensor), tensor._version, gram)
        return gram

    def _gram(self, tensor: Tensor, layer: str, call: int) -> Tensor:
        if self._tokens is not None:
            values = self._tokens.rows(self.transform, tensor, layer, call)
            self._tokens.warn_of_many(values.shape[0])
        else:
            if self._reduce is None:
                self.transform.note_padding(layer, tensor, call)
            values = reduced(self._operation, self._reduce, tensor, layer, call)
        if values.shape[0] < MIN_BATCH:
            # The batch will be skipped and reported, so it must not fix the bandwidth.
            return values.new_zeros((values.shape[0], values.shape[0]))
        if self._any_order:
            values = _as_in_memory(values)
        flat = values.reshape(values.shape[0], -1)
        gram: Tensor = self._kernels.gram(f"{layer}:{call}", flat)  # type: ignore[assignment]
        # A user's kernel may return an object that is not a tensor.
        return self._buffer.keep(gram) if isinstance(gram, Tensor) else gram


def _as_in_memory(tensor: Tensor) -> Tensor:
    """Return a view with the axes after the first in the order of memory, outermost first."""
    if tensor.is_contiguous():
        return tensor
    strides = tensor.stride()
    return tensor.permute(0, *sorted(range(1, tensor.dim()), key=lambda axis: -strides[axis]))


def _knows_versions(tensor: Tensor) -> bool:
    """Whether the same memory and version mean the same values."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_inference()  # inference tensors have no version
        and not tensor.requires_grad  # without a graph nothing else distinguishes two tensors
        and tensor.numel() > 0
    )
