"""The small networks of the gallery: trained once per build and kept in ``_build``."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))  # for use outside of the build

from _digit_models import CNN, ViT  # noqa: E402
from digits import Digits, load, train  # noqa: E402

KEPT = HERE.parent / "_build" / "digits.pt"
EPOCHS = 8


class Networks(NamedTuple):
    """A ViT and a CNN, trained and untrained, and the digits, as in ``make demo``."""

    vit: nn.Module
    cnn: nn.Module
    untrained_vit: nn.Module
    untrained_cnn: nn.Module
    digits: Digits

    def batches(self, size: int = 128) -> list[Tensor]:
        """Return the held-out images in batches, in random order."""
        order = torch.randperm(len(self.digits.test), generator=torch.Generator().manual_seed(0))
        return list(self.digits.test[order].split(size))


def trained() -> Networks:
    digits = load(seed=0)
    torch.manual_seed(0)
    vit, cnn = ViT(), CNN()
    untrained = copy.deepcopy(vit), copy.deepcopy(cnn)
    if KEPT.is_file():
        states = torch.load(KEPT, weights_only=True)
        vit.load_state_dict(states["vit"])
        cnn.load_state_dict(states["cnn"])
    else:
        train("ViT", vit, digits, lr=2e-3, epochs=EPOCHS, seed=0)
        train("CNN", cnn, digits, lr=3e-3, epochs=EPOCHS, seed=0)
        KEPT.parent.mkdir(exist_ok=True)
        torch.save({"vit": vit.state_dict(), "cnn": cnn.state_dict()}, KEPT)
    return Networks(vit.eval(), cnn.eval(), untrained[0].eval(), untrained[1].eval(), digits)
