"""Sums of gradients over images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repsim._errors import CaptureError, InputError, NonFiniteError
from repsim.analysis._machine import is_of_the_machine
from repsim.analysis.images._batch import axes_of
from repsim.analysis.images._receptive_field_totals import FieldTotals, LayerField, UnitPlace
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._first_bad import FirstBad
from repsim.analysis.run.ranks import Ranks
from repsim.arrays import accumulator_dtype, array_namespace, to_numpy

__all__ = ["Fields", "Probes", "Unit"]


@dataclass(frozen=True)
class Unit:
    """One position of a layer's output, for every sample, with its graph."""

    channels: Tensor  # (n, c)
    place: UnitPlace


class Probes:
    """The signs of the channels: ±1 at random, or a single probe of ones."""

    def __init__(self, count: int | None, seed: int) -> None:
        self.count = 1 if count is None else count
        self._random = count is not None
        self._seed = seed

    def signs(self, label: str, unit: Tensor, images: Sequence[object]) -> Iterator[Tensor]:
        """Yield the K signs (n, c) of a unit (n, c) in these images, by their ids or places."""
        if not self._random:
            yield torch.ones_like(unit)
            return
        generator, shape = torch.Generator(), (self.count, unit.shape[1])
        # Image by image, so the signs depend neither on batch sizes nor on the shares of ranks.
        seeds = [self._seed_of(f"{label} {image}") for image in images]
        bits = torch.stack(
            [
                torch.randint(0, 2, shape, generator=generator.manual_seed(seed), device="cpu")
                for seed in seeds
            ]
        )
        signs = (2 * bits - 1).to(torch.int8).to(unit.device, non_blocking=True)
        for probe in signs.unbind(1):
            yield probe.to(unit.dtype)

    def _seed_of(self, name: str) -> int:
        text = f"{self._seed} {name}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())


class Fields:
    """Σ over images of the field of every layer, in float64 if the device of the images has it."""

    def __init__(self, operation: str, probes: Probes, ranks: Ranks) -> None:
        self.operation = operation
        self.ranks = ranks
        self._probes = probes
        self._sums: dict[str, Tensor] = {}
        self._units: dict[str, UnitPlace] = {}
        self._without_graph: set[str] = set()
        self._first_bad = FirstBad(self._not_finite)
        self._n_samples = 0
        self._n_batches = 0
        self._batch = 0

    def add(self, image: Tensor, units: Mapping[str, Unit], batch: Batch) -> None:
        """Add a batch by backwards from each unit to the images or videos."""
        n, self._batch = batch.n_samples(int(image.shape[0])), batch.number
        images = self.ranks.places(self._n_samples, n) if batch.ids is None else batch.ids
        channels, extent = axes_of(self.operation, image)
        connected = {label for label, unit in units.items() if unit.channels.requires_grad}
        if not connected:
            raise CaptureError(
                f"{self.operation}: no layer is connected to the images by a graph.\n"
                f"  The forward runs under torch.no_grad() or inference_mode(), detaches its "
                f"input, or takes another\n  tensor than the first floating-point (n, c, h, w) of "
                f"the batch."
            )
        if self._sums:
            self._same_as_before(extent, units)
        for label, unit in units.items():
            total = None
            if label in connected:
                total = self._field(image, channels, label, unit.channels, images)
            else:
                self._without_graph.add(label)
            if label not in self._sums:
                wide = accumulator_dtype(array_namespace(image), image)
                self._sums[label] = image.new_zeros(extent, dtype=wide)
                self._units[label] = unit.place
            if total is not None:
                self._sums[label] += total
        self._first_bad.check(wait=False)
        self._n_samples += n
        self._n_batches += 1

    def _field(
        self, image: Tensor, channels: int, label: str, unit: Tensor, images: Sequence[object]
    ) -> Tensor | None:
        """Return the sum over images of the field, as large as one; None if it is all zero."""
        wide = accumulator_dtype(array_namespace(image), image)
        squares: Tensor | None = None
        for signs in self._probes.signs(label, unit, images):
            gradient = self._gradient(label, unit, image, signs)
            if gradient is not None:
                square = gradient.to(wide) ** 2
                squares = square if squares is None else squares.add_(square)
        if squares is None:
            return None
        field = (squares / self._probes.count).sqrt().sum(channels).sum(0)
        finite = torch.isfinite(unit).all().to(field.device) & torch.isfinite(field).all()
        self._first_bad.add(label, finite, self._batch)
        return field

    def _gradient(self, label: str, unit: Tensor, image: Tensor, signs: Tensor) -> Tensor | None:
        """Return the gradient of a probe with respect to the images; None if none depends on it."""
        try:
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                unit, image, signs, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            if is_of_the_machine(error):
                raise
            raise CaptureError(
                f"{self.operation}: the gradient of layer {label!r} could not be computed.\n"
                f"  torch: {(str(error) or type(error).__name__).splitlines()[0]}\n"
                f"  A model in FSDP frees its weights after a forward: pass one with whole weights."
                f"\n  Activation checkpointing needs use_reentrant=False."
            ) from error
        return gradients[0]

    def _not_finite(self, label: str, batch: int) -> NonFiniteError:
        return NonFiniteError(
            f"{self.operation}: units and gradients must be finite.\n"
            f"  layer {label!r}, batch {batch} (counted from 0)\n"
            f"  Look for half precision (it overflows at 65504), and for divisions or square "
            f"roots at zero."
        )

    def _same_as_before(self, extent: tuple[int, ...], units: Mapping[str, Unit]) -> None:
        shape = tuple(next(iter(self._sums.values())).shape)
        if shape != extent:
            before, now = ("×".join(map(str, size)) for size in (shape, extent))
            raise InputError(
                f"{self.operation}: all images must have one size.\n"
                f"  before: {before}    batch {self._batch}: {now}\n"
                f"  Resize them with prepare=."
            )
        if units.keys() != self._sums.keys():
            raise InputError(
                f"{self.operation}: every batch must have the layers of the first.\n"
                f"  missing: {sorted(self._sums.keys() - units.keys())[:8]}    "
                f"new: {sorted(units.keys() - self._sums.keys())[:8]}\n"
                f"  Leave out layers that run in some batches only."
            )

    def totals(self) -> FieldTotals | None:
        """Return the sums of this process after checking them; None if there was no batch."""
        if not self._n_batches:
            return None
        self._first_bad.check(wait=True)
        fields = {
            label: LayerField(
                to_numpy(field).astype(np.float64), self._units[label], label in self._without_graph
            )
            for label, field in self._sums.items()
        }
        return FieldTotals(self.operation, fields, self._n_samples, self._n_batches)
