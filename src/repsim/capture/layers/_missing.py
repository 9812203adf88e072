"""Why a recorder has no record of a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from repsim._errors import LayerNotFoundError
from repsim._shown import did_you_mean
from repsim.capture.layers._left_out import LeftOut
from repsim.capture.layers._select import Selection, listing
from repsim.capture.layers._walk import find

__all__ = ["require_all_ran", "why_missing"]


def why_missing(
    label: str,
    labels: Sequence[str],
    calls: Mapping[str, int],
    left_out: LeftOut,
    model: nn.Module,
    layers: Selection,
    *,
    failed: bool,
) -> str:
    """Return the error about a label that is not recorded.

    Parameters
    ----------
    label : str
        What was asked for.
    labels : sequence of str
        What is recorded.
    calls : mapping of str to int
        How often each layer ran.
    left_out : LeftOut
        The calls that are not recorded.
    model : torch.nn.Module
        The model.
    layers : Selection
        Its chosen layers.
    failed : bool
        Whether the last forward raised.
    """
    lines = [f"Recorder: {label!r} was not recorded."]
    stem, _, call = label.rpartition(":")
    key = (stem or label, int(call) if stem and call.isdecimal() else 0)
    if key in left_out:
        lines.append(f"  it was left out: {left_out[key].brief}")
    elif failed:
        lines.append("  the last forward raised before it was complete")
    elif calls.get(label, 0) > 1:
        lines.append(f"  {label!r} ran {calls[label]} times: ask for one of its calls")
    elif calls.get(stem) == 1 and call == "0":
        lines.append(f"  {stem!r} ran once: ask for it by that name")
    elif (module := find(model, label)) is not None:
        first = next((each.name for each in layers if each.module is module), label)
        lines.append(
            f"  it is another name of {first!r}: ask for that"
            if first != label
            else "  it was chosen, and did not run"
            if first in layers.names
            else "  it was not chosen: see layers="
        )
    lines[-1] += did_you_mean(label, labels)
    return "\n".join([*lines, f"  recorded: {listing(labels)}"])


def require_all_ran(layers: Selection, calls: Mapping[str, int]) -> None:
    """Raise a LayerNotFoundError if a layer that was requested by name did not run."""
    absent = [label for each in layers for label in each.absent(calls.get(each.name, 0))]
    if absent:
        raise LayerNotFoundError(
            f"Recorder: asked for by name, but did not run: {listing(absent)}.\n"
            "  Their parents may call their forward(), use their weights, or take another path.\n"
            f"  ran: {listing(list(calls)) or 'none of the chosen layers'}"
        )
