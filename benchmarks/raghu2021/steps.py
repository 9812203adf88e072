"""Work in steps that run once: a file that was made with the same settings is not made again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any

import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

__all__ = ["Step", "digest", "is_done", "load_weights", "run_steps", "save_result", "save_weights"]

KEY = "made_from"
"""Where a file keeps the digest of the settings that it was made with."""


@dataclass(frozen=True)
class Step:
    """One file to make: its purpose, place, settings and function.

    ``make`` writes `file`; it is called only where `file` does not hold `key` already.
    """

    name: str
    file: Path
    key: str
    make: Callable[[], None]


def digest(*settings: Any) -> str:
    """Return a digest of settings: numbers, strings, lists and mappings of these, source files."""
    text = json.dumps(settings, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return hashlib.sha256(value.read_bytes()).hexdigest()
    raise TypeError(f"not a setting: {type(value).__name__}")


def run_steps(
    steps: Sequence[Step], *, progress: bool = True, workers: int = 1
) -> dict[str, float]:
    """Make the missing files under one bar; return the seconds of each.

    In order, or with several workers in processes of one thread each, because small networks are
    slower with shared threads. For workers, the function of a step must be picklable.
    """
    missing = [step for step in steps if not is_done(step.file, step.key)]
    with tqdm(total=len(steps), unit="step", disable=not progress, dynamic_ncols=True) as bar:
        bar.update(len(steps) - len(missing))
        if workers > 1 and len(missing) > 1:
            seconds = _side_by_side(missing, min(workers, len(missing)), bar)
        else:
            seconds = {}
            for step in missing:
                bar.set_description(step.name)
                seconds[step.name] = _timed(step.make)
                bar.update()
        bar.set_description("done")
    return seconds


def _side_by_side(missing: Sequence[Step], workers: int, bar: tqdm[Any]) -> dict[str, float]:
    seconds = {}
    # Spawned, not forked, because a forked copy of a process with threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin) as pool:
        running = {pool.submit(_timed, step.make): step.name for step in missing}
        try:
            bar.set_description(f"{missing[0].name} and others, {workers} at a time")
            for future in as_completed(running):
                seconds[running[future]] = future.result()
                bar.set_description(f"{running[future]}: done")
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return seconds


def _begin() -> None:
    """Prepare a worker: one thread; it ends with the process that started it."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)  # no process waits for this step any more

    Thread(target=watch, daemon=True).start()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _timed(make: Callable[[], None]) -> float:
    began = perf_counter()
    make()
    return perf_counter() - began


def is_done(file: Path, key: str) -> bool:
    """Whether the file is there and was made with the settings of that digest."""
    if not file.exists():
        return False
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            return bool((opened.metadata() or {}).get(KEY) == key)
    with xr.open_dataset(file, engine="scipy") as opened:
        return bool(opened.attrs.get(KEY) == key)


def save_weights(
    file: Path, key: str, weights: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """Write the weights of a model with a description."""
    metadata = {name: json.dumps(value) for name, value in about.items()} | {KEY: key}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    _replace(file, lambda path: save_file(tensors, path, metadata))


def load_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `save_weights` wrote: a format that holds numbers and text, no code."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    return load_file(file), {n: json.loads(v) for n, v in metadata.items() if n != KEY}


def save_result(file: Path, key: str, result: xr.Dataset) -> None:
    """Write a result as NetCDF."""
    attrs = {name: _attribute(value) for name, value in result.attrs.items()}
    plain = result.assign_attrs(attrs)
    plain.attrs[KEY] = key
    # NetCDF 3 knows no booleans and no 64-bit integers.
    for name, variable in plain.variables.items():
        if variable.dtype == bool:
            plain[name] = variable.astype("int8")
    _replace(file, lambda path: plain.to_netcdf(path, engine="scipy"))


def _attribute(value: Any) -> Any:
    """Return what an attribute of a NetCDF file can hold."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value, default=str)


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file and move it into place, so no file is incomplete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(beside)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
