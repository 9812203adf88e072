"""Weights and data on the meta device hold no values: errors that name them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from repsim._errors import InputError
from repsim.capture._containers import tensors_in
from repsim.capture.layers._select import listing

__all__ = ["refuse_meta", "refuse_meta_batch"]


@contextmanager
def refuse_meta(operation: str, model: nn.Module) -> Iterator[None]:
    """Raise an InputError in this block if a module runs whose weights hold no values.

    Some functions of torch take such weights and return what was in memory before. Weights that
    tools load when a module runs are there by then.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    model : torch.nn.Module
        The model.

    Yields
    ------
    None
        Hooks are on the modules whose weights hold no values until the block ends.
    """

    def check(module: nn.Module, _args: object) -> None:
        if _is_without_values(module):
            names = [name for name, each in model.named_parameters() if each.is_meta]
            raise InputError(
                f"{operation}: weights of {type(model).__name__} are on the meta device, which "
                f"holds no values.\n"
                f"  they are {listing(names)}\n"
                f"  Load them: model.load_state_dict(state, assign=True), or make the model "
                f"outside of torch.device('meta')."
            )

    with ExitStack() as stack:
        for module in model.modules():
            if _is_without_values(module) and not _is_loaded_late(module):
                stack.callback(module.register_forward_pre_hook(check).remove)
        yield


def refuse_meta_batch(operation: str, batch: Any) -> None:
    """Raise an InputError if a tensor of a batch holds no values.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    batch : object
        Tensors in tuples, lists and mappings.
    """
    if any(tensor.is_meta for tensor in tensors_in(batch)):
        raise InputError(
            f"{operation}: a tensor of the batch is on the meta device, which holds no values.\n"
            f"  Make the data outside of torch.device('meta')."
        )


def _is_without_values(module: nn.Module) -> bool:
    return any(each.is_meta for each in module.parameters(recurse=False))


def _is_loaded_late(module: nn.Module) -> bool:
    """Whether accelerate loads the weights inside the forward, or no hook can be placed."""
    return hasattr(module, "_hf_hook") or isinstance(module, torch.jit.ScriptModule)
