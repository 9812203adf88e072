"""Models by training step: which passes they need, and loading them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from torch import nn

from repsim._errors import InputError
from repsim._options import got
from repsim.capture import kind_of

__all__ = ["Checkpoint", "checked_steps", "loaded", "of_steps", "rounds_of"]

Checkpoint: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A model, or a function without arguments that loads it."""


def checked_steps(checkpoints: object) -> list[float]:
    """Return the steps in ascending order, or raise if the mapping is unusable."""
    if not isinstance(checkpoints, Mapping) or not checkpoints:
        raise InputError(
            f"trajectory: checkpoints must map training steps to models, one or more.\n"
            f"  got {checkpoints if isinstance(checkpoints, Mapping) else got(checkpoints)}\n"
            "  Pass checkpoints={0: untrained, 1000: model}."
        )
    for step, checkpoint in checkpoints.items():
        if isinstance(step, bool) or not isinstance(step, Real) or not isfinite(step):
            raise InputError(
                f"trajectory: the keys of checkpoints must be finite numbers, the steps.\n"
                f"  got {got(step)}\n  Use the step, the epoch or the number of tokens."
            )
        if not callable(checkpoint):
            raise InputError(
                f"trajectory: checkpoints[{step}] must be a torch.nn.Module, or a function that "
                f"loads one.\n  got {kind_of(checkpoint)}\n"
                f"  For a file of weights pass a function that builds the model and loads them."
            )
    listed = list(checkpoints.values())
    for step, model in checkpoints.items():
        if isinstance(model, nn.Module) and sum(_is_same(model, other) for other in listed) > 1:
            raise InputError(
                f"trajectory: one model stands at several steps, for example at {step}.\n"
                f"  Keep a copy of each step: copy.deepcopy(model)."
            )
    return sorted(checkpoints)


def _is_same(model: nn.Module, other: object) -> bool:
    """Whether two modules are one, or wrappers that share all parameters and buffers."""
    if model is other or not isinstance(other, nn.Module):
        return model is other
    mine, theirs = ([*each.parameters(), *each.buffers()] for each in (model, other))
    shared = len(mine) == len(theirs) and all(a is b for a, b in zip(mine, theirs, strict=True))
    return bool(mine) and shared


def of_steps(steps: Sequence[float]) -> np.ndarray[Any, Any]:
    """Return steps as a coordinate that files hold: float64 for integers beyond 32 bits."""
    values = np.asarray(steps)
    return values if np.abs(values).max() <= np.iinfo(np.int32).max else values.astype(np.float64)


def rounds_of(checkpoints: Mapping[float, Checkpoint], steps: Sequence[float]) -> list[list[float]]:
    """Return the steps of each pass: all models together, then one for each function."""
    there = [step for step in steps if isinstance(checkpoints[step], nn.Module)]
    return [*([there] if there else []), *([step] for step in steps if step not in there)]


def loaded(
    checkpoints: Mapping[float, Checkpoint],
    steps: Sequence[float],
    known: Mapping[float | None, nn.Module] | None = None,
) -> dict[float, nn.Module]:
    """Return the models of these steps; a function is called unless its model is known."""
    models = dict(known or {})
    for step in steps:
        if step in models:
            continue
        checkpoint = checkpoints[step]
        model = checkpoint if isinstance(checkpoint, nn.Module) else checkpoint()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"trajectory: the function at checkpoints[{step}] must return a torch.nn.Module.\n"
                f"  got {kind_of(model)}"
            )
        if model is not checkpoint and any(_is_same(model, other) for other in models.values()):
            raise InputError(
                f"trajectory: the function at checkpoints[{step}] returned a model that was "
                f"returned before. The model now has the weights of this step alone.\n"
                f"  Build a new model in each call, or return copy.deepcopy(model)."
            )
        models[step] = model
    return {step: models[step] for step in steps}
