"""How many queries at a time, and the number that stands for no batch."""

from __future__ import annotations

import torch

from repsim.capture import AttentionCall

__all__ = ["NEVER", "queries_at_a_time"]

NEVER = torch.iinfo(torch.int32).max
"""In place of the number of a batch that is not finite: there is none."""


def queries_at_a_time(call: AttentionCall) -> int:
    """Return a chunk: on a CPU what stays in the cache, on an accelerator what fills it."""
    if call.output.device.type == "cpu":
        return 16
    row = max(1, call.batch * call.heads * call.keys)
    return min(call.queries, max(16, (1 << 24) // row))
