"""A vision transformer and a convolutional network on handwritten digits: layer by layer.

Trains both on scikit-learn's digits, compares all their layers with repsim.compare, and writes
the maps, the results and a page that shows them:

    python examples/digits.py --out demo-output
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

try:
    import numpy as np
    import torch
    import xarray as xr
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from sklearn import __version__ as sklearn_version
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch import Tensor, nn
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    import repsim
    from _digit_findings import findings, numbers
    from _digit_models import CNN, ViT, is_layer
    from _digit_page import Picture, page, plain
except ModuleNotFoundError as error:
    sys.exit(
        f"digits.py: {error.name} is not installed.\n"
        f"  Install the library with what this example needs, from the root of the checkout:\n"
        f"  python -m pip install -e '.[demo]'"
    )

BATCH = 128
"""Images per batch of a comparison: larger ones give smaller errors."""


class Digits(NamedTuple):
    """Images (n, 1, 8, 8), standardised, and their labels (n,)."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    began, busy = time.perf_counter(), time.process_time()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)

    digits = load(options.seed)
    print(f"1/4  {len(digits.train)} digits to train on, {len(digits.test)} held out", flush=True)
    models = train_all(digits, options)
    accuracy = {name: held_out_accuracy(model, digits) for name, model in models.items()}
    for name in ("ViT", "CNN"):
        print(f"     {name}: {accuracy[name]:.1%} of the held-out digits right")

    results = compare_all(models, digits, options)
    for result in results.values():
        for side in "xy":
            result.attrs[f"test_accuracy_{side}"] = accuracy[result.attrs[f"model_{side}"]]
    n = numbers(results)
    found = findings(n)

    print("4/4  Pictures and page", flush=True)
    with rc_context({"axes.titlesize": 10, "axes.labelsize": 9}):
        pictures = draw_all(results, digits)
    save(out, results, pictures, n)
    details = {
        "seed": str(options.seed),
        "epochs": str(options.epochs),
        "images compared": f"{len(digits.test)}, held out, {options.passes} "
        f"pass{'es' if options.passes > 1 else ''}",
        "images per batch": str(BATCH),
        "parameters": ", ".join(
            f"{name} {sum(p.numel() for p in models[name].parameters()):,}"
            for name in ("ViT", "CNN")
        ),
        "versions": f"repsim {repsim.__version__}, torch {torch.__version__}, "
        f"scikit-learn {sklearn_version}, Python {platform.python_version()}",
    }
    html = page(n, found, pictures, results, details)
    (out / "index.html").write_text(html, encoding="utf-8")

    print(f"\n{plain(n, found)}\n")
    print(f"Page:     {out / 'index.html'}")
    print(f"Pictures: {', '.join(f'{picture.name}.png' for picture in pictures)}, in {out}/")
    print(f"Results:  {', '.join(f'{name}.nc' for name in results)}, in {out / 'results'}/")
    print(f"          {out / 'findings.json'}")
    print("Next:     open the page; its part 'Try next' says how to compare your own models.")
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    print(f"Done in {seconds:.0f} s ({cpu:.0f} s of processor time).")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the options; --quick sets those that are not given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder to write to")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the split, the training and the batches"
    )
    parser.add_argument("--epochs", type=int, help="epochs of training (20)")
    parser.add_argument("--passes", type=int, help="passes over the held-out images (3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="train tiny models for one epoch, and compare in one pass",
    )
    options = parser.parse_args(argv)
    for name, full in (("epochs", 20), ("passes", 3)):
        value = getattr(options, name)
        if value is None:
            setattr(options, name, 1 if options.quick else full)
        elif value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    return options


def load(seed: int) -> Digits:
    """Return scikit-learn's digits: 60 % for training, 40 % held out, each class in both."""
    bunch = load_digits()
    train, test, train_labels, test_labels = train_test_split(
        bunch.images[:, None].astype(np.float32),
        bunch.target,
        test_size=0.4,
        random_state=seed,
        stratify=bunch.target,
    )
    mean, std = train.mean(), train.std()
    return Digits(
        torch.from_numpy((train - mean) / std),
        torch.from_numpy(train_labels),
        torch.from_numpy((test - mean) / std),
        torch.from_numpy(test_labels),
    )


def train_all(digits: Digits, options: argparse.Namespace) -> dict[str, nn.Module]:
    """Return both models, trained and untrained."""
    print(f"2/4  Training, epochs: {options.epochs}", flush=True)
    torch.manual_seed(options.seed)
    vit = ViT(dim=16, depth=2, heads=2) if options.quick else ViT()
    cnn = CNN(width=4, depth=1) if options.quick else CNN()
    untrained = {"untrained ViT": copy.deepcopy(vit), "untrained CNN": copy.deepcopy(cnn)}
    train("ViT", vit, digits, lr=2e-3, epochs=options.epochs, seed=options.seed)
    train("CNN", cnn, digits, lr=3e-3, epochs=options.epochs, seed=options.seed)
    return {"ViT": vit, "CNN": cnn, **untrained}


def train(
    name: str, model: nn.Module, digits: Digits, *, lr: float, epochs: int, seed: int
) -> None:
    """Train a classifier with AdamW and a one-cycle learning rate."""
    order = torch.Generator().manual_seed(seed)
    batch = 64
    steps = epochs * -(-len(digits.train) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    model.train()
    with tqdm(total=steps, desc=f"     {name}", unit="step", disable=None, leave=False) as bar:
        for _ in range(epochs):
            for chosen in torch.randperm(len(digits.train), generator=order).split(batch):
                logits = model(digits.train[chosen])
                loss = nn.functional.cross_entropy(logits, digits.train_labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    model.eval()


@torch.no_grad()
def held_out_accuracy(model: nn.Module, digits: Digits) -> float:
    model.eval()
    return float((model(digits.test).argmax(dim=1) == digits.test_labels).double().mean())


def compare_all(
    models: dict[str, nn.Module], digits: Digits, options: argparse.Namespace
) -> dict[str, xr.Dataset]:
    """Compare all layers of the pairs of models that the findings need."""
    print("3/4  Comparing layers", flush=True)

    def compare(
        x: str, y: str | None = None, *, prepare_y: Callable[[Tensor], Tensor] | None = None
    ) -> xr.Dataset:
        began = time.perf_counter()
        # The same batches, in the same order, for every pair of models.
        order = torch.Generator().manual_seed(options.seed)
        result = repsim.compare(
            models[x],
            None if y is None else models[y],
            data=DataLoader(digits.test, batch_size=BATCH, shuffle=True, generator=order),
            layers=is_layer,
            passes=options.passes,
            prepare_y=prepare_y,
            progress=sys.stderr.isatty(),
        )
        result.attrs.update(model_x=x, model_y=y or x)
        kind = ", each image paired with another image" if prepare_y else ""
        layers = f"{result.sizes['layer_x']} × {result.sizes['layer_y']} layers"
        print(f"     {x} with {y or 'itself'}{kind}: {layers}, {time.perf_counter() - began:.1f} s")
        return result

    return {
        "vit": compare("ViT"),
        "cnn": compare("CNN"),
        "cnn-vit": compare("CNN", "ViT"),
        "untrained-vit": compare("untrained ViT"),
        "untrained-cnn": compare("untrained CNN"),
        "vit-untrained-vit": compare("ViT", "untrained ViT"),
        "untrained-cnn-untrained-vit": compare("untrained CNN", "untrained ViT"),
        "chance": compare("CNN", "ViT", prepare_y=lambda images: images.roll(1, dims=0)),
    }


def draw_all(results: dict[str, xr.Dataset], digits: Digits) -> list[Picture]:
    """Draw the pictures of the page."""

    def values(key: str) -> str:
        cka = results[key].cka
        return (
            f"{cka.shape[0]} by {cka.shape[1]} layers, "
            f"values from {float(cka.min()):.2f} to {float(cka.max()):.2f}."
        )

    def cka_map(key: str, title: str) -> Picture:
        figure = Figure(figsize=(5.4, 4.7), layout="constrained")
        repsim.plot.heatmap(results[key], figure.add_subplot(), title=title)
        return Picture(key, figure, f"CKA map, {title}: {values(key)}")

    def match(key: str, name: str, title: str) -> Picture:
        figure = Figure(figsize=(5.4, 4.9), layout="constrained")
        repsim.plot.layer_match(results[key], figure.add_subplot()).set_title(title, pad=8)
        attrs = results[key].attrs
        return Picture(
            name,
            figure,
            f"For each layer of the {attrs['model_x']}: the depth of the most similar layer of "
            f"the {attrs['model_y']}; {values(key)}",
        )

    return [
        some_digits(digits),
        cka_map("vit", "ViT with itself"),
        cka_map("cnn", "CNN with itself"),
        cka_map("cnn-vit", "CNN with ViT"),
        match("cnn-vit", "layer-match", "Best match of each CNN layer"),
        cka_map("untrained-vit", "Control: untrained ViT with itself"),
        cka_map("vit-untrained-vit", "Control: trained ViT with untrained ViT"),
        match(
            "untrained-cnn-untrained-vit",
            "layer-match-untrained",
            "Control: best match before training",
        ),
    ]


def some_digits(digits: Digits) -> Picture:
    """Draw one held-out image of each class."""
    figure = Figure(figsize=(5.4, 0.75), layout="constrained")
    for label, ax in enumerate(figure.subplots(1, 10)):
        first = int((digits.test_labels == label).nonzero()[0])
        ax.imshow(digits.test[first, 0].numpy(), cmap="gray_r", interpolation="nearest")
        ax.set_axis_off()
    return Picture("digits", figure, "One held-out image of each digit from 0 to 9, 8 × 8 pixels.")


def save(
    out: Path, results: dict[str, xr.Dataset], pictures: list[Picture], n: dict[str, float]
) -> None:
    """Write results, pictures and numbers."""
    (out / "results").mkdir(exist_ok=True)
    for name, result in results.items():
        result.to_netcdf(out / "results" / f"{name}.nc", engine="scipy")
    for picture in pictures:
        (out / f"{picture.name}.png").write_bytes(picture.png)
    (out / "findings.json").write_text(json.dumps(n, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
