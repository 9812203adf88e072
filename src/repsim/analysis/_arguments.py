"""The arguments that all analyses share: models, functions of the caller, names, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any

from torch import nn
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from repsim._errors import InputError
from repsim._options import got, require_bool, require_callable, require_text
from repsim.capture import kind_of

__all__ = ["check_arguments", "seeded", "shuffles"]


def check_arguments(
    operation: str,
    models: Mapping[str, object],
    name: object,
    progress: object,
    **functions: Callable[..., object] | None,
) -> None:
    """Raise if one of them has another type.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    models : mapping of str to object
        The models, by argument.
    name : object
        A name, or the names of two models; None if there are none.
    progress : object
        Whether to show a progress bar.
    **functions : callable or None
        Functions of the caller, by argument.
    """
    for argument, model in models.items():
        if not isinstance(model, nn.Module):
            raise InputError(
                f"{operation}: {argument} must be a torch.nn.Module.\n  got {kind_of(model)}"
                f"{_hint(argument, model)}"
            )
    require_callable(operation, **functions)
    if name is not None and "model_y" in models:
        _check_names(operation, name)
    else:
        require_text(operation, name=name)
    require_bool(operation, "progress", progress)


def shuffles(data: object) -> bool:
    """Whether a loader draws its samples at random, by a sampler of samples or of batches."""
    if not isinstance(data, DataLoader):
        return False
    of_batches = getattr(data.batch_sampler, "sampler", None)
    return any(
        isinstance(sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler)
        for sampler in (data.sampler, of_batches)
    )


def seeded(loader: Any) -> bool:
    """Whether a loader that shuffles has a random generator of its own."""
    drawing = (loader, loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    return any(getattr(each, "generator", None) is not None for each in drawing)


def _hint(argument: str, given: object) -> str:
    """Return a last line that says what to pass in the place of what is no model, or nothing."""
    if isinstance(given, str | PathLike):
        return "\n  Load it first, as by timm.create_model or AutoModel.from_pretrained."
    if isinstance(given, type) and issubclass(given, nn.Module):
        return f"\n  Make a model of this class: {given.__name__}(...)."
    if isinstance(given, Mapping):
        return "\n  Load a state dict into its model first: model.load_state_dict(state)."
    if argument == "model_y":
        return "\n  The data go by keyword: data=batches."
    return "\n  The model comes first, before the data." if isinstance(given, Iterable) else ""


def _check_names(operation: str, names: object) -> None:
    """Raise if the names of two models are not two texts."""
    two = isinstance(names, tuple | list) and [type(name) for name in names] == [str, str]
    if not two:
        raise InputError(
            f"{operation}: names must be two strings, for model_x and model_y.\n  got {got(names)}"
        )
