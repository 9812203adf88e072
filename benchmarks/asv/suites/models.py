"""repsim.compare and repsim.attention_distance beside the forward passes that they watch."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

import repsim

from ._ratio import ratio


def forward(model: nn.Module, batches: list[Tensor]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(batch)


class _Vit:
    """timm's vit_tiny on images of 64×64 pixels, with more and more blocks."""

    param_names = ("depth", "batch")
    params = ([1, 4, 12], [8, 32])

    def setup(self, depth: int, batch: int) -> None:
        torch.manual_seed(0)
        self.model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=depth).eval()
        self.batches = [torch.randn(batch, 3, 64, 64) for _ in range(2)]


class Compare(_Vit):
    def _compare(self) -> None:
        repsim.compare(self.model, data=self.batches, progress=False)

    def time_compare(self, depth: int, batch: int) -> None:
        self._compare()

    def peakmem_compare(self, depth: int, batch: int) -> None:
        self._compare()

    def track_ratio_to_forward(self, depth: int, batch: int) -> float:
        return ratio(self._compare, lambda: forward(self.model, self.batches))

    track_ratio_to_forward.unit = "ratio"


class AttentionDistance(_Vit):
    def _distance(self) -> None:
        repsim.attention_distance(self.model, self.batches, progress=False)

    def time_attention_distance(self, depth: int, batch: int) -> None:
        self._distance()

    def peakmem_attention_distance(self, depth: int, batch: int) -> None:
        self._distance()

    def track_ratio_to_forward(self, depth: int, batch: int) -> float:
        return ratio(self._distance, lambda: forward(self.model, self.batches))

    track_ratio_to_forward.unit = "ratio"
