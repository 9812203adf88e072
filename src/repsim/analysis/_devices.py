"""The devices of a model: where its input goes, and whose random state it may change."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import chain

import torch
from torch import nn

__all__ = ["device_of", "kept_random_state"]


def device_of(model: nn.Module) -> torch.device | None:
    """Return the device on which a model expects its input; None if any will do.

    It is that of the first parameter or buffer that is somewhere. Offloaded weights are nowhere
    (on the meta device) between forwards, and accelerate's hook of the model knows their device.
    """
    declared = getattr(getattr(model, "_hf_hook", None), "execution_device", None)
    if isinstance(declared, int | str | torch.device):
        return torch.device(declared)
    # One by one: the first decides as a rule, and a large model has thousands.
    devices = (tensor.device for tensor in chain(model.parameters(), model.buffers()))
    return next((device for device in devices if device.type != "meta"), None)


def kept_random_state(*models: nn.Module) -> AbstractContextManager[None]:
    """Return a block after which the random state of the CPU and the CUDA devices is as before.

    >>> model, before = nn.Dropout(), torch.get_rng_state()
    >>> with kept_random_state(model):
    ...     _ = model(torch.ones(3))
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    places = {device_of(model) for model in models}
    places |= {weight.device for model in models for weight in model.parameters()}
    numbers = {each.index for each in places if each is not None and each.type == "cuda"}
    return torch.random.fork_rng(devices=[each for each in numbers if each is not None])
