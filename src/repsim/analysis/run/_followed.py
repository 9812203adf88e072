"""Finding by evidence which sequence of a batch each layer follows: forwards of shorter ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from repsim.analysis.run._cut_runs import BatchRefusedError, input_of, on_accelerator, refusing
from repsim.analysis.run._drive import Batch, Forward
from repsim.analysis.run._kept_state import kept_state
from repsim.capture import (
    AUTO,
    Follows,
    Masks,
    Sequences,
    are_labels_padded,
    named_layers,
    rebuilt,
    series_of,
    shortened,
    tensors_in,
    text_of,
    unwrap,
)
from repsim.capture.samples import cut, have_one_size, uncut_indices

__all__ = ["learn_sequences"]

FEW = 2
"""Samples in each forward."""

_Shapes: TypeAlias = dict[tuple[str, int], tuple[int, ...]]


def learn_sequences(
    masks: Sequence[Masks], batch: Batch, model: nn.Module, forward: Forward | None = None
) -> None:
    """Tell masks that are found automatically which sequence each layer of a model follows.

    If a batch has several inputs, or the model may have as many learned queries as the batch has
    tokens, the model runs up to four times on two of its samples: as they are, without the last
    position of the masked sequence, and without the last one of the decoder's. A layer follows the
    sequence that changes the shape of its output.

    If a batch has texts or series and no mask, the masks learn whether the model pads them itself.
    They warn where positions are read.

    Parameters
    ----------
    masks : sequence of Masks
        Those of the model.
    batch : Batch
        The first batch, prepared for the model.
    model : torch.nn.Module
        The model, in evaluation mode.
    forward : callable, optional
        How it is called.
    """
    asking = [each for each in masks if each.is_auto]
    if asking and _has_no_mask(batch.value):
        problem = _own_padding(batch, model, forward)
        for each in asking:
            each.padded_by_model = problem
    sequences = Sequences.of(batch.value)
    alone = not (sequences.are_several or are_labels_padded(batch.value))
    if not asking or (alone and not _may_have_queries(model, batch.value)):
        return
    keys = sequences.source + sequences.target + sequences.labels
    n = next(batch.value[key].shape[0] for key in keys)
    packed = have_one_size(batch.value, n)
    if on_accelerator(model) and uncut_indices(batch.value, n, packed=packed):
        return  # an index beyond what is left would end the process's use of an accelerator
    small = cut(batch.value, n, FEW, packed=packed)

    def shapes(without: tuple[str, ...] = ()) -> _Shapes | None:
        if any(small[key].shape[1] < 2 for key in without):
            return None
        return _shapes(replace(batch, value=shortened(small, without)), model, forward)

    follows = _followed(sequences, shapes, alone=alone)
    for each in asking:
        each.learn(follows)


def _may_have_queries(model: nn.Module, batch: Any) -> bool:
    """Whether learned queries, as those of Perceiver, may be as many as the masked positions."""
    mask = batch.get(AUTO) if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return False
    return any(
        p.ndim in (2, 3) and p.shape[-2] == mask.shape[1] and not name.endswith("weight")
        for name, p in model.named_parameters()
    )


def _followed(
    sequences: Sequences, shapes: Callable[..., _Shapes | None], *, alone: bool
) -> dict[tuple[str, int], Follows]:
    """Compare the shapes in forwards with and without the last position of each sequence."""
    whole, source = shapes(), None
    target_keys = sequences.target if sequences.source else sequences.target + sequences.labels
    if sequences.source:
        if sequences.beside:
            source = shapes(tuple(k for k in sequences.source if k not in sequences.beside))
        if source is None:  # the model needs all of them in one length
            source = shapes(sequences.source)
        if source is not None:
            target_keys += sequences.labels
        elif sequences.labels:  # the labels may be those of the source
            source = shapes(sequences.source + sequences.labels)
    others = sequences.has_images or sequences.beside
    if whole is None or not (target_keys or others or alone):
        return {}
    target = shapes(target_keys) if target_keys else None
    all_known = (source is not None or not sequences.source) and (
        target is not None or not target_keys
    )
    follows: dict[tuple[str, int], Follows] = {}
    for key, shape in whole.items():
        if target is not None and target.get(key, shape) != shape:
            follows[key] = "target"
        elif source is not None and source.get(key, shape) != shape:
            follows[key] = "source"
        elif all_known:
            follows[key] = "other"
    return follows


def _shapes(batch: Batch, model: nn.Module, forward: Forward | None) -> _Shapes | None:
    """Return the shape of each output in a forward; None if the model refuses the batch."""
    found: _Shapes = {}
    calls: Counter[str] = Counter()

    def note(name: str, output: Tensor | None) -> None:
        call = calls[name]
        calls[name] += 1
        if output is not None:
            found[name, call] = tuple(output.shape)

    return found if _runs(batch, model, forward, note) else None


def _has_no_mask(batch: Any) -> bool:
    return not isinstance(batch, Mapping) or batch.get(AUTO) is None


def _own_padding(batch: Batch, model: nn.Module, forward: Forward | None) -> str | None:
    """Say where a model pads texts to a multiple of its window, as Longformer; None if it does not.

    A layer has then more positions than a text. Another forward tells whether they are padding.
    """
    ids = text_of(input_of(batch.value, forward))
    if ids is None:
        return _padding_of_series(batch, model, forward)
    if ids.shape[1] < 2:
        return None
    n_samples, n = ids.shape
    if on_accelerator(model) and uncut_indices(batch.value, n_samples, packed=False):
        return None
    small = cut(batch.value, n_samples, FEW)

    def without_last(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return rebuilt(value, without_last)
        follows = not value.is_nested and value.shape[:2] == (FEW, n)
        return value[:, :-1].contiguous() if follows else value

    longer = _tokens_of(replace(batch, value=small), model, forward, longer_than=n)
    if longer is None:
        return None
    layer, whole = longer
    shorter = replace(batch, value=without_last(small))
    less = _tokens_of(shorter, model, forward, layer=layer)
    if less is None or not _is_padded(whole, less[1], n):
        return None
    return (
        f"the model pads the texts itself, so its padding counts.\n"
        f"  layer {layer!r} has {whole.shape[1]} positions for {n} tokens, and there is no {AUTO}\n"
        f"  Let the tokeniser pad the texts to {whole.shape[1]} tokens (pad_to_multiple_of=), and "
        f"put its {AUTO} into the batch.\n  mask=None says that all positions are real."
    )


def _padding_of_series(batch: Batch, model: nn.Module, forward: Forward | None) -> str | None:
    """Say where a model pads series of one length, as TimesFM; None if it does not.

    A module of the model is then given the series with a constant before or after them.
    """
    series = series_of(input_of(batch.value, forward))
    if series is None or len(series) < FEW or len({len(x) for x in series}) > 1:
        return None  # series of other lengths give a warning of their own
    if on_accelerator(model) and uncut_indices(batch.value, len(series), packed=False):
        return None
    n, given = len(series[0]), torch.stack(series[:FEW])
    found: list[tuple[str, int]] = []

    def look(name: str, arguments: object) -> None:
        for x in tensors_in(arguments):
            if not found and not x.is_nested and x.ndim == 2 and _is_longer(x, given):
                found.append((name or "the model", int(x.shape[1])))

    small = replace(batch, value=cut(batch.value, len(series), FEW))
    with ExitStack() as stack:
        for name, module in {"": unwrap(model), **named_layers(model)}.items():
            hook = partial(_on_arguments, partial(look, name))
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        _runs(small, model, forward, lambda _name, _output: None)
    if not found:
        return None
    return (
        f"the model pads the series itself, so its padding counts.\n"
        f"  {found[0][0]!r} is given {found[0][1]} values for {n}, and there is no {AUTO}\n"
        f"  Pass series of {found[0][1]} values, mask=lambda batch: a tensor (samples, positions) "
        f"that is true where\n  a position is real, or mask=None."
    )


def _on_arguments(look: Callable[[object], None], _module: nn.Module, *given: object) -> None:
    look(given)


def _is_longer(x: Tensor, series: Tensor) -> bool:
    """Whether rows are series, scaled and shifted maybe, beside a constant."""
    more, n = x.shape[1] - series.shape[1], series.shape[1]
    if more < 2 or len(x) != len(series) or not x.is_floating_point() or n < 3:
        return False
    known = _standard(series.to(x))
    for part, rest in ((x[:, more:], x[:, :more]), (x[:, :n], x[:, n:])):
        if bool((rest == rest[:, :1]).all()) and torch.allclose(_standard(part), known, atol=1e-3):
            return True
    return False


def _standard(x: Tensor) -> Tensor:
    x = x - x.mean(1, keepdim=True)
    return x / x.square().mean(1, keepdim=True).sqrt()


def _tokens_of(
    batch: Batch,
    model: nn.Module,
    forward: Forward | None,
    *,
    layer: str | None = None,
    longer_than: int = 0,
) -> tuple[str, Tensor] | None:
    """Return the first layer, or this one, that has more than this many tokens, and its output."""
    found: list[tuple[str, Tensor]] = []

    def note(name: str, output: Tensor | None) -> None:
        if found or output is None or output.ndim != 3 or not output.is_floating_point():
            return
        if layer in (None, name) and output.shape[0] == FEW and output.shape[1] > longer_than:
            found.append((name, output.detach().clone()))

    return found[0] if _runs(batch, model, forward, note) and found else None


def _is_padded(whole: Tensor, less: Tensor, n: int) -> bool:
    """Whether a layer with more positions than the n tokens of a text pads it.

    ``less`` is the layer's output without the last token. If the other n - 1 tokens fill the
    window, it has n - 1 positions. Otherwise it has the same length as ``whole``, and differs from
    it at the place of the last token alone. Learned queries differ at all places. A layer with a
    prompt before the text has one position less than ``whole``.
    """
    if less.shape != whole.shape:
        return less.shape[1] == n - 1
    change = (whole - less).abs().amax((0, 2))
    return (change > 1e-5 * change.max()).nonzero().flatten().tolist() == [n - 1]


def _runs(
    batch: Batch,
    model: nn.Module,
    forward: Forward | None,
    note: Callable[[str, Tensor | None], None],
) -> bool:
    """Run a forward and note each output by the name of its module; False if it is refused."""

    def noting(name: str) -> Callable[..., None]:
        def look(_module: nn.Module, _args: Any, output: object) -> None:
            tensor = next(tensors_in(output), None)
            note(name, None if tensor is None or tensor.is_nested else tensor)

        return look

    with ExitStack() as stack:
        stack.enter_context(kept_state(model))
        for name, module in {"": unwrap(model), **named_layers(model)}.items():
            stack.callback(module.register_forward_hook(noting(name)).remove)
        try:
            with refusing("a shorter sequence, to find which layers follow it"):
                batch.run(model, forward=forward)
        except BatchRefusedError:
            return False
    return True
