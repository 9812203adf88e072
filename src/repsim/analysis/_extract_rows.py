"""The rows that one batch adds to a store: values, ids and coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from repsim._errors import CaptureError, InputError, NonFiniteError
from repsim.analysis.run._reduced import reduced
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import Ranks, SampleIds, ids_of
from repsim.capture import BoundTransform, values_of
from repsim.storage import ActivationStore

__all__ = [
    "DTYPES",
    "BatchRows",
    "LayerRows",
    "Seen",
    "ToHost",
    "Values",
    "rows_of",
    "same_layers",
]

DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}

Values = np.ndarray[Any, np.dtype[Any]]

LayerRows: TypeAlias = dict[str, tuple[tuple[int, ...], Any]]
"""The shape and dtype of a row, by layer."""


class BatchRows(NamedTuple):
    """What one batch adds to a store.

    Attributes
    ----------
    layers : dict of str to array
        The rows of each layer.
    coords : dict of str to array
        Sequence and position of each token, or the masks of the layers.
    masked : dict of str to str
        The name of its mask, by layer.
    ids : list
        The id of each row.
    inputs : int
        The inputs of the batch, if these are not the rows.
    """

    layers: dict[str, Values]
    coords: dict[str, Values]
    masked: dict[str, str]
    ids: list[Any]
    inputs: int = 0


class ToHost:
    """A transform for the recorder: the part of an output to store, on the CPU."""

    wants_layer = True

    def __init__(
        self,
        transform: BoundTransform,
        dtype: str | None = None,
        tokens: TokenSamples | None = None,
        operation: str = "extract",
    ) -> None:
        self.transform, self.tokens, self.operation = transform, tokens, operation
        self._layers: set[str] = set()
        self._resumed = False
        self._dtype = None if dtype is None else DTYPES[dtype]
        if self._dtype is torch.float16:
            transform.means.dtype = self._dtype

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Tensor:
        self._layers.add(layer)
        if self.tokens is not None:
            values = self.tokens.rows(self.transform, tensor, layer, call)
        else:
            values = reduced(self.operation, self.transform, tensor, layer, call)
        wanted = self._dtype if values.is_floating_point() else None
        if wanted is None:
            wanted = torch.float32 if values.dtype == torch.bfloat16 else values.dtype
        values = values.unsqueeze(1) if values.ndim == 1 else values
        return values.to("cpu", wanted)

    def resume(self, store: ActivationStore, side: str = "") -> None:
        """Learn from a store that is resumed what its first sample had; `side` begins its names."""
        if self.transform.takes_means and store.n_rows:
            rows = store.first_rows(side)
            self.transform.means.resume(
                {name.removeprefix(side): row for name, row in rows.items()}
            )
            self._resumed = True

    def agree(self, ranks: Ranks) -> None:
        """Take the first sample of one rank for all; one whose run is resumed is preferred."""
        means = self.transform.means
        mine = {label: x.to("cpu") for label, x in means.first.items()}
        everyone = [each for each in ranks.gather((self._resumed, mine)) if each[1]]
        if everyone:
            means.resume(max(everyone, key=lambda each: each[0])[1])

    def masks(self, values: Mapping[str, Values]) -> dict[str, tuple[str, Values]]:
        """Return the name and the mask of each layer whose stored positions have one."""
        found = {}
        for label, x in values.items():
            layer, call = (label, 0) if label in self._layers else _layer_and_call(label)
            shape = tuple(x.shape[:2])
            masks = self.transform.masks
            if x.ndim < 3 or masks.is_of_other(layer, shape, call):
                continue
            mask = masks.of(layer, shape, call)
            if mask is not None and tuple(mask.shape) == shape:
                found[label] = masks.name_of(layer, shape, call), values_of(mask).numpy()
        return found


def _layer_and_call(label: str) -> tuple[str, int]:
    layer, _, call = label.rpartition(":")
    return layer, int(call)


class Seen:
    """The ids of the samples so far, and which ids of a batch are new."""

    def __init__(self, operation: str, sample_ids: SampleIds | None) -> None:
        self.operation, self._sample_ids = operation, sample_ids
        self._ids: set[Any] = set()
        self.duplicates = 0
        self.n_rows = 0
        self.kind = "int64"

    @property
    def unnamed(self) -> bool:
        """Whether samples are numbered, so every sample is new."""
        return self._sample_ids is None

    def take(self, batch: Any) -> tuple[list[Any] | None, list[int] | None]:
        """Return the ids of a batch and its new rows; None for numbered samples and all rows."""
        if self._sample_ids is None:
            return None, None
        ids = ids_of(self.operation, self._sample_ids, batch)
        kinds = {"int64" if type(each) is int else "str" for each in ids}
        if self._ids:
            kinds.add(self.kind)
        if len(kinds) > 1 or not all(isinstance(each, int | str) for each in ids):
            raise InputError(
                f"{self.operation}: sample_ids must be all integers or all strings.\n"
                f"  got {', '.join(sorted({type(each).__name__ for each in ids}))}\n"
                f"  Turn them into strings, for example [str(i) for i in ids]."
            )
        self.kind = kinds.pop() if kinds else self.kind
        rows = []
        for row, each in enumerate(ids):
            if each not in self._ids:
                self._ids.add(each)
                rows.append(row)
        self.duplicates += len(ids) - len(rows)
        return ids, None if len(rows) == len(ids) else rows


def rows_of(
    outputs: Mapping[str, Tensor],
    to_host: ToHost,
    ids: list[Any] | None,
    new: list[int] | None,
    first: int,
    where: str,
) -> BatchRows:
    """Return the rows of one batch.

    Parameters
    ----------
    outputs : mapping of str to torch.Tensor
        What the recorder kept of each layer.
    to_host : ToHost
        What transformed it.
    ids : list, optional
        The ids of the inputs; by default they are numbered.
    new : list of int, optional
        The inputs whose ids are new; by default all.
    first : int
        The number of earlier rows.
    where : str
        The batch, for errors.
    """
    operation, tokens = to_host.operation, to_host.tokens
    layers = _arrays(operation, outputs, where)
    n_rows = len(next(iter(layers.values())))
    n = n_rows if tokens is None else tokens.n_in_batch
    if ids is not None and len(ids) != n:
        raise InputError(
            f"{operation}: sample_ids must give one id for each sample.\n"
            f"  got {len(ids)} ids for {n} samples, {where}"
        )
    if tokens is not None:
        of, position = tokens.drawn()
        names = np.array(ids) if ids is not None else np.arange(n) + tokens.n_sequences
        if names.dtype.kind == "U":
            names = names.astype(object)
        coords, masked = {"sequence": names[of], "position": position}, {}
        new = None if new is None else tokens.of_sequences(new)
        ids = None
    else:
        found = to_host.masks(layers)
        coords, masked = dict(found.values()), {label: name for label, (name, _) in found.items()}
    if new is not None:
        layers = {label: x[new] for label, x in layers.items()}
        coords = {name: x[new] for name, x in coords.items()}
        ids = None if ids is None else [ids[row] for row in new]
        n_rows = len(new)
    ids = list(range(first, first + n_rows)) if ids is None else ids
    return BatchRows(layers, coords, masked, ids, 0 if tokens is None else n)


def _arrays(operation: str, outputs: Mapping[str, Tensor], where: str) -> dict[str, Values]:
    """Return the outputs of a batch as finite arrays of the same samples."""
    sizes = {layer: x.shape[0] for layer, x in outputs.items()}
    if len(set(sizes.values())) > 1:
        raise CaptureError(
            f"{operation}: all layers must describe the same samples, {where}.\n"
            f"  samples by layer: {dict(list(sizes.items())[:8])}\n"
            f"  Pass batch_dim=, or leave the layer out."
        )
    bad = [k for k, x in outputs.items() if x.is_floating_point() and not x.isfinite().all()]
    if bad:
        repair = "Half precision overflows at 65504: leave the layer out, or run it in float32."
        if operation == "extract":
            repair = (
                "Half precision overflows at 65504: dtype='float32' stores more. The batches "
                "before are stored."
            )
        raise NonFiniteError(
            f"{operation}: activations must be finite.\n"
            f"  {where}: NaN or infinity in {', '.join(map(repr, bad[:8]))}\n  {repair}"
        )
    return {layer: x.numpy() for layer, x in outputs.items()}


def same_layers(operation: str, first: LayerRows, now: LayerRows, where: str) -> LayerRows:
    """Return the layers of the first batch of a run, or raise an error that says what changed.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    first : dict of str to (shape, dtype)
        Those of the first batch; empty in that batch itself.
    now : dict of str to (shape, dtype)
        Those of a later batch.
    where : str
        Which batch, for errors.
    """
    if not first:
        return now
    if first.keys() != now.keys():
        raise CaptureError(
            f"{operation}: every batch must have the same layers.\n"
            f"  {where}: without {[name for name in first if name not in now][:8]}, and with "
            f"{[name for name in now if name not in first][:8]} that had not run before\n"
            "  Leave out layers that run for some inputs only, by layers=."
        )
    for name, (shape, dtype) in now.items():
        if first[name] != (shape, dtype):
            before, kind = first[name]
            raise InputError(
                f"{operation}: every batch must have the same shape of rows.\n"
                f"  layer {name!r}: {before} {kind} in the first batch\n"
                f"  {shape} {dtype} in {where}\n"
                '  Give all inputs one size, or reduce them: transform="mean" or "last". For '
                'texts of any\n  lengths pass samples="tokens": one row for each token.'
            )
    return first
