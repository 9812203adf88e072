"""The comparisons that every package runs, and their reference values.

A case is a pair of models with seeded random weights and a few batches of seeded random images.
The reference is computed in float64 from forward hooks and the formula of the paper. It shares no
code with repsim.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn


class Key(NamedTuple):
    """One representation: the output of the `call`-th call of the module `name` in a forward."""

    name: str
    call: int


@dataclass(frozen=True)
class Case:
    title: str
    models: Callable[[], tuple[nn.Module, nn.Module]]
    image_size: int
    batch_size: int
    layers: tuple[str, ...] | None = None  # of both models; None: all that a forward calls

    def build(self) -> tuple[nn.Module, nn.Module]:
        """Two models in eval mode; the same weights at every call."""
        torch.manual_seed(0)
        model_x, model_y = self.models()
        return model_x.eval(), model_y.eval()

    def wants(self, key: Key) -> bool:
        return self.layers is None or key.name in self.layers

    def batches(self, count: int) -> list[Tensor]:
        """`count` full batches of standard normal images; the same at every call."""
        generator = torch.Generator().manual_seed(1)
        shape = (self.batch_size, 3, self.image_size, self.image_size)
        return [torch.randn(shape, generator=generator) for _ in range(count)]


def _twins() -> tuple[nn.Module, nn.Module]:
    # Two instances, so no package can save a forward pass by recognising one model.
    model = torchvision.models.resnet18()
    return model, copy.deepcopy(model)


def _vit_and_resnet() -> tuple[nn.Module, nn.Module]:
    return timm.create_model("vit_tiny_patch16_224"), torchvision.models.resnet18()


SMALL_VIT_LAYERS = tuple(
    f"blocks.{block}.{name}"
    for block in range(12)
    for name in (
        *("norm1", "attn.qkv", "attn.q_norm", "attn.k_norm", "attn.norm", "attn.proj"),
        *("norm2", "mlp.fc1", "mlp.act", "mlp.fc2"),
    )
)
"""Leaf modules that return ten different tensors a block: nothing is gained by seeing aliases."""


def _small_vits() -> tuple[nn.Module, nn.Module]:
    model = timm.create_model("vit_small_patch16_224", img_size=112)
    return model, copy.deepcopy(model)


CASES = {
    "a": Case("resnet18 with itself (two instances), 64 images of 3×64×64 a batch", _twins, 64, 64),
    "b": Case(
        "vit_tiny_patch16_224 against resnet18, 32 images of 3×224×224 a batch",
        _vit_and_resnet,
        224,
        32,
    ),
    "c": Case(
        "vit_small_patch16_224 with itself (two instances), 120 layers by name, "
        "128 images of 3×112×112 a batch",
        _small_vits,
        112,
        128,
        SMALL_VIT_LAYERS,
    ),
}


@dataclass(frozen=True)
class Reference:
    """Unbiased HSIC of every pair of representations, batch by batch, in float64."""

    keys_x: list[Key]
    keys_y: list[Key]
    xy: np.ndarray  # (batch, layer_x, layer_y)
    xx: np.ndarray  # (batch, layer_x)
    yy: np.ndarray  # (batch, layer_y)

    def cka(self, n_batches: int) -> np.ndarray:
        """Minibatch CKA over the first `n_batches`, which have equal sizes and weights."""
        xy, xx, yy = (h[:n_batches].sum(0) for h in (self.xy, self.xx, self.yy))
        return xy / (np.sqrt(xx)[:, None] * np.sqrt(yy)[None, :])


def hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """HSIC₁ of two Grams, term by term (Song et al. 2012; Nguyen et al. 2021, Eq. 3)."""
    n = len(k)
    k, l = (g - np.diag(np.diag(g)) for g in (k, l))  # noqa: E741
    trace = (k * l).sum()  # tr(KL) of symmetric Grams
    sums = k.sum() * l.sum() / ((n - 1) * (n - 2))
    rows = k.sum(0) @ l.sum(0) * 2 / (n - 2)  # 1ᵀKL1 · 2/(n−2)
    return float((trace + sums - rows) / (n * (n - 3)))


def gram(out: Tensor) -> np.ndarray:
    """Float64 Gram of an output."""
    x = out.detach().to(torch.float64, copy=True).flatten(1)
    x -= x.mean(0)  # moves HSIC₁ only by rounding
    return (x @ x.T).numpy()


def outputs(model: nn.Module, images: Tensor, keep: Callable[[Tensor], Any]) -> dict[Key, Any]:
    """`keep` of every call of every module, made in its hook, before it can be overwritten."""
    found: dict[Key, Any] = {}
    calls: Counter[str] = Counter()
    handles = []
    for name, module in model.named_modules():

        def hook(_module: nn.Module, _args: object, out: Any, name: str = name) -> None:
            if isinstance(out, Tensor) and out.ndim and len(out) == len(images):
                found[Key(name, calls[name])] = keep(out)
            calls[name] += 1

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def reference(case: Case, n_batches: int) -> Reference:
    model_x, model_y = case.build()
    xy, xx, yy = [], [], []
    for images in case.batches(n_batches):
        ks, ls = (
            {key: k for key, k in outputs(model, images, gram).items() if case.wants(key)}
            for model in (model_x, model_y)
        )
        xy.append([[hsic(k, l) for l in ls.values()] for k in ks.values()])  # noqa: E741
        xx.append([hsic(k, k) for k in ks.values()])
        yy.append([hsic(l, l) for l in ls.values()])  # noqa: E741
    return Reference(list(ks), list(ls), np.array(xy), np.array(xx), np.array(yy))


def names_that_ran(keys: list[Key]) -> list[str]:
    """Names of the submodules that a forward calls, without the model itself."""
    return list(dict.fromkeys(key.name for key in keys if key.name))


def locate(labels: list[str], keys: list[Key]) -> list[int]:
    """The position of each label in `keys`.

    `name:k` is the k-th call. A bare `name` is the module's last call: packages that keep one
    output per module keep that one, whichever they may have meant.
    """
    exact = {f"{key.name}:{key.call}": i for i, key in enumerate(keys)}
    last = {key.name: i for i, key in enumerate(keys)}
    return [exact[label] if label in exact else last[label] for label in labels]
