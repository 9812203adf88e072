"""Small models that a command line can name, as in ``cli.tiny_models:vit``; some are odd."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn


def vit() -> nn.Module:
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=24,
        num_heads=3,
        depth=2,
        num_classes=5,
    )


def hf_vit() -> nn.Module:
    import transformers

    return transformers.ViTModel(
        transformers.ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=32,
        )
    )


def torchvision_swin() -> nn.Module:
    import torchvision

    return torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=5)


def cnn() -> nn.Module:
    """No attention, no skip, and no stated image size."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 5),
    )


def grey() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def wide(width: int) -> nn.Module:
    return nn.Linear(6, width)


ready = nn.Linear(6, 4)  # drawn where the module is imported


def number() -> int:
    return 3


def chatty() -> nn.Module:
    print("a line on standard output")
    return mlp()


def bert() -> nn.Module:
    import transformers

    return transformers.BertModel(
        transformers.BertConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            vocab_size=20,
        )
    )


def encoder() -> nn.Module:
    """Attention between rows whose places are unknown."""
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)


class Seeing(nn.Module):
    """Keeps each input in the folder ``SEEN`` as the model gets it, and where it lies in memory."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 4:  # no batch: the samples are being found
            return x
        folder = Path(os.environ["SEEN"])
        torch.save((x, x.data_ptr()), folder / f"{len(list(folder.iterdir())):03}.pt")
        return x


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).float()


def seeing() -> nn.Module:
    return nn.Sequential(Seeing(), Flat())


def seeing_grey() -> nn.Module:
    return nn.Sequential(Seeing(), nn.Conv2d(1, 4, 3))


def crooked() -> nn.Module:
    """A model that states two means for three channels: its images cannot be prepared."""
    model = seeing()
    model.pretrained_cfg = {"input_size": (3, 8, 8), "mean": (0.0, 0.0), "std": (1.0, 1.0)}
    return model


class Counted(nn.Module):
    """A layer that writes a line for each of its forwards, and sends a signal in a given one.

    ``COUNTED`` is the file; ``STOP_AT`` the forward (from 1) in which the process gets the signal
    ``SIGNAL``, SIGINT unless told otherwise; ``SLOW`` the seconds that each forward takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 4:  # no batch: the samples are being found
            return self.inner(x)
        file = Path(os.environ["COUNTED"])
        with file.open("a") as out:
            out.write("forward\n")
        time.sleep(float(os.environ.get("SLOW", 0)))
        if os.environ.get("STOP_AT") == str(len(file.read_text().splitlines())):
            signal.raise_signal(signal.Signals[os.environ.get("SIGNAL", "SIGINT")])
        return self.inner(x)


def counted() -> nn.Module:
    return nn.Sequential(Counted(), nn.ReLU())


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


def broken() -> nn.Module:
    return nn.Sequential(Broken(), nn.Linear(6, 4))


def raising() -> nn.Module:
    raise ZeroDivisionError("no such luck")


def changing() -> nn.Module:
    """The same name with other weights, which a checkpoint must notice."""
    model = mlp()
    with torch.no_grad():
        model[0].weight.mul_(float(os.environ.get("FACTOR", 1)))
    return model


NAMES = ("\x1b]0;X\x07\x1b[31mred", "line\nline", "\udcff", "\u202eright", "caf\u00e9", "\x7f\x9b")


class Strange(nn.Module):
    """Layers whose names contain control sequences of a terminal."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self._modules[name] = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            x = layer(x)
        return x


def strange() -> nn.Module:
    return Strange()


def constant() -> nn.Module:
    """A layer without variance, whose name contains control sequences of a terminal."""
    model = Strange()
    nn.init.zeros_(model._modules[NAMES[0]].weight)
    return model


def ending() -> nn.Module:
    raise SystemExit(7)


class Ending(Strange):
    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit


def ending_late() -> nn.Module:
    return Ending()
