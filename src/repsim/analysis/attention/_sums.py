"""Sums of attention distances and related quantities over batches, one row per layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError, NonFiniteError, warn
from repsim.analysis.attention._cross_sums import CrossSums
from repsim.analysis.attention._image_sums import ImageSums, add_rows
from repsim.analysis.attention._places import NoDistance, PlacesFinder, n_samples
from repsim.analysis.attention._text_sums import TextSums
from repsim.analysis.attention._totals import AnySums, AttentionTotals, LayerTotals
from repsim.analysis.attention._video_sums import VideoSums, in_space, in_time
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._first_bad import FirstBad
from repsim.capture import AttentionCall, AttentionRecorder, Masks, listing
from repsim.capture.tokens import PatchOrder, TokenGrid, TokenOptions

__all__ = ["AttentionDistances", "is_cross"]


class AttentionDistances:
    """Sums of distance, renormalised distance, prefix mass and entropy of heads, over batches.

    Parameters
    ----------
    options : TokenOptions
        The caller's options about where tokens lie.
    masks : Masks
        Which tokens of a text are real.
    """

    def __init__(self, options: TokenOptions, masks: Masks) -> None:
        self._operation = options.operation
        self.masks = masks
        self._finder = PlacesFinder(options)
        self._order: PatchOrder | None = None
        self._n_samples = 0
        self._batch: Batch | None = None
        self._runs = False
        self._rows: list[tuple[tuple[str, int], ImageSums, Tensor, bool]] = []
        self._sizes: tuple[int, ...] = ()
        self._layers: dict[tuple[str, int], AnySums] = {}
        self._first_bad = FirstBad(self._not_finite)
        self._label: Callable[[str, int], str]
        self._left_out: dict[tuple[str, int], str] = {}
        self._tables: dict[tuple[TokenGrid, bool, torch.device, torch.dtype], Tensor] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Let forwards show the order of the patches among the tokens."""
        self._order = PatchOrder(model)
        with self._order.watching():
            yield

    def start(self, batch: Batch) -> None:
        """Prepare for the next batch, in the form that the model gets."""
        if self._order is not None:
            self._order.start()
        self._batch, self._runs = batch, True
        self._sizes = ()
        self._rows.clear()
        self.masks.start(batch.value)

    def add(self, call: AttentionCall) -> None:
        """Add one attention call of the running forward, if it is that of a batch."""
        if not self._runs:  # data and functions of the caller may use the model
            return
        key = (call.name, call.call)
        if is_cross(call):
            self._add_cross(key, call)
            return
        try:
            self._check_order(call)
            places = self._finder.of(call)
        except NoDistance as reason:
            self._left_out[key] = str(reason)
            return
        self._sizes = _sizes(call)
        sums = self._layers.get(key)
        if sums is None:
            kind = TextSums if places.text else VideoSums if places.video else ImageSums
            sums = self._layers[key] = kind(places, call.heads, call.output.device)
        elif isinstance(sums, CrossSums) or not sums.fits(places, call.heads):
            raise InputError(
                f"{self._operation}: layer {call.label!r} changes from batch to batch.\n"
                f"  before: {sums.places and sums.places.grid}, {sums.heads} heads\n"
                f"  batch {self._number}: {places.grid}, {call.heads} heads\n"
                f"  Images of one size belong into one call: sort them by size."
            )
        if isinstance(sums, TextSums):
            self._first_bad.add(key, sums.add(call, self._mask(call)), self._number)
            return
        space = self._distances(call, places.grid, in_space)
        if isinstance(sums, VideoSums):
            time = self._distances(call, places.grid, in_time)
            rows = sums.rows_of(call, space, time)
        else:
            self._refuse_padding(call)
            rows = [(sums, sums.rows_of(call, [space]))]
        sums.count(call)
        self._rows += [(key, *each, sums.unscaled(call)) for each in rows]

    def _check_order(self, call: AttentionCall) -> None:
        """Raise a NoDistance if the tokens are patches in another order, or before others."""
        options, labels = self._finder.options, (call.label, f"{call.name}:{call.call}", call.name)
        given = options.grid_of(*labels) or options.video_grid_of(*labels)
        if self._order is None or call.keys in call.input.lengths:
            return
        n = call.keys * call.batch // n_samples(call)  # those of all windows
        order = self._order.of(call.label, n)
        if order is not None and order.forbids(given, n):
            raise NoDistance(f"attends among {call.keys} tokens: {order.problem}")

    def _refuse_padding(self, call: AttentionCall) -> None:
        """Raise if patches of images are padding: images of other sizes have other grids."""
        shape = (call.batch, call.keys)
        if self.masks.are_of_patches and self.masks.n_padding(call.name, shape, call.call):
            raise InputError(
                f"{self._operation}: some patches of layer {call.label!r} are padding.\n"
                f"  batch {self._number}: images of several sizes have no grid in common\n"
                f"  Images of one size belong into one call: sort them by size."
            )

    def _add_cross(self, key: tuple[str, int], call: AttentionCall) -> None:
        """Add one call of cross-attention, which has an entropy and no distance."""
        sums = self._layers.setdefault(key, CrossSums(call.heads, call.output.device))
        if not isinstance(sums, CrossSums) or sums.heads != call.heads:
            raise InputError(
                f"{self._operation}: layer {call.label!r} changes from batch to batch.\n"
                f"  batch {self._number}: cross-attention of {call.heads} heads\n"
                f"  Pass batches of one kind."
            )
        self._finder.saw_cross(call)
        self._sizes = self._sizes or _sizes(call)
        mask = self.masks.of_queries(call.name, (call.batch, call.queries), call.call)
        self._first_bad.add(key, sums.add(call, mask), self._number)

    def finish(self, recorder: AttentionRecorder) -> None:
        """Count a finished batch, and check it if that need not wait for an accelerator."""
        assert self._batch is not None, "start() comes first"
        self._runs = False
        self._n_samples += self._batch.n_samples(*self._sizes) if self._sizes else 0
        self._label = recorder.label
        with torch._C.DisableTorchFunction():  # the mode of the recorder may be on
            self._add_rows()
            self._first_bad.check(wait=False)

    def _add_rows(self) -> None:
        """Add the rows of the batch to the sums of their layers."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, (_, _, rows, unscaled) in enumerate(self._rows):
            key = (rows.shape, rows.device, rows.dtype, unscaled)
            groups.setdefault(key, []).append(i)
        finite: dict[int, Tensor] = {}
        for (*_, unscaled), members in groups.items():
            added = add_rows([self._rows[i][1:3] for i in members], unscaled=unscaled)
            finite.update(zip(members, added.unbind(), strict=True))
        for i in sorted(finite):  # in execution order
            self._first_bad.add(self._rows[i][0], finite[i], self._number)
        self._rows.clear()

    def totals(self, recorder: AttentionRecorder) -> AttentionTotals | None:
        """Return the sums of this process after checking them; None if there was no batch."""
        if self._batch is None:
            return None
        self._report(recorder)
        self._first_bad.check(wait=True)
        self._finder.options.check_used("layer with attention")
        layers = {
            key: LayerTotals(recorder.label(*key), sums.on_cpu())
            for key, sums in self._layers.items()
        }
        return AttentionTotals(self._operation, layers, self._n_samples)

    @property
    def _number(self) -> int:
        assert self._batch is not None, "start() comes first"
        return self._batch.number

    def _mask(self, call: AttentionCall) -> Tensor | None:
        """Return which tokens of a text are real; None means all."""
        mask = self.masks.of(call.name, (call.batch, call.keys), call.call)
        if mask is not None and mask.shape != (call.batch, call.keys):
            raise InputError(
                f"{self._operation}: the mask does not fit layer {call.label!r}.\n"
                f"  texts × tokens: {(call.batch, call.keys)}    mask: {tuple(mask.shape)}\n"
                f"  Give each layer its own mask: mask={{name or glob: key of the batch, or None}}."
            )
        return mask

    def _distances(
        self, call: AttentionCall, grid: TokenGrid, between: Callable[[TokenGrid], Any]
    ) -> Tensor:
        """Return (patches, keys) in pixels or frames; 0 for prefix tokens."""
        device = call.output.device
        dtype = torch.float64 if call.output.dtype == torch.float64 else torch.float32
        key = (grid, between is in_time, device, dtype)
        if key not in self._tables:
            distances = torch.from_numpy(between(grid)).to(dtype)
            self._tables[key] = nn.functional.pad(distances, (grid.prefix, 0)).to(device)
        return self._tables[key]

    def _not_finite(self, key: tuple[str, int], batch: int) -> NonFiniteError:
        return NonFiniteError(
            f"{self._operation}: NaN or infinity in the attention of layer {self._label(*key)!r}, "
            f"batch {batch} (counted from 0).\n"
            f"  Does the input contain it? In half precision scores overflow: try float32."
        )

    def _report(self, recorder: AttentionRecorder) -> None:
        left = {recorder.label(*key): why for key, why in self._left_out.items()}
        shown = "".join(f"  {label} {why}\n" for label, why in list(left.items())[:8])
        more = f"  and {len(left) - 8} more\n" if len(left) > 8 else ""
        required = [recorder.label(*key) for key in self._left_out if recorder.requires(*key)]
        if required or not self._layers:
            what = listing(required) if required else "any layer"
            raise CaptureError(
                f"{self._operation}: there are no distances in {what}.\n{shown}{more}"
                f"  Distances are between tokens that lie in a grid and attend to one another."
            )
        if left:
            text = f"{self._operation}: left out, because they have no distances:\n{shown}{more}"
            warn(text.rstrip())


def is_cross(call: AttentionCall) -> bool:
    """Whether a call attends to another sequence, and does not pool by one learned query."""
    pools = isinstance(call.module, nn.MultiheadAttention) and call.queries == 1
    return call.frames[-1].cross and not pools


def _sizes(call: AttentionCall) -> tuple[int, ...]:
    """Return the number of samples in a call, and that of the input of the model."""
    n = n_samples(call)
    return n, call.input.batch or n
