"""Run the processes of one group, and collect the result of each."""

from __future__ import annotations

import datetime
import importlib
import os
import tempfile

from forks import run_forked


def run_ranks(function: str, size: int, limit: float = 90.0) -> list[object]:
    """Run "module:function"(rank, size) in `size` processes; None for one that died on purpose."""
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        each = [(function, rank, size, store) for rank in range(size)]
        everyone = run_forked("ranks:of_one_rank", each, limit)
    for ended in everyone:
        assert ended.code in (0, 7), f"exit code {ended.code}: {ended.stderr[-3000:]}"
    return [ended.value for ended in everyone]


def of_one_rank(function: str, rank: int, size: int, store: str) -> object:
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=20),
    )
    module, name = function.split(":")
    result = getattr(importlib.import_module(module), name)(rank, size)
    dist.destroy_process_group()
    return result
