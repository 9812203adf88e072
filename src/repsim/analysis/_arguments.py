"""The arguments that all analyses share: models, functions of the caller, names, progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike

from torch import nn

from repsim._errors import InputError
from repsim._options import got, require_bool, require_callable, require_text
from repsim.capture import kind_of

__all__ = ["check_arguments"]


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
            hint = "\n  The data go by keyword: data=batches." if argument == "model_y" else ""
            if isinstance(model, str | PathLike):
                hint = "\n  Load it first, as by timm.create_model or AutoModel.from_pretrained."
            raise InputError(
                f"{operation}: {argument} must be a torch.nn.Module.\n  got {kind_of(model)}{hint}"
            )
    require_callable(operation, **functions)
    if name is not None and "model_y" in models:
        _check_names(operation, name)
    else:
        require_text(operation, name=name)
    require_bool(operation, "progress", progress)


def _check_names(operation: str, names: object) -> None:
    """Raise if the names of two models are not two texts."""
    two = isinstance(names, tuple | list) and [type(name) for name in names] == [str, str]
    if not two:
        raise InputError(
            f"{operation}: names must be two strings, for model_x and model_y.\n  got {got(names)}"
        )
