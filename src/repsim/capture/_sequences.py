"""Which of several sequences of a batch a layer follows: that of the mask, or another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from repsim.capture._near import values_of

__all__ = [
    "AUTO",
    "DECODER",
    "PATCHES",
    "Follows",
    "Sequences",
    "are_labels_padded",
    "by_length",
    "shortened",
]

AUTO = "attention_mask"
"""The key that tokenisers write and ``mask="auto"`` reads."""

PATCHES = ("pixel_attention_mask", "patch_valid")
"""The keys of masks of patches, in SigLIP 2 of transformers and NaFlexViT of timm."""

DECODER = "decoder_attention_mask"
"""The key of the mask of the second sequence of an encoder-decoder."""

IGNORED = -100
"""The label of a position that no loss counts, such as padding."""

PREFIX = "decoder_"
"""How the keys of that sequence begin."""

Follows: TypeAlias = Literal["source", "target", "other", "unclear"]
"""The sequence of ``attention_mask``, that of the decoder, neither, or one of both."""


@dataclass(frozen=True)
class Sequences:
    """The keys of the sequences in a batch of keyword arguments.

    Attributes
    ----------
    source : tuple of str
        Tensors (B, N, ...) of the sequence of ``attention_mask`` (B, N).
    target : tuple of str
        Tensors (B, M, ...) whose keys begin with ``decoder_``.
    beside : tuple of str
        Those of the source that may be another input of the same length, beside a text: features
        (B, N, D) and their masks, as the regions of images in LXMERT.
    labels : tuple of str
        ``labels`` (B, M). A decoder may shift them to its input; or they label the source.
    has_images : bool
        Whether there are images or other features, which the mask does not cover.
    """

    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    has_images: bool = False
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, batch: Any) -> Sequences:
        """Find the sequences by the keys and the shapes of a batch."""
        if not isinstance(batch, Mapping):
            return cls()
        tensors = {
            str(key): value
            for key, value in batch.items()
            if isinstance(value, Tensor) and not value.is_nested and value.ndim >= 2
        }
        mask = tensors.get(AUTO)
        shape = None if mask is None or mask.ndim != 2 else mask.shape
        target = tuple(key for key in tensors if key.startswith(PREFIX))
        labels = tuple(key for key in tensors if key == "labels" and tensors[key].ndim == 2)
        rest = [key for key in tensors if key not in target + labels]
        source = tuple(key for key in rest if tensors[key].shape[:2] == shape)
        images = any(
            tensors[key].ndim >= 3 or tensors[key].is_floating_point()  # packed patches: (k·B, D)
            for key in rest
            if key not in source
        )
        is_text = "input_ids" in source
        beside = tuple(key for key in source if is_text and _may_be_beside(key, tensors[key]))
        return cls(source, target, labels, images, beside)

    @property
    def are_several(self) -> bool:
        """Whether layers may follow different inputs, one of which has a mask."""
        masked = AUTO in self.source or DECODER in self.target
        return masked and bool(self.target or self.labels or self.has_images or self.beside)


def _may_be_beside(key: str, value: Tensor) -> bool:
    """Whether an input may belong to another sequence than a text of the same length."""
    if value.ndim > 2:
        return value.is_floating_point() and key != "inputs_embeds"
    return key != AUTO and key.endswith(AUTO)


def are_labels_padded(batch: Any) -> bool:
    """Whether the batch has labels (B, M) of which some are -100.

    Parameters
    ----------
    batch : object
        The batch of a model.

    Returns
    -------
    bool
        False if it is no mapping, or has no such labels.
    """
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.is_nested or labels.ndim != 2:
        return False
    return bool((values_of(labels) == IGNORED).any())


def shortened(batch: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return a batch in which these sequences lack their last position.

    Parameters
    ----------
    batch : mapping of str to object
        The batch of a model.
    keys : tuple of str
        The sequences, (B, N, ...).

    Returns
    -------
    dict
        The batch with the other entries as they are.
    """
    return {
        key: value[:, :-1].contiguous() if key in keys else value for key, value in batch.items()
    }


def by_length(batch: Mapping[str, Any], n: int) -> Follows:
    """Tell by its length which sequence n positions are; "unclear" if both have it.

    It is not unclear if the masks of both are equal, or if no position is padding.
    """
    keys = Sequences.of(batch)
    decoders = keys.target or keys.labels
    if not decoders:
        return "source"
    target = batch[DECODER if DECODER in decoders else decoders[0]]
    source = batch[AUTO] if AUTO in keys.source else None
    if target.shape[1] != n or (not keys.target and source is not None):
        return "source"
    if source is None and "input_ids" in batch and batch["input_ids"].shape == target.shape:
        padded = DECODER in keys.target and not bool(values_of(target).all())
        return "unclear" if padded else "source"
    if source is None or source.shape[1] != n:
        return "target"
    if DECODER in keys.target:
        same = values_of(source) == values_of(target)
        return "source" if bool(same.all()) else "unclear"
    return "source" if bool(values_of(source).all()) else "unclear"
