"""repsim.attention_distance beside the bare forward pass, and beside keeping the weights.

    pip install -e .[bench]
    python benchmarks/attention.py                               # print the table
    python benchmarks/attention.py --json attention.json --write benchmarks/README.md

timm's vit_tiny_patch16_224 on batches of 8 images of 224×224 pixels, random weights. For each way:
its time and its processor time as ratios to the bare forward pass of the same batches, also where
the C library keeps freed memory, and its peak memory above that. It takes about seven minutes on
two free cores.
benchmarks/README.md says how each is measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TQDM_DISABLE", "1")  # here and in every process started from here

import numpy as np
import timm
import torch
import xarray  # noqa: F401 - so the size of a library does not count
from torch import Tensor, nn

import repsim
from _measure import cores, forget_peak, peak_mib
from _output import hand_out, listed, parser_of, processor, say, spread, versions
from repsim.attention import entropy, mean_distance, prefix_mass
from repsim.capture import AttentionRecorder

START, END = "<!-- attention:start -->", "<!-- attention:end -->"
GRID, PATCH, PREFIX = 14, 16, 1
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
"""Settings of the C library of Linux, with which it returns no memory to the system."""


def build(way: str) -> nn.Module:
    """The model of a way; weights can be kept in eager attention alone."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224").eval()
    for block in model.blocks:
        block.attn.fused_attn = way != EAGER
    return model


def images(batches: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, 224, 224, generator=generator) for _ in range(batches)]


def forward(model: nn.Module, data: list[Tensor]) -> None:
    """The floor: nothing is recorded."""
    with torch.inference_mode():
        for batch in data:
            model(batch)


def recorder(model: nn.Module, data: list[Tensor]) -> None:
    """Hooks and the function mode, and a handler that asks for no weights."""
    with torch.inference_mode(), AttentionRecorder(model, handle=lambda call: None):
        for batch in data:
            model(batch)


def distances(model: nn.Module, data: list[Tensor]) -> np.ndarray:
    """Distance, renormalised distance, prefix mass and entropy, in chunks of queries."""
    return repsim.attention_distance(model, data, progress=False).distance.values


def keeping(model: nn.Module, data: list[Tensor]) -> np.ndarray:
    """The same numbers from eager attention and hooks that keep its weights."""
    kept: list[Tensor] = []
    handles = [
        block.attn.attn_drop.register_forward_hook(lambda *a: kept.append(a[2]))
        for block in model.blocks
    ]
    sums = []
    with torch.inference_mode():
        for batch in data:
            kept.clear()
            model(batch)
            sums.append([reduced(weights) for weights in kept])
    for handle in handles:
        handle.remove()
    return np.mean([[layer[0] for layer in batch] for batch in sums], axis=0)


def reduced(weights: Tensor) -> list[np.ndarray]:
    both = [mean_distance(weights, GRID, PATCH, PREFIX, renormalize=r) for r in (False, True)]
    rest = [prefix_mass(weights, PREFIX), entropy(weights)]
    return [value.mean(0).numpy() for value in (*both, *rest)]


WAYS: dict[str, Callable[[nn.Module, list[Tensor]], object]] = {
    "the bare forward pass": forward,
    "AttentionRecorder, nothing asked for": recorder,
    "attention_distance": distances,
    "eager attention, weights kept and then reduced": keeping,
}
FLOOR, *_, EAGER = WAYS


def interleaved(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Seconds per batch of every way, A B C … A B C …, so a drift affects all equally.

    Each way has one model for all rounds, as a user has one.
    """
    data = images(args.batches)
    models = {name: build(name) for name in WAYS}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    processor_seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(args.repeats + 1):  # the first is not counted
        for name, way in WAYS.items():
            gc.collect()
            start, worked = time.perf_counter(), time.process_time()
            way(models[name], data)
            if turn:
                processor_seconds[name].append((time.process_time() - worked) / args.batches)
                seconds[name].append((time.perf_counter() - start) / args.batches)
                say(f"round {turn}: {name}, {seconds[name][-1]:.3f} s a batch")
    return {"seconds": seconds, "processor_seconds": processor_seconds}


def peak(name: str, args: argparse.Namespace) -> float:
    """Highest resident memory of one way in a fresh process, MiB."""
    found = float(fresh(["--worker", name], args))
    say(f"memory: {name}, {found} MiB")
    return found


def times(args: argparse.Namespace, **variables: str) -> dict[str, dict[str, list[float]]]:
    """The times of all ways in fresh processes with these environment variables, one after another.

    Where the memory of a process lies changes its times more than its rounds differ.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.processes):
        for kind, seconds in json.loads(fresh(["--times"], args, **variables)).items():
            for name, each in seconds.items():
                found.setdefault(kind, {}).setdefault(name, []).extend(each)
    return found


def fresh(options: list[str], args: argparse.Namespace, **variables: str) -> str:
    """What this script prints with these options in a fresh process."""
    command = [sys.executable, __file__, *options]
    for name in ("batches", "repeats", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, text=True, env=os.environ | variables
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(options)} ended with {done.returncode}")
    return done.stdout


def worker(args: argparse.Namespace) -> None:
    model, data = build(args.worker), images(args.batches)
    # First use of each kernel, and late imports: xarray imports Dask with its first dataset, where
    # Dask is installed, which takes 30 MiB. All processes have them, also those of the floor.
    for name, way in WAYS.items():
        way(build(name), [data[0][:1]])
    gc.collect()
    forget_peak()
    WAYS[args.worker](model, data)
    print(peak_mib())


def check() -> float:
    """The largest difference between what the two ways find, in pixels."""
    data = images(1)
    found, expected = distances(build(FLOOR), data), keeping(build(EAGER), data)
    return float(np.abs(found - expected).max())


def table(found: dict[str, dict[str, list[float]]], error: float) -> str:
    lines = [
        "| | time ÷ forward (range) | processor time ÷ forward (range) | time ÷ forward, freed "
        "memory kept (range) | memory above forward, MiB (range) |",
        "|---|--:|--:|--:|--:|",
    ]
    bare = statistics.median(found["peaks"][FLOOR])
    for name in WAYS:
        cells = [
            spread([s / f for s, f in zip(found[kind][name], found[kind][FLOOR], strict=True)])
            for kind in ("seconds", "processor_seconds", "seconds_keeping")
        ]
        cells.append(spread([p - bare for p in found["peaks"][name]], digits=0))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"Largest difference between the distances of the last two: {error:.1e} px."]
    )


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--processes", type=int, default=5, help="processes for time (default 5)")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds of each (default 3)")
    parser.add_argument("--batches", type=int, default=8, help="batches a call (default 8)")
    parser.add_argument("--memory", type=int, default=3, help="processes for memory (default 3)")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument("--worker", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--times", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.worker:
        worker(args)
        return
    if args.times:
        print(json.dumps(interleaved(args)))
        return
    peaks = {name: [peak(name, args) for _ in range(args.memory)] for name in WAYS}
    keeping_memory = times(args, **KEEPING)["seconds"]
    found = {"peaks": peaks, **times(args), "seconds_keeping": keeping_memory}
    setting = {n: getattr(args, n) for n in ("threads", "batches", "processes", "repeats")}
    setting |= versions("torch", "timm", "numpy")
    text = f"{processor()}; {listed(setting)}.\n\n{table(found, check())}"
    hand_out(args, text, (START, END), {"setting": setting, **found})


if __name__ == "__main__":
    main()
