"""A plan of a comparison over a large data set: bytes, operations and time per layer.

    python benchmarks/plan.py                                        # print the tables
    python benchmarks/plan.py --device cuda --processes 8            # for eight of this GPU
    python benchmarks/plan.py --x torchvision:resnet18 --y timm:vit_tiny_patch16_224 --batch 256
    python benchmarks/plan.py --json plan.json --write docs/imagenet-scale.md

Bytes and operations follow from the shapes of the layers in one forward of two images. Times are
these operations divided by rates that are measured here: images a second of each model, Grams of
several widths, products of all layer pairs, and the disk. docs/imagenet-scale.md says how to read
the tables. Rates count only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from array_api_compat import array_namespace
from torch import Tensor, nn

import repsim
from _output import hand_out, parser_of
from repsim.kernels import Linear
from repsim.streaming import pair_products

START, END = "<!-- plan:start -->", "<!-- plan:end -->"
WIDTHS = (1_000, 10_000, 100_000)
"""Features of the Grams that are timed; layers between two of them are interpolated."""


@dataclass(frozen=True)
class Layer:
    """One output: its numbers for one image, and its tensor, which layers may share."""

    name: str
    features: int
    tensor: int


@dataclass
class Rates:
    """The measured rates of the machine."""

    images: dict[str, float]  # by model, a second
    gram: dict[int, float]  # by width, multiply-adds a second
    pairs: float  # multiply-adds a second
    write: float  # bytes a second
    read: float

    def gram_seconds(self, n: int, features: int) -> float:
        """Of one layer and batch: n²p multiply-adds at the rate of this width."""
        widths = sorted(self.gram)
        rate = np.interp(np.log(features), np.log(widths), [self.gram[w] for w in widths])
        return n * n * features / float(rate)


def build(name: str) -> nn.Module:
    """A model with random weights."""
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    if library == "timm":
        import timm

        return timm.create_model(model, pretrained=False).eval()
    import torchvision

    return torchvision.models.get_model(model, weights=None).eval()


def layers_of(model: nn.Module, images: Tensor, pattern: str) -> list[Layer]:
    """The outputs of one forward in execution order."""
    seen: dict[tuple[int, int], int] = {}
    keep: list[Tensor] = []  # alive, so no address is used twice

    def shape(tensor: Tensor) -> Tensor:
        where = (tensor.data_ptr(), tensor._version)
        keep.append(tensor)
        return torch.tensor([tensor.numel() // len(tensor), seen.setdefault(where, len(seen))])

    with torch.no_grad(), repsim.Recorder(model, pattern, transform=shape) as recorder:
        model(images)
    return [Layer(name, int(found[0]), int(found[1])) for name, found in recorder.items()]


def rate(work: float, function: Callable[[], object], device: str, repeats: int = 3) -> float:
    """Work a second: the median of several runs after a first."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return work / statistics.median(seconds[1:])


def measure(
    models: dict[str, nn.Module], images: Tensor, batch: int, n_layers: int, device: str
) -> Rates:
    rates = Rates({}, {}, 0.0, 0.0, 0.0)
    with torch.no_grad():
        for name, model in models.items():
            rates.images[name] = rate(len(images), lambda model=model: model(images), device)
        for width in WIDTHS:
            x = torch.randn(batch, width, device=device)
            rates.gram[width] = rate(
                batch * batch * width, lambda x=x: Linear().gram(x), device, repeats=2
            )
            del x
        rates.pairs = pair_rate(min(n_layers, 64), batch, device)
    rates.write, rates.read = disk()
    return rates


def pair_rate(rows: int, batch: int, device: str) -> float:
    """Multiply-adds a second of the products of all pairs of U-centred Grams."""
    flat = torch.randn(rows, batch * batch, device=device)
    xp = array_namespace(flat)
    work = rows * rows * batch * batch
    return rate(work, lambda: pair_products(xp, flat, flat), device, repeats=2)


def disk(size: int = 1 << 28) -> tuple[float, float]:
    """Bytes a second of synced writing by extract, and of reading blocks of rows."""
    features, n = 4096, size // (4 * 4096)
    with tempfile.TemporaryDirectory() as folder:
        model = nn.Identity()
        data = [torch.randn(512, features) for _ in range(n // 512)]
        start = time.perf_counter()
        stored = repsim.extract(
            nn.Sequential(model), data, "0", out=Path(folder) / "run.zarr", progress=False
        )
        write = n * features * 4 / (time.perf_counter() - start)
        array = stored["0"]
        start = time.perf_counter()
        for row in range(0, n, 1024):
            array[row : row + 1024].to_numpy()
        return write, n * features * 4 / (time.perf_counter() - start)


def plan(
    layers: dict[str, list[Layer]], rates: Rates, batch: int, samples: int, processes: int
) -> dict:
    """Totals, and seconds of every layer, for one of these processes."""
    batches = samples / processes / batch
    # A tensor that several layers return is processed once.
    each = [list({layer.tensor: layer for layer in side}.values()) for side in layers.values()]
    own = [layer for side in each for layer in side]
    x, y = map(len, each)
    all_x, all_y = map(len, layers.values())
    features = sum(layer.features for layer in own)
    return {
        "images": samples / processes,
        "forward_s": sum(samples / processes / speed for speed in rates.images.values()),
        "gram_macs": batch * features,  # for an image
        "gram_s": batches * sum(rates.gram_seconds(batch, layer.features) for layer in own),
        "pair_macs": batch * (x * y + x + y),
        "pair_s": batches * batch**2 * (x * y + x + y) / rates.pairs,
        "gram_bytes": 2 * 4 * batch**2 * (x + y),  # as made, and centred
        "state_bytes": 8 * 128 * (all_x * all_y + all_x + all_y),
        "reduce_bytes": 8 * 128 * (all_x * all_y + all_x + all_y) * processes,
        "store_bytes": 4 * samples * features,
        "write_s": 4 * samples / processes * features / rates.write,
    }


def per_layer(layer: Layer, rates: Rates, batch: int, samples: int, processes: int) -> list[str]:
    seconds = samples / processes / batch * rates.gram_seconds(batch, layer.features)
    return [
        f"`{layer.name}`",
        f"{layer.features:,}",
        size(4 * batch * layer.features),
        f"{batch * layer.features / 1e9:.3g}",
        duration(seconds),
        size(4 * samples * layer.features),
    ]


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


def report(layers: dict[str, list[Layer]], rates: Rates, options: argparse.Namespace) -> str:
    n, samples, processes = options.batch, options.samples, options.processes
    chosen = {
        name: [layer for layer in side if re.fullmatch(options.some, layer.name)]
        for name, side in layers.items()
    }
    lines = [
        f"{machine(options.device)}; torch {torch.__version__}. Images a second: "
        + ", ".join(f"{name} {speed:.3g}" for name, speed in rates.images.items())
        + ". Grams, 10⁹ multiply-adds a second: "
        + ", ".join(f"{speed / 1e9:.3g} at p = {width:,}" for width, speed in rates.gram.items())
        + f"; pair products {rates.pairs / 1e9:.3g}. Store: written {rates.write / 1e6:.3g} MB/s, "
        f"read {rates.read / 1e6:.3g} MB/s.",
        "",
        f"{samples:,} images over {processes} such processes, batches of {n}:",
        "",
        "| | all layers | some layers |",
        "|---|--:|--:|",
    ]
    both = [plan(side, rates, n, samples, processes) for side in (layers, chosen)]
    counts = [" × ".join(str(len(side)) for side in each.values()) for each in (layers, chosen)]
    rows: list[tuple[str, Callable[[dict], str]]] = [
        ("forward passes", lambda p: duration(p["forward_s"])),
        ("Grams, 10⁹ multiply-adds an image", lambda p: f"{p['gram_macs'] / 1e9:.3g}"),
        ("Grams", lambda p: duration(p["gram_s"])),
        (
            "products of all pairs, 10⁹ multiply-adds an image",
            lambda p: f"{p['pair_macs'] / 1e9:.3g}",
        ),
        ("products of all pairs", lambda p: duration(p["pair_s"])),
        ("**in all, for each process**", lambda p: f"**{duration(total(p))}**"),
        ("memory for Grams", lambda p: size(p["gram_bytes"])),
        ("state: what a checkpoint holds", lambda p: size(p["state_bytes"])),
        ("exchanged between the ranks, once", lambda p: size(p["reduce_bytes"])),
        ("`extract` instead: on disk, float32", lambda p: size(p["store_bytes"])),
        ("`extract` instead: writing, for each process", lambda p: duration(p["write_s"])),
    ]
    lines.append(f"| layers | {' | '.join(counts)} |")
    lines += [f"| {name} | {' | '.join(map(show, both))} |" for name, show in rows]
    for name, side in chosen.items():
        lines += [
            "",
            f"**{name}**, some layers:",
            "",
            "| layer | p | a batch | 10⁹ multiply-adds an image | Gram, a process | stored |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for layer in side:
            cells = per_layer(layer, rates, n, samples, processes)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def total(planned: dict) -> float:
    return planned["forward_s"] + planned["gram_s"] + planned["pair_s"]


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def main(arguments: list[str] | None = None) -> str:
    parser = parser_of(__doc__, tables="tables")
    parser.add_argument("--x", default="torchvision:resnet50")
    parser.add_argument("--y", default="timm:vit_base_patch16_224")
    parser.add_argument("--layers", default="*", help="as layers= of repsim.compare")
    parser.add_argument(
        "--some",
        default=r"layer\d\.\d+|blocks\.\d+",
        help="the layers of the second column, an expression for whole names",
    )
    parser.add_argument("--size", type=int, default=224, help="side of an image, in pixels")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--forward-batch", type=int, help="images a forward is timed with")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args(arguments)
    few = options.forward_batch or (8 if options.device == "cpu" else options.batch)
    models = {name: build(name).to(options.device) for name in (options.x, options.y)}
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(few, 3, options.size, options.size, generator=generator)
    images = images.to(options.device)
    layers = {name: layers_of(model, images[:2], options.layers) for name, model in models.items()}
    n_layers = sum(map(len, layers.values()))
    rates = measure(models, images, options.batch, n_layers, options.device)
    found = {"rates": vars(rates), "load": os.getloadavg()[0]}
    return hand_out(options, report(layers, rates, options), (START, END), found)


if __name__ == "__main__":
    main()
