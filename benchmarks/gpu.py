"""repsim.compare on an accelerator: every precision beside the floor and the fastest peer.

    pip install -e .[bench]
    python benchmarks/gpu.py                                    # resnet50 × vit_base, batch 1024
    python benchmarks/gpu.py --write benchmarks/README.md
    python benchmarks/gpu.py --device cpu --models test_resnet test_vit --batch 8 --image 64

All layers of one timm model against all layers of another, random weights. Per row: the time of
the whole call as a ratio to the two bare forward passes of its own round, the peak of allocated
memory above theirs, the largest difference from minibatch CKA in float64, and for the Gram stage
(what the call takes beyond the forward passes) how much of the machine it uses: the bytes of the
activations over the time, against a measured copy, and the operations of the Grams, against a
measured product of the same precision. A row that runs out of memory is tried with half the batch,
beside forward passes of that batch. After --budget seconds no further round starts.

From the second batch on, an operation of repsim during which the host waits for CUDA is an error.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from torch import Tensor, nn

import repsim
from _cases import Key, locate, names_that_ran, outputs
from _output import hand_out, parser_of, say, spread
from _packages import Layers, Matrix, forward, forward_and_grams, loader

START, END = "<!-- gpu:start -->", "<!-- gpu:end -->"
FORWARD, BARE, PEER = "two forward passes", "bare Grams", "pytorch-cka"
PRECISIONS = ("highest", "tf32", "bf16")
COPIED = 1 << 28  # float32 numbers in the copy that bandwidth is measured by, on an accelerator
SQUARE = 8192  # rows and columns of the product that the rate is measured by

Models = tuple[nn.Module, nn.Module]


@dataclass
class Work:
    """The work of the Gram stage for one batch."""

    bytes: int  # of activations, each read once
    operations: int  # multiplications and additions of their products


@dataclass
class Row:
    name: str
    batch: int
    seconds: list[float] = field(default_factory=list)  # per batch of images
    floor: list[float] = field(default_factory=list)  # forward passes alone, same rounds
    peak: int | None = None  # bytes allocated above what was there before
    floor_peak: int | None = None
    shape: tuple[int, int] | None = None
    error: float | None = None  # over the entries that are numbers
    nan: float | None = None  # share of entries that are not
    bandwidth: float | None = None  # shares of what was measured
    rate: float | None = None
    remark: str = ""


class Bench:
    """Two models, their batches, and all measurements."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device(args.device)
        torch.manual_seed(0)
        self.models: Models = tuple(  # type: ignore[assignment]
            timm.create_model(name).eval().to(self.device) for name in args.models
        )
        generator = torch.Generator().manual_seed(1)
        shape = (args.batch, 3, args.image, args.image)
        self.images = [
            torch.randn(shape, generator=generator).to(self.device) for _ in range(args.batches)
        ]
        keys = [list(outputs(model, self.images[0][:4], lambda x: None)) for model in self.models]
        self.layers = Layers(*map(names_that_ran, keys))

    def batches(self, size: int) -> list[Tensor]:
        return [images[:size] for images in self.images]

    def call(self, name: str, size: int) -> Matrix | None:
        batches = self.batches(size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == FORWARD:
                return forward(*self.models, batches, self.layers)
            if name == BARE:
                return forward_and_grams(*self.models, batches, self.layers)
            if name == PEER:
                return pytorch_cka(self.models, batches, self.layers, self.device)
            precision = name.removeprefix("repsim, ")
            cka = repsim.compare(
                *self.models,
                data=unwaiting(batches, self.device),
                precision=precision,  # type: ignore[arg-type]
                all_modules=True,
                progress=False,
            ).cka
        names = [list(map(str, cka[axis].values)) for axis in ("layer_x", "layer_y")]
        return Matrix(*names, cka.values)

    def timed(self, name: str, size: int) -> tuple[float, int | None, Matrix | None]:
        """Seconds per batch, the peak of memory allocated meanwhile, and the result."""
        gc.collect()
        before = self._settle()
        start = time.perf_counter()
        matrix = self.call(name, size)
        self._settle()
        seconds = (time.perf_counter() - start) / self.args.batches
        peak = None
        if before is not None:
            peak = torch.cuda.max_memory_allocated(self.device) - before
        return seconds, peak, matrix

    def _settle(self) -> int | None:
        if self.device.type != "cuda":
            return None
        torch.cuda.synchronize(self.device)
        return torch.cuda.memory_allocated(self.device)

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def largest(self, name: str) -> int | None:
        """The largest batch that fits in memory, found by halving the requested one."""
        size = self.args.batch
        while size >= 4:
            try:
                self.forget_peak()
                self.call(name, size)
            except torch.OutOfMemoryError:
                say(f"{name}: out of memory with a batch of {size}")
                size //= 2
            else:
                return size
            gc.collect()
        return None


def unwaiting(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield batches; from the second on, an operation that waits for CUDA raises an error.

    During the first batch, models are asked where their samples are. After the last, sums are read.
    """
    for number, batch in enumerate(batches):
        guarded = number and device.type == "cuda"
        if guarded:
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield batch
        finally:
            if guarded:
                torch.cuda.set_sync_debug_mode("default")


def wide_gram(out: Tensor) -> Tensor:
    """A float64 Gram with a zero diagonal, as one row, made a block of features at a time."""
    x = out.detach().flatten(1)
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for block in x.split(1 << 16, dim=1):
        wide = block.double()
        wide = wide - wide[:1]  # so a constant is exactly zero
        wide = wide - wide.mean(0)  # moves HSIC₁ only by rounding
        total += wide @ wide.T
    return total.fill_diagonal_(0).flatten()


def hsics(k: Tensor, l: Tensor, n: int) -> Tensor:  # noqa: E741
    """HSIC₁ of all pairs, term by term (Song et al. 2012, Eq. 5), up to 1/(n(n − 3))."""
    rows_k, rows_l = (g.view(-1, n, n).sum(1) for g in (k, l))
    sums = torch.outer(rows_k.sum(1), rows_l.sum(1)) / ((n - 1) * (n - 2))
    return k @ l.T + sums - rows_k @ rows_l.T * 2 / (n - 2)


def reference(models: Models, batches: list[Tensor]) -> tuple[list[list[Key]], np.ndarray]:
    """Minibatch CKA in float64 of every call of every module, without code of repsim."""
    xy: Any = 0
    xx: Any = 0
    yy: Any = 0
    keys: list[list[Key]] = []
    for images in batches:
        grams = [outputs(model, images, wide_gram) for model in models]
        keys = [list(each) for each in grams]
        k, l = (torch.stack(list(each.values())) for each in grams)  # noqa: E741
        del grams
        n = len(images)
        xy = xy + hsics(k, l, n)
        xx, yy = (
            total + torch.stack([hsics(g[None], g[None], n)[0, 0] for g in each])
            for total, each in ((xx, k), (yy, l))
        )
    return keys, (xy / (xx.sqrt()[:, None] * yy.sqrt())).cpu().numpy()


def errors(matrix: Matrix, keys: list[list[Key]], truth: np.ndarray) -> tuple[float, float]:
    """Largest absolute error, and the share of NaN, among the pairs of layers that vary."""
    rows, columns = locate(matrix.labels_x, keys[0]), locate(matrix.labels_y, keys[1])
    truth = truth[np.ix_(rows, columns)]
    error = np.abs(matrix.values - truth)[np.isfinite(truth)]
    nan = np.isnan(error)
    return float(error[~nan].max(initial=0.0)), float(nan.mean())


def pytorch_cka(
    models: Models, batches: list[Tensor], layers: Layers, device: torch.device
) -> Matrix:
    import cka

    (values,) = cka.compute_cka(
        *models,
        loader(batches, labels=False),
        layers=layers.x,
        model2_layers=layers.y,
        device=str(device),
        progress=False,
    )
    return Matrix(layers.x, layers.y, values.cpu().numpy())


def work(bench: Bench, size: int) -> Work:
    """The Grams that a call makes for one batch; layers that share a tensor share a Gram."""
    found = Work(0, 0)
    original = repsim.kernels.Linear.gram

    def gram(self: Any, x: Any) -> Any:
        n, p = x.shape
        found.bytes += x.nbytes
        found.operations += 2 * n * n * p
        return original(self, x)

    with mock.patch.object(repsim.kernels.Linear, "gram", gram):
        bench.call("repsim, highest", size)
    found.bytes //= bench.args.batches
    found.operations //= bench.args.batches
    return found


def machine(device: torch.device) -> dict[str, float]:
    """Bytes per second of a copy, read and written, and operations per second of a product."""
    large = device.type == "cuda"
    x = torch.empty(COPIED if large else COPIED >> 5, device=device)
    y = torch.empty_like(x)
    found = {"copy": 2 * x.nbytes / best(lambda: y.copy_(x), device)}
    n = SQUARE if large else SQUARE >> 3
    a = torch.randn(n, n, device=device)
    for precision in PRECISIONS:
        kernel = repsim.kernels.Linear(precision)  # its own way to a product, n by n by n
        found[precision] = 2 * n**3 / best(lambda k=kernel: k.gram(a), device)  # type: ignore[misc]
    return found


def best(function: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 1):  # the first one warms up
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def measure(bench: Bench, names: list[str]) -> tuple[list[Row], dict[str, float]]:
    began = time.perf_counter()
    args = bench.args
    speeds = machine(bench.device)
    rows = []
    for name in names:
        say(f"{name}: first call")
        size = bench.largest(name)
        row = Row(name, size or 0)
        if size is None:
            row.remark = "out of memory with any batch"
        elif size < args.batch:
            row.remark = f"out of memory with more than {size} images a batch"
        rows.append(row)
    running = [row for row in rows if row.batch]
    for turn in range(args.repeats):
        if turn and time.perf_counter() - began > args.budget:
            say(f"{turn} of {args.repeats} rounds: the budget is spent")
            break
        floors: dict[int, tuple[float, int | None]] = {}
        for row in running:
            if row.batch not in floors:
                bench.forget_peak()
                floors[row.batch] = bench.timed(FORWARD, row.batch)[:2]
            bench.forget_peak()
            seconds, row.peak, matrix = bench.timed(row.name, row.batch)
            say(f"round {turn + 1}: {row.name}, {seconds:.3f} s a batch")
            row.seconds.append(seconds)
            floor, row.floor_peak = floors[row.batch]
            row.floor.append(floor)
            if matrix is not None and row.shape is None:
                row.shape = (len(matrix.labels_x), len(matrix.labels_y))
                say(f"{row.name}: float64 reference")
                keys, truth = reference(bench.models, bench.batches(row.batch))
                row.error, row.nan = errors(matrix, keys, truth)
    for row in running:
        if row.name.startswith("repsim"):
            todo = work(bench, row.batch)
            beyond = [s - f for s, f in zip(row.seconds, row.floor, strict=True)]
            seconds = statistics.median(beyond)
            if seconds > 0:  # else the stage is lost in the noise of the forward passes
                row.bandwidth = todo.bytes / seconds / speeds["copy"]
                row.rate = todo.operations / seconds / speeds[row.name.removeprefix("repsim, ")]
    return rows, speeds


def table(rows: list[Row]) -> str:
    lines = [
        "| | batch | time ÷ forward (range) | memory above forward, MiB | layers | largest error "
        "| of the copy bandwidth | of the matmul rate |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ratios = [s / f for s, f in zip(row.seconds, row.floor, strict=True)]
        memory = "–"
        if row.peak is not None and row.floor_peak is not None:
            memory = f"{(row.peak - row.floor_peak) / 2**20:.0f}"
        cells = [
            row.name + (f" ({row.remark})" if row.remark else ""),
            str(row.batch or "–"),
            spread(ratios),
            memory,
            "–" if row.shape is None else f"{row.shape[0]} × {row.shape[1]}",
            worst(row),
            "–" if row.bandwidth is None else f"{row.bandwidth:.0%}",
            "–" if row.rate is None else f"{row.rate:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def worst(row: Row) -> str:
    if row.error is None:
        return "–"
    return f"{row.error:.0e}" + (f", and {row.nan:.1%} NaN" if row.nan else "")


def report(args: argparse.Namespace, rows: list[Row], speeds: dict[str, float]) -> str:
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    packages = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "timm"))
    rates = ", ".join(f"{p} {speeds[p] / 1e12:.3g}" for p in PRECISIONS)
    head = (
        f"{name}; {' × '.join(args.models)}, {args.batches} batches of {args.batch} images of "
        f"{args.image}×{args.image}, {args.repeats} rounds, python {platform.python_version()}, "
        f"{packages}. Copy {speeds['copy'] / 1e9:.0f} GB/s; products, 10¹² operations/s: {rates}."
    )
    return f"{head}\n\n{table(rows)}"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--device", default="cuda")
    models = ("resnet50", "vit_base_patch16_224")
    parser.add_argument("--models", nargs=2, default=models, help="names of timm")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--image", type=int, default=224, help="side in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=float, default=300, help="seconds (default 300)")
    parser.add_argument("--no-peers", action="store_true", help="without pytorch-cka")
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; see --device")
    return args


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    torch.backends.cudnn.deterministic = True  # the reference runs the same forward passes
    names = [BARE, *(f"repsim, {precision}" for precision in PRECISIONS)]
    if not args.no_peers:
        importlib.metadata.version("pytorch-cka")  # before the work, not after
        names.append(PEER)
    rows, speeds = measure(Bench(args), names)
    found = {"rows": [asdict(row) for row in rows], "speeds": speeds}
    hand_out(args, report(args, rows, speeds), (START, END), found)


if __name__ == "__main__":
    main()
