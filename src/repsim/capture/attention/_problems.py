"""Errors about attention that could not be recorded, with repairs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from repsim.capture.attention._eager import Softmax
from repsim.capture.layers._select import listing

__all__ = ["WHY_UNMATCHED", "Problem", "problems_of", "why_absent", "why_nothing"]

Problem = tuple[str, str]
"""A module, and the softmaxes in it that resemble attention."""

WHY_UNMATCHED = (
    "  Attention is seen where a softmax multiplies the values in a matrix product. Talking heads "
    "change the weights\n  before it. Deformable attention (Deformable DETR, RT-DETRv2, D-FINE) "
    "multiplies values that it samples.\n"
    "  Leave such layers out of layers=."
)


def problems_of(
    softmaxes: Iterable[Softmax], unclear: Sequence[Problem], chosen: Collection[str] | None
) -> list[Problem]:
    """List softmaxes of the chosen layers that resemble attention but were not recognised.

    Parameters
    ----------
    softmaxes : iterable of Softmax
        Those of the forward.
    unclear : sequence of Problem
        Attention whose heads cannot be distinguished from the batch.
    chosen : collection of str, optional
        Names of layers; by default all.
    """
    names = {name for name, _ in unclear}
    found = [
        *(
            (softmax.layer, f"softmax in {softmax}")
            for softmax in softmaxes
            if not softmax.matched and softmax.resembles_attention and softmax.layer not in names
        ),
        *((name, f"{text}: which axis holds the heads is unknown") for name, text in unclear),
    ]
    if chosen is None:
        return found
    # The softmax may be a separate module inside the one that holds the attention.
    return [
        (name, text) for name, text in found if name in chosen or name.rpartition(".")[0] in chosen
    ]


def why_absent(absent: Sequence[str], seen: Sequence[str], problems: Sequence[Problem]) -> str:
    """Return the error that says why layers with exact names have no attention.

    Parameters
    ----------
    absent : sequence of str
        Their labels.
    seen : sequence of str
        The modules in which attention was seen.
    problems : sequence of Problem
        Softmaxes that resemble attention.
    """
    inside = [
        name
        for name in seen
        if any(name.startswith(f"{label.partition(':')[0]}.") for label in absent)
    ]
    lines = [f"AttentionRecorder: no attention was seen in {listing(absent)}."]
    lines += [f"  {text}" for _, text in problems[:8]]
    if problems:
        lines.append(WHY_UNMATCHED)
    if inside:
        lines.append(f"  inside there is attention in {listing(inside)}: ask for these")
    else:
        lines.append(f"  attention was seen in: {listing(seen) if seen else 'none'}")
    return "\n".join(lines)


def why_nothing(
    problems: Sequence[Problem],
    not_chosen: Collection[str],
    softmaxes: Iterable[Softmax],
    *,
    ran: bool,
) -> str:
    """Return the error that says why no attention was recorded.

    Parameters
    ----------
    problems : sequence of Problem
        Softmaxes that resemble attention.
    not_chosen : collection of str
        Modules with attention that were not chosen.
    softmaxes : iterable of Softmax
        Those of the forward.
    ran : bool
        Whether the model ran.
    """
    head = "AttentionRecorder: no attention was seen"
    if problems:
        shown = "".join(f"  {text}\n" for _, text in problems[:8])
        return (
            f"{head} that could be followed from its softmax to the values.\n{shown}{WHY_UNMATCHED}"
        )
    if not_chosen:
        return (
            f"{head} in the chosen layers.\n"
            f"  attention is in: {listing(sorted(not_chosen))}\n"
            "  Choose the modules whose forward holds it, or layers='*'."
        )
    if not ran:
        return f"{head}: the model did not run.\n  Call it inside the block."
    alone = [str(softmax) for softmax in softmaxes if not softmax.matched]
    others = f"  softmaxes without values: {'; '.join(alone[:8])}\n" if alone else ""
    return (
        f"{head}.\n{others}"
        "  What is seen: scaled_dot_product_attention, flex_attention, nn.MultiheadAttention, and "
        "a softmax over the last axis that multiplies the values.\n"
        '  A model with another kernel may take attn_implementation="sdpa" or "eager". '
        "Scripted functions cannot be seen."
    )
