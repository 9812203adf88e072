"""Driving a user's model over a user's data, and leaving both as they were found."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from repsim._errors import InputError

__all__ = ["Forward", "Prepare", "as_found", "batches", "device_of", "run"]

Forward: TypeAlias = Callable[[nn.Module, Any], object]
"""What ``forward=`` accepts: (model, batch), the result is ignored."""

Prepare: TypeAlias = Callable[[Any], Any]
"""What ``prepare_x=`` and ``prepare_y=`` accept: the batch as one model wants it."""


def device_of(model: nn.Module) -> torch.device | None:
    """Return where the model's first parameter or buffer lives; None for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return None


@contextmanager
def as_found(*models: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Run models in evaluation mode; restore flags and random state after.

    The flag of every submodule is restored by itself: a frozen batch norm inside a training model
    must not wake up. Without ``gradients`` no graph is recorded.
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    places = {device_of(model) for model in models}
    cuda = [d.index for d in places if d is not None and d.type == "cuda" and d.index is not None]
    try:
        with torch.random.fork_rng(devices=cuda), torch.set_grad_enabled(gradients):
            for model in models:
                model.eval()
            yield
    finally:
        for module, training in flags:
            module.training = training


def to_device(batch: Any, device: torch.device | None) -> Any:
    """Move every tensor of a batch; containers are rebuilt, everything else passes through."""
    if device is None:
        return batch
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def run(
    operation: str,
    model: nn.Module,
    batch: Any,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
) -> object:
    """Call a model on a batch: a tensor, a tuple led by the input, or a mapping of keywords."""
    if prepare is not None:
        batch = prepare(batch)
    batch = to_device(batch, device_of(model))
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], Tensor):
        return model(batch[0])
    if isinstance(batch, Tensor):
        return model(batch)
    repair = "prepare_x= and prepare_y=" if operation == "compare" else "prepare="
    raise InputError(
        f"{operation}: a batch must be a tensor, a tuple or list whose first item is the input "
        f"tensor, or a mapping of keyword arguments.\n  got {type(batch).__name__}\n"
        f"  Convert it with {repair}, or call the model yourself with "
        f"forward=lambda model, batch: ..."
    )


def batches(
    operation: str,
    data: Iterable[Any] | None,
    *,
    passes: int,
    progress: bool,
    may_be_empty: bool = False,
) -> Iterator[Iterator[Any]]:
    """Yield one iterator over the batches for every pass, under one progress bar.

    Raises
    ------
    InputError
        If ``data`` is a single tensor or mapping, is empty, or can be iterated only once while
        several passes are asked for.
    """
    if isinstance(data, Tensor | Mapping | str) or not isinstance(data, Iterable):
        raise InputError(
            f"{operation}: data must be an iterable of batches.\n  got {type(data).__name__}\n"
            f"  Pass a DataLoader, or a list: data=[batch] for a single batch."
        )
    if passes > 1 and isinstance(data, Iterator):
        raise InputError(
            f"{operation}: data can be iterated only once, and passes={passes}.\n"
            f"  got {type(data).__name__}\n"
            f"  Pass a DataLoader with shuffle=True, or any iterable that starts afresh."
        )
    total = operator.length_hint(data) * passes or None  # a streaming loader has no length
    with tqdm(total=total, unit="batch", desc=operation, disable=not progress) as bar:
        for number in range(passes):
            seen = 0

            def one_pass() -> Iterator[Any]:
                nonlocal seen
                for batch in data:
                    yield batch
                    seen += 1
                    bar.update()

            yield one_pass()
            if not seen and not may_be_empty:
                raise InputError(
                    f"{operation}: data gave no batch in pass {number + 1}.\n"
                    f"  Is the folder empty, or drop_last=True with fewer samples than a batch?"
                )
