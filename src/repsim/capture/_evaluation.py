"""Evaluation mode, and the way back to the mode in which a model was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from repsim._errors import InputError

__all__ = ["evaluating"]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Keep models in evaluation mode, and restore the flag of every submodule afterwards.

    Some modules do more than to set a flag when their mode changes: they add low-rank weights to
    the others, or put averaged weights in their place. Their own methods undo this.

    Parameters
    ----------
    *models : torch.nn.Module
        The models. A frozen batch norm inside a training model stays frozen.

    Yields
    ------
    None

    Raises
    ------
    InputError
        A model has no evaluation mode.
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            _evaluate(model)
        yield
    finally:
        _restore(flags)


def _evaluate(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError as error:
        raise InputError(
            f"{type(model).__name__}.eval() is not implemented, so the model cannot be put in "
            "evaluation mode.\n"
            "  A module of torch.export is one graph without layers.\n"
            "  Pass the model as it was before torch.export.export, or what torch.export.unflatten "
            "makes of the\n  program, if it was exported in evaluation mode."
        ) from error


def _restore(flags: Sequence[tuple[nn.Module, bool]]) -> None:
    try:
        for module, training in flags:
            # A module comes before those inside it, so each ends in its own mode.
            if module.training != training and type(module).train is not nn.Module.train:
                module.train(training)
    finally:
        for module, training in flags:
            module.training = training
