"""The vectors of every layer with the labels of their samples, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import InputError, NonFiniteError
from repsim.analysis.probes._choices import ChosenTokens, TokenChoices
from repsim.analysis.probes._labelled import (
    IGNORED,
    IntArray,
    LabelsOf,
    check_range,
    split_labels,
)
from repsim.analysis.run._drive import Batch, Forward, Prepare
from repsim.analysis.run._first_bad import FirstBad
from repsim.analysis.run._sample_finder import SampleFinder
from repsim.capture import Recorder, values_of

__all__ = ["LabelledBatch", "Vectors"]

Places: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class LabelledBatch:
    """A batch as the model gets it, and the labels of its samples.

    Attributes
    ----------
    batch : Batch
        The batch.
    labels : numpy.ndarray of int64, shape (n,)
        The classes of the samples, or of the tokens that are samples.
    where : str
        Its place, for errors.
    places : numpy.ndarray of bool, shape (B, N), or None
        Which tokens are samples; None if samples are not tokens.
    """

    batch: Batch
    labels: IntArray
    where: str
    places: Places | None = None

    @property
    def sequences(self) -> IntArray | None:
        """The number of the sequence of each token that is a sample."""
        return None if self.places is None else np.nonzero(self.places)[0].astype(np.int64)


class Vectors:
    """Runs a model on batches, and returns the chosen tokens of every layer.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in evaluation mode.
    recorder : Recorder
        Records the layers with `choices` as its transform.
    choices : TokenChoices
        Chooses tokens.
    labels : callable, optional
        Returns the labels of a batch.
    samples : SampleFinder
        Finds the samples of a batch.
    prepare, forward : callable, optional
        The options of the caller.
    """

    def __init__(
        self,
        model: nn.Module,
        recorder: Recorder,
        choices: TokenChoices,
        labels: LabelsOf | None,
        samples: SampleFinder,
        prepare: Prepare | None,
        forward: Forward | None,
    ) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        self._model, self._recorder, self._choices = model, recorder, choices
        self._samples = samples
        recorder.enabled = False  # SampleFinder enables it
        self._labels, self._prepare, self._forward = labels, prepare, forward
        self._source = ""
        self._first_bad = FirstBad(self._not_finite)
        self._stack = ExitStack()
        self._records = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the layers from the first batch on; a rank may have none."""
        with ExitStack() as self._stack:
            yield

    def labelled(self, batch: Batch, source: str, classes: int | None) -> LabelledBatch:
        """Return a batch with its labels."""
        if source != self._source:
            self._source, self._first_bad = source, FirstBad(self._not_finite)
        of_tokens = self._choices.are_samples
        given, labels = split_labels(
            "linear_probe", batch.value, self._labels, classes, source, of_tokens=of_tokens
        )
        batch.n_samples(len(labels))
        found = LabelledBatch(
            replace(batch, value=given), labels, f"batch {batch.number} of {source}"
        )
        if of_tokens:
            found = self._of_tokens(found)
            check_range("linear_probe", found.labels, classes, source)
        return found

    def _of_tokens(self, found: LabelledBatch) -> LabelledBatch:
        """Return a batch whose samples are its labelled real tokens."""
        masks, labels = self._choices.masks, found.labels
        if masks.by_layer:
            raise InputError(
                'linear_probe: tokens="all" takes one mask for all layers.\n'
                "  got a mapping\n  Pass the key of the sequence that has the labels."
            )
        places = labels != IGNORED
        masks.start(found.batch.prepared(self._model, self._prepare, self._forward).value)
        mask = masks.of("", tuple(labels.shape))
        if mask is not None:
            if tuple(mask.shape) != labels.shape:
                raise InputError(
                    "linear_probe: mask and labels must describe the same tokens.\n"
                    f"  mask: {tuple(mask.shape)}    labels: {labels.shape}, {found.where}\n"
                    f"  A token without a label has {IGNORED}."
                )
            places &= values_of(mask).numpy()
        return replace(found, labels=labels[places], places=places)

    def of(self, batch: LabelledBatch) -> Iterator[tuple[str, Tensor]]:
        """Run the model and yield every layer with its vectors."""
        if not self._records:
            self._stack.enter_context(self._recorder)
            self._records = True
        prepared = batch.batch.prepared(self._model, self._prepare, self._forward)
        masks = [self._choices.masks]
        self._samples.ask(prepared, self._model, [self._recorder], self._forward, masks)
        self._choices.masks.start(prepared.value)
        self._choices.start(batch.places)
        self._recorder.clear()
        self._samples.run(prepared, self._model, [self._recorder], self._forward)
        for layer, found in self._recorder.items():
            bad = ~torch.isfinite(found.values)
            self._first_bad.add(layer, ~bad.any(), batch.batch.number, bad.sum())
        self.check_finite(wait=False)
        _check_outputs(self._recorder, len(batch.labels), self.names, batch.where)
        for layer, found in self._recorder.items():
            self.names.setdefault(layer, found.names)
            yield layer, found.values

    def check_finite(self, *, wait: bool = True) -> None:
        """Raise if a layer was not finite; without ``wait``, look at layers in main memory."""
        self._first_bad.check(wait=wait)

    def _not_finite(self, layer: str, batch: int) -> NonFiniteError:
        return NonFiniteError(
            f"linear_probe: layer {layer!r} must be finite.\n"
            f"  batch {batch} of {self._source} (counted from 0): {self._first_bad.detail(layer)} "
            f"values are NaN or infinite\n"
            "  Half precision overflows at 65504. Look at the first layer in which they arise."
        )


def _check_outputs(
    outputs: Mapping[str, ChosenTokens], n: int, names: Mapping[str, tuple[str, ...]], where: str
) -> None:
    """Check the outputs of one forward against the labels and earlier batches."""
    for layer, found in outputs.items():
        if found.values.shape[1] != n:
            raise InputError(
                "linear_probe: inputs and labels must describe the same samples.\n"
                f"  layer {layer!r}: {found.values.shape[1]} samples    labels: {n}, {where}\n"
                "  Pair them before batching."
            )
        if names and names.get(layer) != found.names:
            before = f"{len(names[layer])} tokens" if layer in names else "it did not run"
            raise InputError(
                "linear_probe: every batch must have the same layers and tokens.\n"
                f"  layer {layer!r} in {where}: {len(found.names)} tokens    before: {before}\n"
                '  For inputs of different sizes take tokens="mean", or give them one size.'
            )
    if missing := [layer for layer in names if layer not in outputs]:
        raise InputError(
            "linear_probe: every batch must have the same layers and tokens.\n"
            f"  did not run in {where}: {missing[:8]}\n"
            "  Leave out layers that run for some inputs only."
        )
