"""How much of the attention is reduced at a time."""

from __future__ import annotations

from repsim.capture import AttentionCall

__all__ = ["entries_at_a_time", "queries_at_a_time"]


def entries_at_a_time(call: AttentionCall) -> int:
    """Return weights at a time: few enough for the cache of a CPU, enough for an accelerator."""
    return 1 << 20 if call.output.device.type == "cpu" else 1 << 24


def queries_at_a_time(call: AttentionCall) -> int:
    """Return queries at a time: few enough for the cache of a CPU, enough for an accelerator."""
    if call.output.device.type == "cpu":
        return 16
    row = max(1, call.batch * call.heads * call.keys)
    return min(call.queries, max(16, (1 << 24) // row))
