"""Names of the modules of a model, without the wrappers that tools put around them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

__all__ = ["find", "kind_of", "named_layers", "unwrap"]

# Class name → the child that it wraps. Names are used because importing torch.distributed or
# torch._dynamo to compare classes takes seconds.
_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": (
        "_fsdp_wrapped_module"
    ),
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper": (
        "_checkpoint_wrapped_module"
    ),
}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside DDP, FSDP, ``torch.compile`` and wrappers of averaged weights.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2)
    >>> unwrap(torch.nn.DataParallel(net)) is net
    True

    Parameters
    ----------
    model : torch.nn.Module
        A module, with any number of wrappers.

    Returns
    -------
    torch.nn.Module
        The innermost module that is not such a wrapper; `model` itself if it is not wrapped. A
        user's module with a child called ``module`` is not a wrapper.
    """
    while (child := _wrapped_child(model)) is not None:
        model = child
    return model


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Name every submodule of a model except the root and wrappers.

    >>> import torch
    >>> inner = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    >>> list(named_layers(torch.nn.Sequential(inner, torch.nn.ReLU())))
    ['0', '0.0', '1']

    Parameters
    ----------
    model : torch.nn.Module
        The model; wrappers are looked through at the root and at any depth.

    Returns
    -------
    dict of str to torch.nn.Module
        In registration order, without the parametrizations of weights. A module registered under
        several names appears once, under its first. Where a submodule is wrapped, the name leads to
        the module inside.
    """
    root = unwrap(model)
    return dict(_descend(root, prefix="", seen={id(root)}))


def kind_of(value: object) -> str:
    """Name the class of a value that is not a module, and its attribute that is one, for errors.

    >>> import torch
    >>> class Traced:
    ...     def __init__(self):
    ...         self._model = torch.nn.Linear(2, 2)
    >>> print(kind_of(Traced()))
    Traced, whose attribute _model is one: pass that

    Parameters
    ----------
    value : object
        What was passed in place of a module.

    Returns
    -------
    str
        For the end of a line that begins with "got".
    """
    name = type(value).__name__
    if name == "ExportedProgram":
        return f"{name}, which has no layers: pass the model as it was before torch.export"
    held = [key for key, each in getattr(value, "__dict__", {}).items() if _is_module(each)]
    if held:
        return f"{name}, whose attribute {held[0]} is one: pass that"
    return name


def _is_module(value: object) -> bool:
    return isinstance(value, nn.Module)


def find(model: nn.Module, path: str) -> nn.Module | None:
    """Follow a dotted name, including aliases; None if there is no such module."""
    module = unwrap(model)
    for part in path.split("."):
        if part not in module._modules or (child := module._modules[part]) is None:
            return None
        module = unwrap(child)
    return module


def _descend(module: nn.Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    for name, wrapped in module.named_children():
        child = unwrap(wrapped)
        if id(child) in seen or _returns_weights(module, name):
            continue
        seen.add(id(child))
        path = f"{prefix}{name}"
        yield path, child
        yield from _descend(child, f"{path}.", seen)


def _returns_weights(module: nn.Module, name: str) -> bool:
    """Whether a child holds parametrizations: they return a weight, which follows no sample."""
    return name == "parametrizations" and is_parametrized(module)


def _wrapped_child(module: nn.Module) -> nn.Module | None:
    for base in type(module).__mro__:
        if (child := _WRAPPERS.get(f"{base.__module__}.{base.__qualname__}")) is not None:
            return module._modules[child]
    return None
