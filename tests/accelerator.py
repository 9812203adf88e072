"""An accelerator played by the processor, which counts every read of a value by the host.

Tensors say that they are on CUDA. What torch computes from them is computed in main memory.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PLACE = torch.device("cuda:0")
READS = ("cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__array__")


class Far(torch.Tensor):
    """A tensor on the accelerator; ``near`` is the tensor in main memory."""

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        out = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), dtype=near.dtype, device=PLACE
        )
        out.near = near
        return out

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} was called outside of Accelerator")


def is_device(x):
    return isinstance(x, torch.device) or (isinstance(x, str) and x in ("cpu", "cuda", "cuda:0"))


def _near(x):
    return x.near if isinstance(x, Far) else x


class _Synchronised(TorchDispatchMode):
    """Notes the operations of torch that wait for a value."""

    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        masked = "index" in name and any(
            torch.is_tensor(x) and x.dtype == torch.bool for x in tree_leaves(args)
        )
        if "_local_scalar_dense" in name or "nonzero" in name or masked:
            self.reads.append(name)
        return function(*args, **(kwargs or {}))


class Accelerator(TorchFunctionMode):
    """The context in which tensors can be on the accelerator; ``reads`` names every read."""

    def __init__(self):
        super().__init__()
        self.reads: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        arguments = tree_leaves((args, kwargs))
        given = [x for x in arguments if isinstance(x, Far)]
        asked = [torch.device(x) for x in arguments if is_device(x)]
        if not given and PLACE not in asked:
            return function(*args, **kwargs)
        if function == torch.Tensor.device.__get__:
            return PLACE
        to_host = any(each.type == "cpu" for each in asked) or function.__name__ in READS
        if given and to_host:
            self.reads.append(function.__name__)
        near = tree_map(lambda x: "cpu" if is_device(x) else _near(x), (args, kwargs))
        with _Synchronised(self.reads):
            out = function(*near[0], **near[1])
        if given and to_host:
            return out
        mine = {id(x.near): x for x in given}  # an operation in place returns its argument

        def far(x):
            return mine[id(x)] if id(x) in mine else Far(x) if torch.is_tensor(x) else x

        return tree_map(far, out)


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """Move a module to the accelerator, in place, and return it."""
    for each in module.modules():
        for name, value in list(each.named_parameters(recurse=False)):
            setattr(each, name, torch.nn.Parameter(Far(value.detach()), requires_grad=False))
        for name, value in list(each.named_buffers(recurse=False)):
            each.register_buffer(name, Far(value))
    return module
