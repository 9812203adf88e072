"""Which positions of a batch are real and not padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from repsim._errors import InputError, LayerNotFoundError, warn
from repsim._options import got
from repsim.capture._near import carried, remember, values_of
from repsim.capture._output import UnusableOutput
from repsim.capture._sequences import (
    AUTO,
    DECODER,
    PATCHES,
    Follows,
    are_labels_padded,
    by_length,
)
from repsim.capture._unmasked import lengths_of_series, unread_padding
from repsim.capture.layers._patterns import matching

__all__ = ["MaskOption", "Masks"]

MaskOption: TypeAlias = str | Callable[[Any], Tensor | None] | Mapping[str, str | None] | None
"""Types of ``mask=``: "auto", a key of the batch, keys by layer, a function of the batch."""

OF_OTHER_POSITIONS = (
    'mask={"text_model*": "attention_mask"}: keys of the batch by name or glob of layers; all '
    "others\n  have no padding. Or mask=function of the batch, for positions such as frames. Or "
    "mask=None."
)
"""What to pass where the positions of a layer are not those of the mask."""


class Masks:
    """The masks of one batch after another, (B, N), true where a token is real.

    Parameters
    ----------
    operation : str
        For error messages.
    mask : {"auto"}, str, mapping of layer to str or None, callable or None
        "auto": ``attention_mask`` if the batch is a mapping that has it, else a mask of patches,
        and ``decoder_attention_mask`` for layers that follow the decoder's sequence. Another
        string: that key of the batch. A mapping from layer names or globs to keys, for models with
        several sequences; layers without a key, or with None, have no mask. A callable: it gets the
        batch of the model and returns the mask. None: all positions are real.

    Attributes
    ----------
    padded_by_model : str or None
        The text of a warning, if the model pads texts or series itself. It is given if "auto" finds
        no mask.

    Raises
    ------
    InputError
        `mask` is none of these; a batch lacks the key; a mask has another shape.
    """

    def __init__(self, operation: str, mask: MaskOption) -> None:
        keys = list(mask.values()) if isinstance(mask, Mapping) else []
        known = mask is None or isinstance(mask, str | Mapping) or callable(mask)
        if not known or not all(key is None or isinstance(key, str) for key in keys):
            raise InputError(
                f"{operation}: mask must say which positions are real.\n"
                f"  expected 'auto', a key of the batch, a mapping from layer to key, a function "
                f"of the batch, or None\n"
                f"  got {got(mask)}"
            )
        self._operation = operation
        self._mask = mask
        self._batch: Any = None
        self._found: dict[object, tuple[Tensor | None, int]] = {}
        self._used: set[str] = set()
        self._follows: dict[tuple[str, int], Follows] = {}
        self.padded_by_model: str | None = None
        self._warned = self._warned_of_pairs = self._warned_of_lengths = self._looked = False

    @property
    def is_auto(self) -> bool:
        """Whether the mask of a layer is found by what the layer follows."""
        return isinstance(self._mask, str) and self._mask == "auto"

    @property
    def are_of_patches(self) -> bool:
        """Whether "auto" takes the mask of the patches of images in this batch."""
        if not self.is_auto or not isinstance(self._batch, Mapping) or AUTO in self._batch:
            return False
        return any(_has(self._batch, key) for key in PATCHES)

    def learn(self, follows: Mapping[tuple[str, int], Follows]) -> None:
        """Let evidence say which sequence each call of a layer follows."""
        self._follows = dict(follows)

    @property
    def by_layer(self) -> bool:
        """Whether layers of one forward may have different masks."""
        return isinstance(self._mask, Mapping)

    def start(self, batch: Any) -> None:
        """Start the next batch, in the form that the model gets."""
        self._batch = batch
        self._found.clear()

    def of(self, layer: str, shape: tuple[int, ...], call: int = 0) -> Tensor | None:
        """Return the mask of a layer's positions in this batch; None if no mask is requested.

        Parameters
        ----------
        layer : str
            Its name.
        shape : tuple of int
            Samples and positions of its output, (B, N). The mask may have another shape.
        call : int, default 0
            Which call of the layer in this forward.

        Raises
        ------
        UnusableOutput
            "auto", and the layer follows another input than the mask, or which it follows is
            unclear.
        """
        follows = self._followed(layer, shape, call)
        if follows in ("other", "unclear"):
            raise self._not_of_mask(layer, shape, follows)
        mask = self._of(layer, follows)[0]
        if mask is None and self.is_auto and len(shape) > 1:
            self._warn_of_lengths(layer, shape)
        return mask

    def of_queries(self, layer: str, shape: tuple[int, int], call: int = 0) -> Tensor | None:
        """Return the mask of the queries of a cross-attention, (B, queries); None if all are real.

        "auto" takes ``decoder_attention_mask``, because ``attention_mask`` is that of the keys. If
        evidence shows that the queries are the text, as where it reads an image, it is the latter.
        """
        learned = self._learned(layer, call) if self.is_auto else "source"
        if learned == "other":
            return None
        mask = self._of(layer, "source" if learned == "source" else "target")[0]
        return mask if mask is not None and tuple(mask.shape) == shape else None

    def name_of(self, layer: str, shape: tuple[int, ...], call: int = 0) -> str:
        """Return a name of a layer's mask in a store: "mask", with its key if keys differ."""
        if isinstance(self._mask, Mapping):
            return f"mask:{self._key_of(layer, self._mask)}"
        return f"mask:{DECODER}" if self._followed(layer, shape, call) == "target" else "mask"

    def is_of_other(self, layer: str, shape: tuple[int, ...], call: int = 0) -> bool:
        """Whether evidence shows that a layer follows another input than the mask."""
        return self._followed(layer, shape, call) == "other"

    def n_padding(self, layer: str, shape: tuple[int, ...], call: int = 0) -> int:
        """Return the number of positions of an output (B, N, ...) that are padding."""
        follows = self._followed(layer, shape, call)
        mask, padding = (None, 0) if follows == "other" else self._of(layer, follows)
        return padding if mask is not None and mask.shape == shape[:2] else 0

    def check_used(self, among: Iterable[Masks] = ()) -> None:
        """Raise a LayerNotFoundError for a pattern that matches no recorded layer.

        Those ``among`` which the same mapping serves too may have used the pattern.
        """
        used = self._used.union(*(each._used for each in among if each._mask is self._mask))
        for pattern in self._mask if isinstance(self._mask, Mapping) else ():
            if pattern not in used:
                raise LayerNotFoundError(
                    f"{self._operation}: mask names {pattern!r}, and no chosen layer is called "
                    f"that."
                )

    def aligned(self, layer: str, tensor: Tensor, name: str, call: int = 0) -> Tensor | None:
        """Return the mask for an output (B, N, ...), on its device; None if all are real.

        Raises
        ------
        UnusableOutput
            The output has another number of positions than the mask.
        """
        mask = self.of(layer, tuple(tensor.shape), call) if tensor.ndim >= 3 else None
        if mask is None:
            return None
        if mask.shape != tensor.shape[:2]:
            raise UnusableOutput(
                f"{self._operation}: the mask does not fit layer {layer!r}.\n"
                f"  it returned: {tuple(tensor.shape)}    mask: {tuple(mask.shape)}\n"
                f"  {name} is over real positions. Pass {OF_OTHER_POSITIONS}",
                brief=f"{tuple(tensor.shape)}: its positions are not those of the mask "
                f"{tuple(mask.shape)}",
                repair=OF_OTHER_POSITIONS,
            )
        return carried(mask, tensor.device)

    def _of(self, layer: str, follows: Follows) -> tuple[Tensor | None, int]:
        mask = self._mask
        if isinstance(mask, Mapping):
            mask = self._key_of(layer, mask)
        elif follows == "target":
            mask = self._of_target(layer)
        if mask is None:
            return None, 0
        if mask not in self._found:  # a batch is read once for all its layers
            self._found[mask] = self._read(mask)
        return self._found[mask]

    def _followed(self, layer: str, shape: tuple[int, ...], call: int) -> Follows:
        """Return which sequence a layer follows: by evidence, else by its length."""
        if not self.is_auto or not isinstance(self._batch, Mapping) or len(shape) < 2:
            return "source"
        found = self._learned(layer, call)
        if found is None:
            return by_length(self._batch, shape[1])
        # A mask that does not fit is an error that says more.
        mask = self._batch.get(AUTO)
        fits = isinstance(mask, Tensor) and tuple(mask.shape) == tuple(shape[:2])
        return "source" if found == "other" and not fits else found

    def _learned(self, layer: str, call: int) -> Follows | None:
        calls = {follows for (name, _), follows in self._follows.items() if name == layer}
        return next(iter(calls)) if len(calls) == 1 else self._follows.get((layer, call))

    def _of_target(self, layer: str) -> str | None:
        """Return the key of the decoder's mask; None if it has none, with a warning."""
        if _has(self._batch, DECODER):
            return DECODER
        labels = are_labels_padded(self._batch)
        if not self._warned and (labels or self._of(layer, "source")[1]):
            self._warned = True
            padded = "labels of -100" if labels else f"{AUTO} with padding"
            warn(
                f"{self._operation}: all positions of the decoder are taken as real, from layer "
                f"{layer!r} on.\n"
                f"  the batch has {padded}, and no {DECODER}\n"
                f"  Add {DECODER} to the batch, or pass mask={{name or glob: key of the batch, or "
                f"None}}."
            )
        return None

    def _warn_of_padding(self, batch: Any) -> None:
        """Warn once if inputs are padded and have no mask; the first batch is looked at."""
        looked, self._looked = self._looked, True
        if not looked and (problem := unread_padding(batch) or self.padded_by_model):
            warn(f"{self._operation}: {problem}")

    def _warn_of_lengths(self, layer: str, shape: tuple[int, ...]) -> None:
        """Warn once if the model pads a list of series: they differ in length."""
        if self._warned_of_lengths or (found := lengths_of_series(self._batch, shape[0])) is None:
            return
        self._warned_of_lengths = True
        warn(
            f"{self._operation}: the samples differ in length, so padding counts.\n"
            f"  series of {found[0]} to {found[1]} values, first seen at layer {layer!r}\n"
            f"  Pass mask=lambda batch: a tensor (samples, positions), or mask=None."
        )

    def _warn_of_pairs(self, shape: tuple[int, ...]) -> None:
        if not self._warned_of_pairs:
            self._warned_of_pairs = True
            warn(
                f"{self._operation}: all positions are taken as real.\n"
                f"  {AUTO} {shape} is of pairs of positions, and does not say which are padding\n"
                f"  Pass mask=lambda batch: a tensor (samples, positions), or mask=None."
            )

    def _not_of_mask(self, layer: str, shape: tuple[int, ...], follows: Follows) -> UnusableOutput:
        shown = tuple(shape)
        source, key = (AUTO, f'"{AUTO}"') if _has(self._batch, AUTO) else ("the source", None)
        why = (
            f"does not follow the sequence of {AUTO}, and has its length by accident"
            if follows == "other"
            else f"has the length of both sequences, that of {source} and that of the decoder"
        )
        names = f'"...encoder*": {key}, "...decoder*": "{DECODER}"'
        names = f"name of a text layer: {key}" if follows == "other" else names
        repair = f"mask={{{names}}}: a key of the batch, or None, by name or glob of layers"
        return UnusableOutput(
            f"{self._operation}: the mask of layer {layer!r} is unclear.\n"
            f"  it returned: {shown}, and {why}\n  Pass {repair}.",
            brief=f"{shown}: {why}",
            repair=repair,
        )

    def _key_of(self, layer: str, keys: Mapping[str, str | None]) -> str | None:
        found = matching([layer], keys)
        self._used.update(found)
        return keys[found[0]] if found else None

    def _read(self, mask: str | Callable[[Any], Tensor | None]) -> tuple[Tensor | None, int]:
        batch = self._batch
        if not isinstance(mask, str):
            found: Any = mask(batch)
        elif isinstance(batch, Mapping) and mask in batch:
            found = batch[mask]
        elif mask == "auto":
            found = batch.get(AUTO) if isinstance(batch, Mapping) else None
            if found is None:
                found = next((batch[key] for key in PATCHES if _has(batch, key)), None)
            if found is None:
                self._warn_of_padding(batch)
            if isinstance(found, Tensor) and found.ndim != 2:
                self._warn_of_pairs(tuple(found.shape))
                return None, 0
        else:
            keys = list(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise InputError(
                f"{self._operation}: mask={mask!r} is not in the batch.\n"
                f"  the batch: {keys}\n"
                f"  Pass a key of it, mask=lambda batch: ..., or mask=None."
            )
        return (None, 0) if found is None else self._checked(found)

    def _checked(self, found: Any) -> tuple[Tensor, int]:
        if not isinstance(found, Tensor) or found.ndim != 2 or found.is_complex():
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"{self._operation}: a mask must be a tensor (samples, positions), true or 1 where "
                f"a position is real.\n  got {got}"
            )
        values = values_of(found)
        if not bool((values >= 0).all()):  # NaN too
            raise InputError(
                f"{self._operation}: a mask must be true or 1 where a position is real, and 0 "
                f"where it is padding.\n"
                f"  got values below 0, or NaN: {tuple(found.shape)} of {found.dtype}\n"
                f"  If the mask is added to scores, pass mask=lambda batch: "
                f"batch[{AUTO!r}] == 0."
            )
        real = found.to(torch.bool)
        near = values.to(torch.bool)
        remember(real, near)
        counts = near.sum(1).tolist()
        if not all(counts):
            empty = counts.index(0)
            raise InputError(
                f"{self._operation}: every sample needs a real position.\n"
                f"  sample {empty} of a batch has none in its mask {tuple(real.shape)}\n"
                f"  Leave empty samples out, or check that 1 means real."
            )
        return real, real.numel() - sum(counts)


def _has(batch: Any, key: str) -> bool:
    found = batch.get(key) if isinstance(batch, Mapping) else None
    return isinstance(found, Tensor) and found.ndim == 2
