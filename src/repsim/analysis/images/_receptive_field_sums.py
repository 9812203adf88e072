"""Sums of gradients over images, and the summary numbers of a receptive field."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from repsim._errors import CaptureError, DegenerateWarning, InputError, NonFiniteError, warn
from repsim.analysis.images._batch import axes_of
from repsim.analysis.run._first_bad import FirstBad
from repsim.arrays import accumulator_dtype, array_namespace, to_numpy
from repsim.capture.tokens import TokenGrid
from repsim.results import RECEPTIVE_FIELD

if TYPE_CHECKING:
    import xarray

__all__ = ["Fields", "Probes", "Unit"]

WITHIN_TWO_SIGMA = 0.0455
"""1 − 95.45 %: the mass of a Gaussian beyond two standard deviations."""


@dataclass(frozen=True)
class Unit:
    """One position of a layer's output, for every sample, with its graph."""

    channels: Tensor  # (n, c)
    grid: TokenGrid
    row: int
    column: int
    frame: int = 0


class Probes:
    """The signs of the channels: ±1 at random, or a single probe of ones."""

    def __init__(self, count: int | None, seed: int) -> None:
        self.count = 1 if count is None else count
        self._random = count is not None
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def signs(self, label: str, unit: Tensor) -> Iterator[Tensor]:
        """Yield the K signs (n, c) of a unit (n, c)."""
        if not self._random:
            yield torch.ones_like(unit)
            return
        if label not in self._generators:
            name = zlib.crc32(f"{self._seed} {label}".encode())
            self._generators[label] = torch.Generator().manual_seed(name)
        n, channels = unit.shape
        # Image by image, so the random stream does not depend on batch sizes.
        bits = torch.randint(0, 2, (n, self.count, channels), generator=self._generators[label])
        signs = (2 * bits - 1).to(torch.int8).to(unit.device, non_blocking=True)
        for probe in signs.unbind(1):
            yield probe.to(unit.dtype)


class Fields:
    """Σ over images of the field of every layer, in float64 if the device of the images has it."""

    def __init__(self, operation: str, probes: Probes) -> None:
        self._operation = operation
        self._probes = probes
        self._sums: dict[str, Tensor] = {}
        self._units: dict[str, Unit] = {}
        self._without_graph: set[str] = set()
        self._first_bad = FirstBad(self._not_finite)
        self.n_samples = 0
        self.n_batches = 0

    def add(self, image: Tensor, units: Mapping[str, Unit]) -> None:
        """Add a batch by backwards from each unit to the images or videos."""
        channels, extent = axes_of(self._operation, image)
        connected = {label for label, unit in units.items() if unit.channels.requires_grad}
        if not connected:
            raise CaptureError(
                f"{self._operation}: no layer is connected to the images by a graph.\n"
                f"  The forward runs under torch.no_grad() or inference_mode(), detaches its "
                f"input, or takes another\n  tensor than the first floating-point (n, c, h, w) of "
                f"the batch."
            )
        if self._sums:
            self._same_as_before(extent, units)
        for label, unit in units.items():
            total = None
            if label in connected:
                total = self._field(image, channels, label, unit.channels)
            else:
                self._without_graph.add(label)
            if label not in self._sums:
                wide = accumulator_dtype(array_namespace(image), image)
                self._sums[label] = image.new_zeros(extent, dtype=wide)
                # Only its place, because keeping the channels would keep the graph.
                self._units[label] = replace(unit, channels=image.new_empty(0))
            if total is not None:
                self._sums[label] += total
        self._first_bad.check(wait=False)
        self.n_samples += int(image.shape[0])
        self.n_batches += 1

    def _field(self, image: Tensor, channels: int, label: str, unit: Tensor) -> Tensor | None:
        """Return the sum over images of the field, as large as one; None if it is all zero."""
        wide = accumulator_dtype(array_namespace(image), image)
        squares: Tensor | None = None
        for signs in self._probes.signs(label, unit):
            (gradient,) = torch.autograd.grad(
                unit, image, signs, retain_graph=True, allow_unused=True
            )
            if gradient is not None:
                square = gradient.to(wide) ** 2
                squares = square if squares is None else squares.add_(square)
        if squares is None:
            return None
        field = (squares / self._probes.count).sqrt().sum(channels).sum(0)
        finite = torch.isfinite(unit).all().to(field.device) & torch.isfinite(field).all()
        self._first_bad.add(label, finite, self.n_batches)
        return field

    def _not_finite(self, label: str, batch: int) -> NonFiniteError:
        return NonFiniteError(
            f"{self._operation}: units and gradients must be finite.\n"
            f"  layer {label!r}, batch {batch} (counted from 0)\n"
            f"  Look for half precision (it overflows at 65504), and for divisions or square "
            f"roots at zero."
        )

    def _same_as_before(self, extent: tuple[int, ...], units: Mapping[str, Unit]) -> None:
        shape = tuple(next(iter(self._sums.values())).shape)
        if shape != extent:
            before, now = ("×".join(map(str, size)) for size in (shape, extent))
            raise InputError(
                f"{self._operation}: all images must have one size.\n"
                f"  before: {before}    batch {self.n_batches}: {now}\n"
                f"  Resize them with prepare=."
            )
        if units.keys() != self._sums.keys():
            raise InputError(
                f"{self._operation}: every batch must have the layers of the first.\n"
                f"  missing: {sorted(self._sums.keys() - units.keys())[:8]}    "
                f"new: {sorted(units.keys() - self._sums.keys())[:8]}\n"
                f"  Leave out layers that run in some batches only."
            )

    def result(self, provenance: Mapping[str, Any]) -> xarray.Dataset:
        """Return fields and summaries with their labels."""
        self._first_bad.check(wait=True)
        labels = list(self._sums)
        mean = to_numpy(torch.stack(list(self._sums.values()))).astype(np.float64) / self.n_samples
        zero = [label for label, field in zip(labels, mean, strict=True) if not field.any()]
        if zero:
            graph = [label for label in zero if label in self._without_graph]
            no_graph = f"  without a graph (detached, no_grad): {graph[:8]}\n" if graph else ""
            warn(
                f"{self._operation}: the gradient is exactly zero, so the field is undefined "
                f"(NaN): {', '.join(map(repr, zero))}.\n{no_graph}"
                f"  Is the unit dead (a ReLU), constant, or not reached by the input?",
                DegenerateWarning,
            )
        units = [self._units[label] for label in labels]
        along = {
            "grid_height": [unit.grid.height for unit in units],
            "grid_width": [unit.grid.width for unit in units],
            "unit_row": [unit.row for unit in units],
            "unit_column": [unit.column for unit in units],
        }
        height, width = mean.shape[-2:]
        places = {"layer": labels, "row": np.arange(height), "column": np.arange(width)}
        values = _summaries(mean if mean.ndim == 3 else mean.sum(1))
        if mean.ndim == 4:
            values |= _in_time(mean.sum((2, 3)))
            places["frame"] = np.arange(mean.shape[1])
            along["grid_frames"] = [unit.grid.frames or 1 for unit in units]
            along["unit_frame"] = [unit.frame for unit in units]
        dataset = RECEPTIVE_FIELD.dataset(values, {**places, **along})
        return dataset.assign_attrs(provenance, n_samples=self.n_samples, n_batches=self.n_batches)


def _in_time(mean: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Normalise fields (layers, frames), and compute their centre and width in time."""
    frames, mass = np.arange(mean.shape[1], dtype=float), mean.sum(1)
    p = mean / np.where(mass > 0, mass, np.nan)[:, None]
    centre = (p * frames).sum(1)
    variance = (p * (frames - centre[:, None]) ** 2).sum(1)
    return {"time_field": p, "time_sigma": np.sqrt(variance), "centre_frame": centre}


def _summaries(mean: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Normalise fields (layers, height, width) and compute the summary of each."""
    rows, columns = (np.arange(size, dtype=float) for size in mean.shape[1:])
    mass = mean.sum((1, 2))
    p = mean / np.where(mass > 0, mass, np.nan)[:, None, None]
    row, column = (p * rows[:, None]).sum((1, 2)), (p * columns).sum((1, 2))
    r2 = (rows[:, None] - row[:, None, None]) ** 2 + (columns - column[:, None, None]) ** 2
    above = (mean > WITHIN_TWO_SIGMA * mean.max((1, 2), keepdims=True)).sum((1, 2))
    return {
        "field": p,
        "participation_area": 1 / (p**2).sum((1, 2)),
        "sigma": np.sqrt((p * r2).sum((1, 2))),
        "side": np.where(mass > 0, np.sqrt(above), np.nan),
        "mass": mass,
        "centre_row": row,
        "centre_column": column,
    }
