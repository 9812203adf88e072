"""A model whose hooks keep a value of each layer, and the two sides of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from torch import Tensor, nn

from repsim._errors import InputError, LayerNotFoundError
from repsim.analysis.maps._grams import LayerGrams
from repsim.analysis.maps._resumable_kernels import ResumableKernels
from repsim.analysis.run._drive import Batch, Forward, Prepare
from repsim.analysis.run._kept_state import kept_state
from repsim.analysis.run._sample_finder import BatchSize, SampleFinder
from repsim.analysis.run._token_samples import TokenSamples
from repsim.capture import (
    BoundTransform,
    Layers,
    MaskOption,
    Masks,
    Recorder,
    Select,
    Transform,
    select_layers,
)
from repsim.kernels import Kernel
from repsim.streaming import MIN_BATCH

__all__ = ["AS_X", "AsX", "GramSide", "RecordedSide", "SideOptions", "Sides"]


class AsX(Enum):
    """The option of side y that was not given: it is that of side x."""

    AS_X = "as x"

    def __repr__(self) -> str:
        return "AS_X"


AS_X: Final = AsX.AS_X

Side = TypeVar("Side", bound="RecordedSide")


@dataclass(frozen=True)
class SideOptions:
    """Which part of the outputs of one model is compared, as in :class:`repsim.Recorder`."""

    transform: Transform = None
    mask: MaskOption = "auto"
    select: Select | None = None
    batch_dim: int | Mapping[str, int] | None = None
    all_modules: bool = False

    def with_given(self, **options: Any) -> SideOptions:
        """Return these options with those that are not ``AS_X`` in their place."""
        given = {name: value for name, value in options.items() if value is not AS_X}
        return replace(self, **given)


class Reduction(Protocol):
    """Makes of an output, inside its hook, the value to keep."""

    wants_layer: bool

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Tensor:
        """Return the value of an output (n, ...)."""

    def forget(self) -> None:
        """Forget the forward before, whose values are not needed any more."""


class RecordedSide:
    """One model with the recorder that keeps a value of each of its layers.

    It records only the forwards of :meth:`run_with`, because two models may share submodules.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    model, layers
        As in :class:`repsim.Recorder`.
    options : SideOptions
        What is compared of an output.
    reduction : callable
        Makes the reduction, which is applied to each output, from the transform of this side.
    tokens : TokenSamples, optional
        Which tokens are samples, shared with the other models; by default inputs are the samples.
    prepare, forward : callable, optional
        How the model is called.
    batch_size, least
        How many samples a batch has, and has to have to count, as in :class:`SampleFinder`.
    """

    def __init__(
        self,
        operation: str,
        model: nn.Module,
        layers: Layers,
        options: SideOptions,
        *,
        reduction: Callable[[BoundTransform], Reduction],
        tokens: TokenSamples | None = None,
        prepare: Prepare | None,
        forward: Forward | None,
        batch_size: BatchSize = None,
        least: int = MIN_BATCH,
    ) -> None:
        self.model, self.options = model, options
        self._layers, self._prepare, self._forward = layers, prepare, forward
        self._tokens = tokens
        self._ran = False
        self._finder = SampleFinder(operation, batch_size, least=1 if tokens else least)
        self._transform = BoundTransform(
            operation, options.transform, model, Masks(operation, options.mask)
        )
        self._reduction = reduction(self._transform)
        self._recorder = Recorder(
            model,
            layers,
            transform=self._reduction,
            select=options.select,
            batch_dim=options.batch_dim,
            all_modules=options.all_modules,
        )
        self._recorder.enabled = False
        self._transform.follow(self._recorder.axes)

    @property
    def chosen(self) -> list[str]:
        """The names of the chosen layers, including those that do not run."""
        return list(select_layers(self.model, self._layers).names)

    @property
    def kept(self) -> dict[str, Tensor]:
        """The values of the latest batch by layer, valid until the next batch."""
        return dict(self._recorder)

    @property
    def n_samples(self) -> int:
        """The samples of the latest batch: inputs, also where their tokens are compared."""
        if self._tokens is not None:
            return self._tokens.n_in_batch
        return int(next(iter(self._recorder.values())).shape[0])

    def run_with(self, sides: Sequence[RecordedSide], batch: Batch) -> None:
        """Call the model on a batch for several sides of one model, which keep their layers."""
        prepared = batch.prepared(self.model, self._prepare, self._forward)
        for side in sides:
            side._start(prepared)
        recorders = [side._recorder for side in sides]
        masks = [side._transform.masks for side in sides]
        self._finder.run(prepared, self.model, recorders, self._forward, masks)

    def run_recorded(self, batch: Batch) -> dict[str, Tensor]:
        """Call the model on a batch and return the values of its layers."""
        self.run_with([self], batch)
        return self.kept

    def _start(self, prepared: Batch) -> None:
        """Forget the values of the batch before, and start the next one."""
        self._ran = True
        self._reduction.forget()
        self._recorder.clear()
        self._transform.start(prepared.value)

    def start_tokens(self, batch: Batch) -> None:
        """Start the next batch of the token samples; find their positions in the first batch."""
        if self._tokens is None:
            return
        self._tokens.start()
        if not self._tokens.surveyed:
            with kept_state(self.model), self._tokens.survey():
                self.run_recorded(batch)

    def check_used(self, among: Iterable[RecordedSide] = ()) -> None:
        """Raise a LayerNotFoundError where the mask of a layer was given that did not run."""
        if self._ran:
            self._transform.masks.check_used(each._transform.masks for each in among)

    def __enter__(self) -> RecordedSide:
        self._recorder.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if not self._ran and kind is None:
            # Without an error, the recorder would raise that no layer ran. But a rank without data,
            # or with all batches in its checkpoint, calls no model.
            kind = InputError
        self._recorder.__exit__(kind, error, trace)


class GramSide(RecordedSide):
    """One model with the recorder that computes the Grams of its layers.

    Parameters
    ----------
    operation, model, layers, options
        As in :class:`RecordedSide`.
    kernel : Kernel
        Kernel of the Grams. A bandwidth that follows the data is fixed for each layer on its first
        batch.
    tokens, **more
        As in :class:`RecordedSide`.
    """

    def __init__(
        self,
        operation: str,
        model: nn.Module,
        layers: Layers,
        options: SideOptions,
        *,
        kernel: Kernel,
        tokens: TokenSamples | None = None,
        **more: Any,
    ) -> None:
        self.kernels = ResumableKernels(kernel)
        reduction = partial(LayerGrams, self.kernels, tokens=tokens, operation=operation)
        super().__init__(
            operation, model, layers, options, reduction=reduction, tokens=tokens, **more
        )


class Sides(Generic[Side]):
    """The two sides of a comparison, run batch by batch.

    Parameters
    ----------
    x : RecordedSide
    y : RecordedSide, optional
        Without it the layers of x are compared with each other.
    one_forward : bool
        Whether one call of the model serves both sides.
    """

    def __init__(self, x: Side, y: Side | None, *, one_forward: bool) -> None:
        self.x, self.y = x, y
        self._each = [x] if y is None else [x, y]
        self._together = [x] if y is None or not one_forward else [x, y]
        self._apart = None if one_forward else y

    @classmethod
    def of(
        cls,
        side: Callable[..., Side],
        x: tuple[nn.Module, Layers, SideOptions, Prepare | None],
        y: tuple[nn.Module | None, Layers | None, SideOptions, Prepare | None],
    ) -> Sides[Side]:
        """Make the sides from (model, layers, options, prepare) of each.

        None in place of the model or the layers of y means those of x. One forward serves both
        sides if they are one model on one input.
        """
        model_x, layers, options_x, prepare_x = x
        model_y, layers_y, options_y, prepare_y = y
        same_input = prepare_y is prepare_x or (model_y is None and prepare_y is None)
        model_y = model_x if model_y is None else model_y
        one_forward = model_y is model_x and same_input
        recorded_x, recorded_y = side(model_x, layers, options_x, prepare=prepare_x), None
        if not one_forward or layers_y is not None or options_y != options_x:
            chosen = layers if layers_y is None else layers_y
            try:
                recorded_y = side(model_y, chosen, options_y, prepare=prepare_y)
            except LayerNotFoundError as error:
                if layers_y is not None or model_y is model_x:
                    raise
                raise LayerNotFoundError(
                    f"{error}\n  This is model_y: choose its layers with layers_y=."
                ) from error
        return cls(recorded_x, recorded_y, one_forward=one_forward)

    @property
    def model_y(self) -> nn.Module:
        """The model of y; that of x if there is one model."""
        return self._each[-1].model

    @property
    def options_y(self) -> SideOptions:
        """The options of y; those of x if there is one side."""
        return self._each[-1].options

    @property
    def each(self) -> list[Side]:
        """The side of x, and that of y if there is one."""
        return list(self._each)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Keep the hooks of both sides active."""
        with ExitStack() as stack:
            for side in self._each:
                stack.enter_context(side)
            yield

    def check_used(self) -> None:
        """Raise a LayerNotFoundError where a mask names a layer that no side has."""
        for side in self._each:
            side.check_used(self._each)

    def kept(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """Run a batch through both models; return the values of their layers, on one device."""
        self.x.start_tokens(batch)
        self.x.run_with(self._together, batch)
        if self._apart is not None:
            self._apart.run_recorded(batch)
        xs = self.x.kept
        return xs, None if self.y is None else to_same_device(self.y.kept, xs)


def to_same_device(grams: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move Grams to the device of the other side: n² numbers per layer."""
    device = next(iter(others.values())).device
    moved: dict[int, Tensor] = {}
    for gram in grams.values():
        if id(gram) not in moved:  # shared Grams remain shared
            moved[id(gram)] = gram.to(device)
    return {name: moved[id(gram)] for name, gram in grams.items()}
