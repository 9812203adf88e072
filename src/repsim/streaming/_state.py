"""Accumulator states as plain values, for saving and restoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from repsim import kernels
from repsim._array import to_numpy
from repsim._errors import StateError
from repsim.streaming._blocks import BlockSums, Sums

__all__ = ["FORMAT", "blocks_from_state", "blocks_state", "kernel_from_state", "kernel_state"]

FORMAT = "repsim.MinibatchCKA/1"


def kernel_state(kernel: kernels.Kernel) -> dict[str, Any]:
    """Describe a kernel by its class name and its parameters."""
    parameters: dict[str, Any] = asdict(kernel) if is_dataclass(kernel) else {}
    if parameters.get("sigma") is not None:
        parameters["sigma"] = float(to_numpy(parameters["sigma"]))
    if parameters.get("precision") == "highest":  # as in older states, without precision
        del parameters["precision"]
    return {"name": type(kernel).__name__, "parameters": parameters}


def kernel_from_state(state: Mapping[str, Any]) -> kernels.Kernel:
    """Rebuild one of the kernels of the library."""
    known = {type(make()).__name__: type(make()) for make in kernels.KERNELS.values()}
    if state["name"] not in known:
        raise StateError(
            f"MinibatchCKA.from_state_dict: the kernel {state['name']!r} is not one of "
            f"repsim.kernels.\n  Pass it again: from_state_dict(state, kernel=...)."
        )
    kernel: kernels.Kernel = known[state["name"]](**state["parameters"])
    return kernel


def blocks_state(blocks: BlockSums) -> dict[str, Any]:
    """Stack the blocks into four NumPy arrays."""
    return {
        "batches_per_block": blocks.batches_per_block,
        "batches": np.array([b.batches for b in blocks.blocks], dtype=np.int64),
        **{
            name: np.array([to_numpy(getattr(b, name)) for b in blocks.blocks], dtype=np.float64)
            for name in ("xy", "xx", "yy")
        },
    }


def blocks_from_state(state: Mapping[str, Any]) -> BlockSums:
    """Unstack what ``blocks_state`` stacked. The blocks stay on the host."""
    columns = zip(state["xy"], state["xx"], state["yy"], state["batches"], strict=True)
    return BlockSums(
        [Sums(np.array(xy), np.array(xx), np.array(yy), int(b)) for xy, xx, yy, b in columns],
        int(state["batches_per_block"]),
    )
