"""What a classifier answers: logits from outputs, labels from batches, and scores of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from repsim._errors import InputError
from repsim.analysis._precision import sum_dtype
from repsim.analysis.probes._labelled import IGNORED, KEYS, LabelsOf, class_numbers
from repsim.analysis.run._sequence_means import SequenceMeans
from repsim.capture import Masks, carried, values_of

__all__ = ["Answers", "LogitsOf", "Scores", "found_labels", "logits_in"]

LogitsOf: TypeAlias = Callable[[Any], Tensor]
"""Type of ``logits=``: a function that takes the logits from what a model returns."""

PAIRED, LABELLED = ("kl", "disagreement"), ("loss", "accuracy")

MOST = 1 << 24
"""Logits whose probabilities are in memory at once."""


def found_labels(batch: Any, labels_of: LabelsOf | None) -> tuple[Any, Any]:
    """Return the batch that the models get, and its labels or None.

    Without a function, labels are a second item of a tuple, or an entry "labels" or "label" of a
    mapping, if they are one whole number for each sample. Labels of tokens are not taken from a
    batch: those of a causal language model are not those of its positions.
    """
    if labels_of is not None:
        return batch, labels_of(batch)
    if isinstance(batch, Mapping):
        key = next((key for key in KEYS if key in batch), None)
        if key is None or not _are_classes(batch[key]):
            return batch, None
        return {name: value for name, value in batch.items() if name != key}, batch[key]
    pair = isinstance(batch, tuple | list) and len(batch) == 2 and _are_classes(batch[1])
    return batch, batch[1] if pair else None


def _are_classes(found: Any) -> bool:
    if isinstance(found, Tensor):
        whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
        return found.ndim == 1 and whole
    return isinstance(found, np.ndarray) and found.ndim == 1 and found.dtype.kind in "iu"


def logits_in(output: Any, logits_of: LogitsOf | None) -> Tensor:
    """Return the logits of an output as (B, N, K), N = 1 for one answer for each sample."""
    found = _logits(output, logits_of)
    if not isinstance(found, Tensor) or found.ndim < 2 or not found.is_floating_point():
        keys = f" with keys {list(output)}" if isinstance(output, Mapping) else ""
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"stitch: the output of model_y must have logits.\n"
            f"  it returned {type(output).__name__}{keys}, and logits of {shown}\n"
            f"  expected (n, K), (n, T, K) of tokens or (n, K, H, W) of pixels\n"
            f"  Pass logits=lambda output: ..., or a model with its head."
        )
    if found.ndim > 3:
        found = found.movedim(1, -1).flatten(1, -2)
    found = found[:, None] if found.ndim == 2 else found
    if found.shape[-1] < 2:
        raise InputError(
            f"stitch: the output of model_y must have logits of at least two classes.\n"
            f"  got K={found.shape[-1]}\n"
            f"  Make two logits of one: logits=lambda output: "
            f"torch.nn.functional.pad(output, (1, 0))."
        )
    return found


def _logits(output: Any, logits_of: LogitsOf | None) -> Any:
    if logits_of is not None:
        return logits_of(output)
    if isinstance(output, Mapping):
        return output.get("logits")
    return getattr(output, "logits", output)


@dataclass(frozen=True)
class Answers:
    """The own answers of model_y to a batch.

    Attributes
    ----------
    logits : torch.Tensor, shape (B, N, K)
        Its logits.
    counted : torch.Tensor, shape (B, N), bool
        Which answers count: those of real tokens.
    labels : torch.Tensor, shape (B, N), int64, or None
        The right answers, −100 where there is none.
    labelled : torch.Tensor, shape (B, N), bool, or None
        Which answers count and have a label, in main memory.
    """

    logits: Tensor
    counted: Tensor
    labels: Tensor | None
    labelled: Tensor | None

    @classmethod
    def of(
        cls, logits: Tensor, masks: Masks, labels: Any, number: int, *, of_decoder: bool
    ) -> Answers:
        """Check the shapes of the logits of a batch, and of its mask and labels.

        The logits of a model with encoder and decoder follow the decoder's sequence.
        """
        shape = (logits.shape[0], logits.shape[1])
        counted = torch.ones(shape, dtype=torch.bool, device="cpu")
        of_queries = of_decoder and masks.is_auto
        mask = None
        if shape[1] > 1:
            mask = masks.of_queries("", shape) if of_queries else masks.of("", shape)
        if mask is not None:
            if tuple(mask.shape) != shape:
                raise InputError(
                    f"stitch: the mask does not fit the logits of model_y.\n"
                    f"  logits: {tuple(logits.shape)}    mask: {tuple(mask.shape)}\n"
                    f"  Pass mask_y=, or logits= that takes those of the masked sequence."
                )
            counted = mask
        there = carried(counted, logits.device)
        if labels is None:
            return cls(logits, there, None, None)
        known = _checked(labels, logits, number)
        labelled = values_of(counted) & (known != IGNORED)
        return cls(logits, there, carried(known, logits.device), labelled)


def _checked(labels: Any, logits: Tensor, number: int) -> Tensor:
    """Return labels as (B, N), or raise."""
    of_tokens = getattr(labels, "ndim", 1) > 1
    if of_tokens and getattr(labels, "ndim", 2) > 2:
        labels = labels.reshape(len(labels), -1)  # of pixels
    found = class_numbers("stitch", labels, None, f"batch {number}", of_tokens=of_tokens)
    found = found if of_tokens else found[:, None]
    if found.shape != tuple(logits.shape[:2]):
        raise InputError(
            f"stitch: logits and labels must describe the same samples.\n"
            f"  logits: {tuple(logits.shape)}    labels: {found.shape}, batch {number}\n"
            f"  For the answers of tokens pass labels=lambda batch: ... with one label for each."
        )
    right = found[found != IGNORED]
    if right.size and (right.min() < 0 or right.max() >= logits.shape[-1]):
        raise InputError(
            f"stitch: labels must be classes from 0 and below {logits.shape[-1]}.\n"
            f"  batch {number}: {right.min()} to {right.max()}\n"
            f"  {IGNORED} marks what has no label."
        )
    return torch.from_numpy(found)


class Scores:
    """Means over the answers so far: divergence and disagreement, loss and accuracy."""

    def __init__(self) -> None:
        self._pairs, self._labelled = SequenceMeans(), SequenceMeans()
        self._any_labels = False

    def add(self, own: Answers, logits: Tensor) -> None:
        """Add the answers ``logits`` (B, N, K) to a batch."""
        logits = logits.to(own.logits.device)
        step = max(1, MOST // max(1, logits[0].numel()))
        for start in range(0, len(logits), step):
            rows = slice(start, start + step)
            labels = some = None
            if own.labels is not None and own.labelled is not None and own.labelled[rows].any():
                self._any_labels = True
                labels = own.labels[rows]
                some = own.labelled[rows].any(1).nonzero()[:, 0]  # the samples with a label
            self._add(own.logits[rows], logits[rows], own.counted[rows], labels, some)

    def _add(
        self,
        own: Tensor,
        logits: Tensor,
        counted: Tensor,
        labels: Tensor | None,
        some: Tensor | None,
    ) -> None:
        wide = torch.promote_types(own.dtype, torch.float32)
        p, q = (each.to(wide).log_softmax(-1) for each in (own, logits))
        # Where p is zero nothing diverges, whatever q is.
        # Rounding may take the sum below zero.
        kl = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1).clamp(min=0)
        # Where there are no probabilities there is no answer, although NaN has an argmax.
        answered, answer = ~q.isnan().any(-1), logits.argmax(-1)

        def share(hits: Tensor) -> Tensor:
            return torch.where(answered, hits.to(wide), torch.nan)

        self._pairs.add(_sums([kl, share(own.argmax(-1) != answer)], counted), counted.sum(1))
        if labels is None or some is None:
            return
        known = counted & (labels != IGNORED)
        chosen = labels.clamp(min=0)
        loss = -q.gather(-1, chosen[..., None])[..., 0]
        sums, counts = _sums([loss, share(answer == chosen)], known), known.sum(1)
        # The number of samples is in the standard error, so those without a label do not count.
        some = carried(some, counts.device)
        self._labelled.add(sums[:, some], counts[some])

    @property
    def is_nan(self) -> bool:
        """Whether an answer was not a number."""
        return math.isnan(self.result()["kl"][0])

    def result(self) -> dict[str, tuple[float, float]]:
        """Return mean and standard error of each score."""
        found: dict[str, Any] = dict(
            zip(PAIRED, zip(*self._pairs.result(), strict=True), strict=True)
        )
        if self._any_labels:
            found |= zip(LABELLED, zip(*self._labelled.result(), strict=True), strict=True)
        return {name: (float(mean), float(error)) for name, (mean, error) in found.items()}


def _sums(values: list[Tensor], counted: Tensor) -> Tensor:
    """Return the sums of each over the counted answers of each sample, (K, B)."""
    double = sum_dtype(counted.device)
    # Not a product with the mask: padding may hold NaN.
    return torch.stack([v.to(double).masked_fill(~counted, 0.0).sum(1) for v in values])
