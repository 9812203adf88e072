"""A transform together with its batch: masks, modules, and the batch itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from repsim._errors import warn
from repsim.capture._masks import Masks
from repsim.capture._means import RunMeans
from repsim.capture._output import UnusableOutput
from repsim.capture._reduce import Reducer
from repsim.capture._transform import Transform, resolve_transform
from repsim.capture.samples._axes import BatchAxis
from repsim.capture.tokens._axes import PositionAxes
from repsim.capture.tokens._order import PatchOrder
from repsim.capture.tokens._texts import TextPositions

__all__ = ["BoundTransform", "bound_in"]


class BoundTransform:
    """Apply a transform to outputs of one model, over the real positions of the current batch.

    Parameters
    ----------
    operation : str
        For error messages.
    transform : {"flatten", "cls", "first", "last", "mean"}, callable or None
        A callable with a true ``wants_layer`` gets (tensor, layer, call), and one with a true
        ``wants_batch`` gets the batch as its last argument.
    model : torch.nn.Module
        The model of these layers; its modules show which axes of outputs are positions.
    masks : Masks
        The masks of the current batch.
    """

    wants_layer = True

    def __init__(
        self, operation: str, transform: Transform, model: nn.Module, masks: Masks
    ) -> None:
        self._operation = operation
        self.function = resolve_transform(transform, operation)
        self.masks = masks
        self.means = RunMeans()
        self._axes = PositionAxes(model)
        self._texts = TextPositions(operation, masks, self._axes)
        self._order = PatchOrder(model)
        self._wants_layer = getattr(self.function, "wants_layer", False)
        self._wants_batch = getattr(self.function, "wants_batch", False)
        self._batch: Any = None
        self._samples: BatchAxis | None = None
        self._warned = False

    @property
    def needs_batch(self) -> bool:
        """Whether the result may depend on more than the output: its mask, module or batch."""
        return isinstance(self.function, Reducer) or self._wants_batch

    @property
    def takes_means(self) -> bool:
        """Whether the result is the mean over positions."""
        return isinstance(self.function, Reducer) and self.function.name == "mean"

    @property
    def depends_on_layer(self) -> bool:
        """Whether the result of one tensor may differ by layer or batch."""
        known = self.function is None or isinstance(self.function, Reducer)
        return self.masks.by_layer or (not known and (self._wants_layer or self._wants_batch))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let the first forward show where a class token is, if one is asked for."""
        if not (isinstance(self.function, Reducer) and self.function.name == "cls"):
            yield
            return
        with self._order.watching():
            yield

    def follow(self, samples: BatchAxis) -> None:
        """Learn from the recorder of these outputs which rows were folded into samples."""
        self._samples = samples

    def start(self, batch: Any, given: Any = None) -> None:
        """Start the next batch, in the form that the model gets.

        Parameters
        ----------
        batch : object
            What functions of the batch get.
        given : object, optional
            All arguments of the model, which may be more; by default the batch.
        """
        self._batch = batch
        self.masks.start(batch)
        self._order.start()
        self._axes.start(batch if given is None else given)

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Any:
        """Transform one output, batch first."""
        function: Callable[..., Any] | None = self.function
        if function is None:
            return tensor
        if isinstance(function, Reducer) and function.name == "flatten":
            self.note_padding(layer, tensor, call)
            return function(tensor, layer, call)
        if isinstance(function, Reducer):
            return self._reduced(function, tensor, layer, call)
        given = (tensor, layer, call) if self._wants_layer else (tensor,)
        return function(*given, self._batch) if self._wants_batch else function(*given)

    def positions(self, tensor: Tensor, layer: str, call: int) -> tuple[Tensor, Tensor | None]:
        """Return an output as positions (B, N, D), and which are real: a mask (B, N) or None.

        A callable transform is applied first.

        Raises
        ------
        UnusableOutput
            The output has no positions, or other ones than the mask.
        """
        if self.function is not None and not isinstance(self.function, Reducer):
            tensor = self(tensor, layer, call)
        shape = tuple(tensor.shape)
        self._check_order(shape, layer, call)
        if not 3 <= tensor.ndim <= 5:
            raise UnusableOutput(
                f"{self._operation}: layer {layer!r} has no tokens: it returned {shape}.\n"
                f"  Tokens are positions of (B, N, D), or of maps of one to three dimensions.\n"
                f"  Choose other layers.",
                brief=f"{shape}: it has no tokens",
            )
        found = None
        if tensor.ndim > 3 or self.masks.of(layer, shape, call) is not None:
            found = self._texts.found(tensor, layer, call)
        if found is not None:
            sequence = found.flatten(2)  # of a text, all else is features: heads, and their widths
        else:
            sequence = self._features_last(tensor, layer, call).flatten(1, -2)
        return sequence, self.masks.aligned(layer, sequence, 'samples="tokens"', call)

    def _check_order(self, shape: tuple[int, ...], layer: str, call: int) -> None:
        """Raise if tokens of one sample are in windows or crops: none is the first of all."""
        rows = self._rows_of(layer, call)
        if rows > 1 and shape[1:-1] != (rows,):
            raise UnusableOutput(
                f"{self._operation}: the tokens of layer {layer!r} are in another order.\n"
                f"  it returned {rows} rows for each sample, such as windows or crops, each with "
                f"tokens of its own\n"
                f"  Choose layers outside of windows.",
                brief=f"{shape}: its tokens are in {rows} windows or crops",
            )

    def _reduced(self, reducer: Reducer, tensor: Tensor, layer: str, call: int) -> Tensor:
        """Apply a reducer of positions to the real positions of an output."""
        shape = tuple(tensor.shape)
        if tensor.ndim not in reducer.ndims or tensor.ndim < 3:
            if self._has_numbers_of_padding(layer, shape, call):
                raise UnusableOutput(
                    f"{self._operation}: layer {layer!r} returns a number for each token, and some "
                    f"tokens are padding.\n"
                    f"  it returned {shape}, the shape of the mask\n"
                    f"  Choose other layers, or pass a callable that leaves out padding.",
                    brief=f"{shape}: a number for each token, padding too",
                )
            return reducer(tensor, layer, call)
        if max(reducer.ndims) == 3:  # it takes one token
            self._check_order(shape, layer, call)
        sequence, found = tensor, None
        if tensor.ndim > 3 and (found := self._texts.found(tensor, layer, call)) is not None:
            sequence = found
        elif tensor.ndim == 3 or self.masks.of(layer, shape, call) is None:
            sequence = self._features_last(tensor, layer, call)
        mask = self.masks.aligned(layer, sequence, reducer.name, call)
        if mask is not None and tensor.ndim == 3:
            self._texts.found(sequence, layer, call)
        elif mask is None and found is not None:
            mask = torch.ones(found.shape[:2], dtype=torch.bool, device=found.device)
        if reducer.name == "cls":
            self._check_cls(layer, shape, sequence.shape[1])
        if reducer.name == "mean":
            return self.means(sequence, mask, layer, call)
        return reducer(sequence, layer, call, mask=mask, features_first=False)

    def _check_cls(self, layer: str, shape: tuple[int, ...], n: int) -> None:
        """Raise if the first of n tokens is known to be a patch and no class token."""
        order = None if self._axes.may_be_text(n) else self._order.of(layer, n)
        if order is not None and order.after and order.before == 0:
            last = order.after == 1
            repair = 'transform="last" for the last token' if last else "a callable as transform="
            raise UnusableOutput(
                f"{self._operation}: the class token of layer {layer!r} is not its first token.\n"
                f"  it returned {shape}, and {order.problem}\n"
                f"  Pass {repair}.",
                brief=f"{shape}: {order.problem}",
                repair=f"{repair}.",
            )
        if self._axes.lacks_cls(layer, n):
            raise UnusableOutput(
                f"{self._operation}: layer {layer!r} has no class token.\n"
                f"  it returned {shape}: its {n} tokens are patches\n"
                f'  Pass transform="mean" for their mean, or "first" for the first of them.',
                brief=f"{shape} has no class token",
            )

    def _has_numbers_of_padding(self, layer: str, shape: tuple[int, ...], call: int) -> bool:
        """Whether an output (B, N) has one number for each position, and some are padding."""
        return (
            len(shape) == 2
            and self.masks.n_padding(layer, shape, call) > 0
            and not self._axes.is_width(layer, shape[1])
        )

    def _features_last(self, tensor: Tensor, layer: str, call: int) -> Tensor:
        """Return an output with its features on the last axis.

        Rows that were folded into samples are no axis of the module, which decides.
        """
        rows, shape = self._rows_of(layer, call), tuple(tensor.shape)
        if rows == 1:
            first = self._features_first(shape, layer, tensor.stride())
            return tensor.movedim(1, -1) if first else tensor
        if shape[1:-1] == (rows,):  # vectors
            return tensor
        apart = tensor
        if tensor.ndim == 3:
            apart = tensor.reshape(len(tensor), rows, -1, shape[-1]).transpose(1, 2)
        first = self._features_first((*apart.shape[:2], *apart.shape[3:]), layer)
        return apart.movedim(1, -1) if first else tensor

    def _rows_of(self, layer: str, call: int) -> int:
        return 1 if self._samples is None else self._samples.rows_of(layer, call)

    def _features_first(
        self, shape: tuple[int, ...], layer: str, strides: tuple[int, ...] | None = None
    ) -> bool:
        """Whether axis 1 of an output holds its features; raise if nothing shows it."""
        found = self._axes.features_first(layer, shape, strides)
        if found is None:
            axes = (3, 4) if len(shape) == 5 else (1, 2)
            raise UnusableOutput(
                f"{self._operation}: the channels of layer {layer!r} may be first or last.\n"
                f"  it returned {shape}\n"
                f"  Pass a callable, for example transform=lambda x: x.mean({axes}), or choose "
                f"other layers.",
                brief=f"{shape}: its channels may be first or last",
            )
        return found

    def note_padding(self, layer: str, tensor: Tensor, call: int) -> None:
        """Warn once if padding is among the features."""
        shape = tuple(tensor.shape)
        if self._warned or tensor.ndim < 2:
            return
        if tensor.ndim == 2 and not self._has_numbers_of_padding(layer, shape, call):
            return
        padding = self.masks.n_padding(layer, shape, call)
        if not padding:
            return
        self._warned = True
        warn(
            f"{self._operation}: padding is compared as if it were data, from layer {layer!r} on: "
            f"{padding} of {tensor.shape[0] * tensor.shape[1]} positions of a batch are padding.\n"
            '  Take the real ones: transform="mean", "last", "first" or repsim.capture.token(i). '
            f"mask=None says that all positions are real."
        )


def bound_in(transform: object) -> BoundTransform | None:
    """Return the bound transform inside a reduction; None if there is none inside."""
    found = getattr(transform, "transform", None)
    return found if isinstance(found, BoundTransform) else None
