"""Modules that permute axes, and the means that are recorded beside whole outputs."""

from __future__ import annotations

import torch
from torch import nn

from repsim.capture import Recorder


class Contiguous(nn.Module):
    def forward(self, x):
        return x.contiguous()


class Permute(nn.Module):
    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(self.axes)


def means(model, x, layers="*"):
    """The mean that is recorded, and the whole output, by layer."""
    with torch.no_grad():
        with Recorder(model, layers, transform="mean") as found:
            model(x)
        with Recorder(model, list(found)) as whole:
            model(x)
    return dict(found), dict(whole)
