"""One model of a stitching: what its layers hold, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from repsim.analysis.run._drive import Batch, Forward, Prepare
from repsim.analysis.run._kept_state import kept_state
from repsim.analysis.run._sample_finder import BatchSize, SampleFinder
from repsim.analysis.stitching._positions import Form, Held, Positions
from repsim.capture import Layers, MaskOption, Masks, Recorder, Select, spliced, unwrap

__all__ = ["Side"]


@dataclass(frozen=True)
class _Returning(Batch):
    """A batch that keeps what the latest model that ran on it has returned."""

    returned: list[object] = field(default_factory=list)

    def run(
        self, model: nn.Module, prepare: Prepare | None = None, forward: Forward | None = None
    ) -> object:
        self.returned[:] = [super().run(model, prepare, forward)]
        return self.returned[0]


class Side:
    """A model, its recorder, and how it is called.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in evaluation mode while it runs.
    layers : str, re.Pattern, module type, callable, or a list of these
        The layers to hold.
    mask, select, batch_dim, batch_size, prepare, forward
        The options of the caller.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        *,
        mask: MaskOption,
        select: Select | None,
        batch_dim: int | Mapping[str, int] | None,
        batch_size: BatchSize,
        prepare: Prepare | None,
        forward: Forward | None,
    ) -> None:
        self.model = model
        self.masks = Masks("stitch", mask)
        self._positions = Positions(model, self.masks)
        self._recorder = Recorder(
            model, layers, transform=self._positions, select=select, batch_dim=batch_dim
        )
        self._recorder.enabled = False  # the models may share modules
        self._positions.follow(self._recorder.axes)
        self._samples = SampleFinder("stitch", batch_size)
        self._select, self._prepare, self._forward = select, prepare, forward

    @property
    def has_decoder(self) -> bool:
        """Whether the model says that it has an encoder and a decoder."""
        config = getattr(unwrap(self.model), "config", None)
        return bool(getattr(config, "is_encoder_decoder", False))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Keep the hooks active, and restore the buffers of the model afterwards."""
        with ExitStack() as stack:
            stack.enter_context(kept_state(self.model))
            stack.enter_context(self._positions.watching())
            stack.enter_context(self._recorder)
            yield

    def prepared(self, batch: Batch) -> Batch:
        """Return a batch as this model gets it."""
        return batch.prepared(self.model, self._prepare, self._forward)

    def run(self, batch: Batch) -> tuple[dict[str, Held], object]:
        """Run a prepared batch; return what its layers hold, by label, and the output."""
        returning = _Returning(batch.operation, batch.value, batch.number)
        to_run = (returning, self.model, [self._recorder], self._forward, [self.masks])
        self._samples.ask(*to_run)
        self._positions.start(batch.value)
        self._recorder.clear()
        self._samples.run(*to_run)
        return dict(self._recorder), returning.returned[0]

    def run_stitched(self, batch: Batch, held: Held, replace: Callable[[Form], Tensor]) -> object:
        """Run a prepared batch with a layer replaced by positions (B, N, D) for its form."""

        def function(tensor: Tensor) -> Tensor:
            form = self._positions.form(tensor, held.layer, held.call)
            return form.shaped(replace(form))

        axes = self._recorder.axes
        self._positions.start(batch.value)
        with (
            kept_state(self.model),
            spliced(self.model, held.layer, held.call, function, axes=axes, select=self._select),
        ):
            return batch.run(self.model, forward=self._forward)
