"""Calling a model on one batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import InputError, RepsimError
from repsim._options import got
from repsim.analysis._devices import device_of
from repsim.capture import carried, rebuilt, refuse_meta_batch, unwrap
from repsim.capture.samples import own_copy

__all__ = ["Forward", "Prepare", "call_model", "keywords_in", "naming", "prepared_for"]

Forward: TypeAlias = Callable[[nn.Module, Any], object]
"""Type of ``forward=``: a function of (model, batch) whose result is ignored."""

Prepare: TypeAlias = Callable[[Any], Any]
"""Type of ``prepare_x=`` and ``prepare_y=``: a function to the batch for one model."""


OF_TWO_MODELS = ("compare", "head_subset_cka", "stitch")
"""The analyses that prepare a batch for each of two models."""


def to_device(batch: Any, device: torch.device | None) -> Any:
    """Move every tensor of a batch; rebuild containers, and return other values unchanged."""
    if device is None:
        return batch
    if isinstance(batch, Tensor):
        return carried(batch, device)
    return rebuilt(batch, partial(to_device, device=device))


def call_model(
    operation: str,
    model: nn.Module,
    batch: Any,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
) -> object:
    """Call a model on a batch: a tensor, keywords, or a tuple that starts with one of them."""
    batch = prepared_for(operation, model, batch, prepare)
    if forward is not None:
        with naming("forward=", batch):  # no copy: the function may mean to change the batch
            return forward(model, batch)
    batch = own_copy(keywords_in(batch))
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], Tensor):
        batch = batch[0]
    if isinstance(batch, Mapping | Tensor):
        with naming(f"a forward of {type(unwrap(model)).__name__}", batch):
            if isinstance(batch, Tensor):
                return model(batch)
            return _by_keywords(operation, model, batch)
    repair, found = _prepare(operation), type(batch).__name__
    if isinstance(batch, np.ndarray):
        repair += ", for arrays of NumPy by torch.from_numpy"
    elif isinstance(batch, str):
        found, repair = "a text in the place of a batch of texts", f"{repair} by a tokeniser"
    if isinstance(batch, list | tuple) and batch:
        found += f" whose first item is {type(batch[0]).__name__}"
        if isinstance(batch[0], str):
            repair += (
                ", for texts by lambda texts: "
                "tokenizer(list(texts), padding=True, return_tensors='pt')"
            )
        elif isinstance(batch[0], Mapping):
            found += ", as are others"
            repair += ", for mappings of one sample each by torch.utils.data.default_collate"
            if len(batch) == 2 and operation in OF_TWO_MODELS:
                repair += ", for one mapping for each model by lambda two: two[0] and two[1]"
    raise InputError(
        f"{operation}: a batch must be a tensor, a mapping of keyword arguments, or a tuple or "
        f"list whose first item is one of them.\n  got {found}\n"
        f"  Convert it with {repair}, or call the model yourself with "
        f"forward=lambda model, batch: ..."
    )


@contextmanager
def naming(what: str, batch: Any) -> Iterator[None]:
    """Add a note to an error of a model or a function of the caller: which it is, what it got."""
    try:
        yield
    except RepsimError:  # names what it is about
        raise
    except Exception as error:
        error.add_note(f"repsim: in {what}, given {_shown(batch)}")
        raise


def _shown(batch: Any) -> str:
    """Return the shapes and types in a batch."""
    if isinstance(batch, Mapping):
        return ", ".join(f"{key} {got(value)}" for key, value in batch.items())
    if isinstance(batch, list | tuple):
        return f"{type(batch).__name__} of {', '.join(got(each) for each in batch[:4])}"
    return got(batch)


def keywords_in(batch: Any) -> Any:
    """Return the mapping of a batch (mapping, label); any other batch as it is.

    A list of mappings is another batch: it has one for each sample.
    """
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], Mapping):
        return batch if any(isinstance(each, Mapping) for each in batch[1:]) else batch[0]
    return batch


def _by_keywords(operation: str, model: nn.Module, batch: Mapping[str, Any]) -> object:
    """Call a model with a mapping as keyword arguments; raise if it has no such arguments."""
    try:
        return model(**batch)
    except (TypeError, AttributeError) as error:
        lists = [key for key, value in batch.items() if isinstance(value, list | np.ndarray)]
        if lists:  # the model may take them, so the error stays its own
            error.add_note(
                f"repsim: the batch holds lists or NumPy arrays: {', '.join(map(repr, lists))}. A "
                f"tokeniser returns tensors with padding=True, return_tensors='pt'."
            )
        inner = unwrap(model)
        if isinstance(error, AttributeError) or _takes(inner, batch):
            raise
        tensors = (key for key, value in batch.items() if isinstance(value, Tensor))
        raise InputError(
            f"{operation}: a batch that is a mapping is passed as keyword arguments, and "
            f"{type(inner).__name__} does not take these.\n"
            f"  the batch holds {', '.join(map(repr, batch))}\n  {error}\n"
            f"  Convert it with {_prepare(operation)}, for example "
            f"lambda batch: batch[{next(tensors, 'input')!r}]."
        ) from error


def _takes(model: nn.Module, keywords: Mapping[str, Any]) -> bool:
    """Whether the forward of a model has these arguments, and needs no others."""
    try:
        inspect.signature(model.forward).bind(**keywords)
    except TypeError:
        return False
    except ValueError:  # compiled functions have no signature
        return True
    return True


def _prepare(operation: str) -> str:
    return "prepare_x= and prepare_y=" if operation in OF_TWO_MODELS else "prepare="


def prepared_for(operation: str, model: nn.Module, batch: Any, prepare: Prepare | None) -> Any:
    """Return a batch as prepared for a model, on the model's device."""
    if prepare is not None:
        with naming(_prepare(operation), batch):
            batch = prepare(batch)
    refuse_meta_batch(operation, batch)
    return to_device(batch, device_of(model))
