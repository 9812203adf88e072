"""The batch axis of a layer's output, checked against the input of the model.

Comparing tokens as if they were samples would silently give a wrong answer. Axis 0 of an output
must therefore have the size of the input's axis 0. In a sequence-first model, axis 0 of both is the
sequence, so the inputs of modules that declare ``batch_first=False`` are checked too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import Tensor

from repsim._errors import CaptureError, InputError, LayerNotFoundError
from repsim.capture._output import UnusableOutput, tensors_in

__all__ = ["BatchAxis", "BatchDim"]

BatchDim: TypeAlias = int | Mapping[str, int] | None
"""Types of ``batch_dim=``: one axis for all layers, or an axis by name or glob."""


class BatchAxis:
    """The batch axes in one forward.

    Parameters
    ----------
    batch_dim : int, mapping of str to int, or None
        The batch axis that the caller declares; without it, axis 0 is used and checked.
    layers : iterable of str
        The names of the chosen layers.

    Raises
    ------
    InputError
        `batch_dim` is neither.
    LayerNotFoundError
        A name or glob of the mapping matches none of the chosen layers.
    """

    def __init__(self, batch_dim: BatchDim, layers: Iterable[str]) -> None:
        names = tuple(layers)
        self._declared = _declared(batch_dim, names)
        self._undeclared = [name for name in names if name not in self._declared]
        self._pinned: int | None = None
        self._input: tuple[int, ...] | None = None
        self._sequence_first: list[tuple[str, int, int]] = []

    @property
    def is_assumed(self) -> bool:
        """Whether the batch axis of any layer is not declared."""
        return bool(self._undeclared)

    def reset(self, size: int | None = None) -> None:
        """Forget the last forward; until the next reset, `size` overrides the size of inputs."""
        self._pinned = size
        self._input = None
        self._sequence_first.clear()

    def read_input(self, args: object, kwargs: object) -> None:
        """Take the batch size from the first tensor that the model is called with."""
        tensors = (t for t in tensors_in((args, kwargs)) if t.dim() > 0)
        first = next(tensors, None)
        self._sequence_first.clear()
        if first is None:
            self._input = None
        else:
            # A nested tensor has no shape, but it has a first axis.
            self._input = (first.size(0),) if first.is_nested else tuple(first.shape)

    def saw_sequence_first(self, name: str, args: object, kwargs: object) -> None:
        """Record the input of a module with ``batch_first=False``, (tokens, batch, D).

        Raises
        ------
        CaptureError
            The model's own input has its samples on axis 1, or may have.
        """
        first = next(tensors_in((args, kwargs)), None)
        if first is None or first.dim() != 3 or first.is_nested:
            return  # unbatched or packed: no information
        tokens, batch = int(first.shape[0]), int(first.shape[1])
        self._sequence_first.append((name, tokens, batch))
        size = self._size
        if self._input is None or size is None or len(self._input) < 2:
            return
        if self._input[1] != batch:
            return  # the samples are not on axis 1 of the input; the size of each output decides
        # If batch and sequence have the same length, sizes cannot tell them apart, unless the input
        # is clearly not a sequence, such as three images (3, 3, H, W) in a model of sequence-first
        # blocks.
        square = self._input[0] == batch and (tokens == batch or len(self._input) <= 3)
        if batch == size and not square:
            return
        doubt = "axis 0 may be the sequence" if batch == size else "axis 0 is not the batch"
        raise CaptureError(
            f"Recorder: the model seems to take its input sequence first, so {doubt}.\n"
            f"  {name!r} has batch_first=False and was given {tuple(first.shape)}: "
            f"{tokens} tokens of {batch} samples\n"
            f"  the model's input: {self._input} → n={size}\n"
            "  Pass batch_dim=1 if the samples are on axis 1, batch_dim=0 if they really are on "
            f"axis 0{self._for_all()}."
        )

    def first(self, tensor: Tensor, layer: str) -> Tensor:
        """Return `tensor` with its batch axis in front, or itself if it is there already.

        Raises
        ------
        UnusableOutput
            That axis does not exist, or has another size than the batch.
        """
        if (dim := self._declared.get(layer)) is None:
            self._check_assumed(tensor, layer)
            return tensor
        if not -tensor.ndim <= dim < tensor.ndim:
            raise UnusableOutput(
                f"Recorder: layer {layer!r} has no axis {dim} for batch_dim= to mean.\n"
                f"  it returned: {tuple(tensor.shape)}\n"
                "  Give each layer its own: batch_dim={name or glob: axis}.",
                brief=str(tuple(tensor.shape)),
            )
        sizes = self._allowed_sizes()
        if sizes and tensor.shape[dim] not in sizes:
            raise UnusableOutput(
                f"Recorder: axis {dim} of layer {layer!r} is not the batch.\n"
                f"  it returned: {tuple(tensor.shape)}    {self._source()}\n"
                "  Give each layer its own: batch_dim={name or glob: axis}.",
                brief=str(tuple(tensor.shape)),
            )
        # Return the same object if no axis moves, because a transform may recognise it.
        return tensor if dim in (0, -tensor.ndim) else tensor.movedim(dim, 0)

    def contradiction(self, layer: str, shape: tuple[int, ...]) -> UnusableOutput | None:
        """Raise after the forward if an output that passed is sequence first."""
        if layer in self._declared or len(shape) < 3:
            return None
        for name, tokens, batch in self._sequence_first:
            if shape[:2] == (tokens, batch) and self._size in (None, tokens):
                return UnusableOutput(
                    f"Recorder: axis 0 of layer {layer!r} may be tokens, not samples.\n"
                    f"  it returned: {shape}; {name!r} has batch_first=False and was given "
                    f"{tokens} tokens of {batch} samples\n"
                    f"  Pass batch_dim={{{layer!r}: 1}} if the samples are on axis 1, 0 if on "
                    "axis 0; or use a batch size other than the number of tokens.",
                    brief=f"{shape}, perhaps sequence first",
                )
        return None

    @property
    def _size(self) -> int | None:
        if self._pinned is not None or self._input is None:
            return self._pinned
        return self._input[0]

    def _check_assumed(self, tensor: Tensor, layer: str) -> None:
        size, shape = self._size, tuple(tensor.shape)
        if size is None or shape[0] == size:
            return
        elsewhere = [axis for axis, length in enumerate(shape) if length == size]
        axis = elsewhere[0] if elsewhere else "axis"
        raise UnusableOutput(
            f"Recorder: axis 0 of layer {layer!r} is not the batch.\n"
            f"  it returned: {shape}    {self._source()}\n"
            f"  Pass batch_dim={axis} or batch_dim={{{layer!r}: {axis}}}, or leave the layer out.\n"
            "  Where samples and tokens share an axis, select= can part them.",
            brief=str(shape),
            quiet=shape[0] == 1,  # for example a position embedding: the same for every sample
        )

    def _allowed_sizes(self) -> set[int]:
        if self._pinned is not None:
            return {self._pinned}
        if self._input is None:
            return set()
        axes = {0, *self._declared.values()}
        return {self._input[a] for a in axes if -len(self._input) <= a < len(self._input)}

    def _source(self) -> str:
        if self._pinned is not None:
            return f"expected: n={self._pinned}"
        sizes = " or ".join(map(str, sorted(self._allowed_sizes())))
        return f"the model's input: {self._input} → n={sizes}"

    def _for_all(self) -> str:
        return f"; these layers have none: {self._undeclared[:4]}" if self._declared else ""


def _declared(batch_dim: BatchDim, names: tuple[str, ...]) -> dict[str, int]:
    if batch_dim is None:
        return {}
    if isinstance(batch_dim, int) and not isinstance(batch_dim, bool):
        return dict.fromkeys(names, batch_dim)
    if not isinstance(batch_dim, Mapping):
        raise InputError(
            "Recorder: batch_dim must be an axis, or a mapping from layer name or glob to axis.\n"
            f"  got: {batch_dim!r}"
        )
    declared: dict[str, int] = {}
    for pattern, axis in batch_dim.items():
        meant = [pattern] if pattern in names else [n for n in names if fnmatchcase(n, pattern)]
        if not meant:
            raise LayerNotFoundError(
                f"Recorder: batch_dim names {pattern!r}, which is none of the chosen layers.\n"
                f"  chosen: {', '.join(map(repr, names[:8]))}"
            )
        for name in meant:
            # An exact name takes precedence over a glob, an earlier glob over a later one.
            if pattern == name or name not in declared:
                declared[name] = axis
    return declared
