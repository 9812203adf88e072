"""The sums of receptive fields, of one process or of several, and their summary numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from repsim._errors import DegenerateWarning, warn
from repsim.analysis.run.ranks import one_for_all
from repsim.capture.tokens import TokenGrid
from repsim.results import RECEPTIVE_FIELD

if TYPE_CHECKING:
    import xarray

__all__ = ["FieldTotals", "LayerField", "UnitPlace"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

WITHIN_TWO_SIGMA = 0.0455
"""1 − 95.45 %: the mass of a Gaussian beyond two standard deviations."""


@dataclass(frozen=True)
class UnitPlace:
    """One position of the output of a layer."""

    grid: TokenGrid
    row: int
    column: int
    frame: int = 0


@dataclass(frozen=True)
class LayerField:
    """The sum over images of the field of one layer.

    Attributes
    ----------
    sums : numpy.ndarray
        ((frames,) height, width).
    unit : UnitPlace
        The unit whose field it is.
    without_graph : bool
        Whether no graph connected the unit of some batch to the images.
    """

    sums: Floats
    unit: UnitPlace
    without_graph: bool


@dataclass(frozen=True)
class FieldTotals:
    """The sums of all layers.

    Attributes
    ----------
    operation : str
        The analysis, for errors.
    fields : mapping of str to LayerField
        By layer, in execution order.
    n_samples, n_batches : int
        The number of images, and of batches.
    """

    operation: str
    fields: Mapping[str, LayerField]
    n_samples: int
    n_batches: int

    @staticmethod
    def merge(parts: Sequence[FieldTotals]) -> FieldTotals:
        """Return the sums over the images of all parts."""
        operation = parts[0].operation
        layers = [list(each.fields) for each in parts]
        names = one_for_all(
            operation, "layers", layers, "Leave out layers that run in some batches only."
        )
        extents = [tuple(next(iter(each.fields.values())).sums.shape) for each in parts]
        one_for_all(operation, "size of the images", extents, "Resize them with prepare=.")
        fields = {}
        for name in names:
            of_layer = [part.fields[name] for part in parts]
            units, repair = [each.unit for each in of_layer], "Pass grid= and prefix= on all ranks."
            unit = one_for_all(operation, f"grid of layer {name!r}", units, repair)
            sums = np.asarray(sum(each.sums for each in of_layer))
            fields[name] = LayerField(sums, unit, any(each.without_graph for each in of_layer))
        n_samples = sum(each.n_samples for each in parts)
        n_batches = sum(each.n_batches for each in parts)
        return FieldTotals(operation, fields, n_samples, n_batches)

    def dataset(self) -> xarray.Dataset:
        """Return fields and summaries; see :func:`repsim.effective_receptive_field`."""
        labels, fields = list(self.fields), list(self.fields.values())
        mean = np.stack([field.sums for field in fields]) / self.n_samples
        zero = [label for label, field in zip(labels, mean, strict=True) if not field.any()]
        if zero:
            graph = [label for label in zero if self.fields[label].without_graph]
            no_graph = f"  without a graph (detached, no_grad): {graph[:8]}\n" if graph else ""
            warn(
                f"{self.operation}: the gradient is exactly zero, so the field is undefined "
                f"(NaN): {', '.join(map(repr, zero))}.\n{no_graph}"
                f"  Is the unit dead (a ReLU), constant, or not reached by the input?",
                DegenerateWarning,
            )
        units = [field.unit for field in fields]
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
        return dataset.assign_attrs(n_samples=self.n_samples, n_batches=self.n_batches)


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
