"""A copy of a model with random weights, for the control of an untrained network."""

from __future__ import annotations

import copy
import inspect

import torch
from torch import Tensor, nn

from repsim._errors import InputError
from repsim.analysis._devices import kept_random_state
from repsim.analysis._machine import is_of_the_machine

__all__ = ["untrained_copy"]

METHODS = ("reset_parameters", "_reset_parameters")
"""With which modules of torch initialise their own parameters and statistics."""


def untrained_copy(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy whose parameters are drawn again; the random state is left as it was.

    Modules with ``reset_parameters`` initialise theirs as when they were made. Other parameters are
    drawn from a normal distribution of their own mean and standard deviation.

    Raises
    ------
    InputError
        The model cannot be copied.
    """
    try:
        other = copy.deepcopy(model)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        if is_of_the_machine(error):
            raise
        raise InputError(
            f"stitch: model_x cannot be copied for the control of an untrained network.\n"
            f"  {type(error).__name__}: {str(error)[:200]}\n"
            f"  Pass untrained=, a model of the same layers with random weights, or leave "
            f"'untrained' out of controls."
        ) from error
    with kept_random_state(other), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in other.parameters():
            _redraw(parameter)
        for module in other.modules():
            for name in METHODS:
                method = getattr(module, name, None)
                if callable(method) and _takes_nothing(method):
                    method()
    return other


def _redraw(parameter: Tensor) -> None:
    if not parameter.is_floating_point() or parameter.numel() < 2:
        return
    wide = parameter.float()
    mean, deviation = wide.mean(), wide.std()
    parameter.copy_(torch.randn_like(wide) * deviation + mean)


def _takes_nothing(method: object) -> bool:
    try:
        parameters = inspect.signature(method).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):  # of a class written in C
        return False
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in kinds for p in parameters)
