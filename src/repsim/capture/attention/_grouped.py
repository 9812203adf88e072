"""Heads that share keys, packed into the axis of the queries when there is one query."""

from __future__ import annotations

from torch import Tensor

from repsim.capture.attention._frames import Frame
from repsim.capture.attention._mode import Seen
from repsim.capture.attention._rows import Rows

__all__ = ["unpacked"]


def unpacked(seen: Seen, frame: Frame) -> Seen:
    """Return attention with the heads of its module, one query each.

    With a single query, as in decoding, transformers gives the kernel the heads that share keys as
    queries of one head, (samples, few heads, group, d). Other attention is returned unchanged.

    Parameters
    ----------
    seen : Seen
        What the kernel got.
    frame : Frame
        The module of the attention; its input (samples, 1, D) shows that there is one query.
    """
    group = getattr(frame.module, "num_key_value_groups", None)
    one_query = frame.shape is not None and len(frame.shape) == 3 and frame.shape[1] == 1
    if not one_query or len(seen.lead) != 2 or group != seen.queries or group == 1:
        return seen

    def apart(tensor: Tensor) -> Tensor:
        """(samples, few, group, m) → (samples, heads, 1, m)."""
        return tensor.flatten(1, 2).unsqueeze(2)

    def rows(part: slice) -> Tensor:
        return apart(seen.rows.weights(slice(0, group)))[..., part, :]

    return Seen(Rows(rows), seen.keys, apart(seen.output), seen.value, seen.heads)
