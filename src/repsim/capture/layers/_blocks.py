"""The repeated blocks of a model, found from names, classes and weights; nothing runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

__all__ = ["BLOCKS", "blocks_of", "number_of"]

BLOCKS = "blocks"
"""The word of ``layers=`` for them."""

NUMBERED = re.compile(r"^(.*?)(\d+)$")

ASIDE = re.compile(r"expert|head|adapter|lora", re.I)
"""Lists whose members stand side by side in one block."""

PART = re.compile(rf"{ASIDE.pattern}|branch|aux|attn|attention|ffn|feed_?forward", re.I)
"""Numbered parts of a block, or of what is beside the blocks."""

LEAST = 2
"""The fewest layers with a weight matrix in a block. A convolution and its norm have one."""


def number_of(name: str) -> tuple[str, int] | None:
    """Split the last part of a name into its stem and its number; None if it has none.

    >>> number_of("encoder.layers.encoder_layer_11"), number_of("conv1.weight")
    (('encoder.layers.encoder_layer_', 11), None)
    """
    parts = NUMBERED.match(name)
    return None if parts is None else (parts[1], int(parts[2]))


def blocks_of(named: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the repeated blocks of a model, in the order of registration.

    >>> from repsim.capture import named_layers
    >>> layers = [nn.TransformerEncoderLayer(4, 2) for _ in range(3)]
    >>> blocks_of(named_layers(nn.Sequential(*layers, nn.Linear(4, 2))))
    ['0', '1', '2']

    A block is a numbered child, like ``blocks.3`` or ``denselayer2``, with at least two layers that
    hold a matrix of weights. It has numbered siblings of one class; or it is the only child of a
    numbered stage, and its class occurs elsewhere. A numbered child whose name differs from that of
    a block in its numbers alone, in another stage, is a block too. Where stages hold blocks, the
    blocks are returned.

    :func:`repsim.block_influence` leaves out those without a residual addition.

    Parameters
    ----------
    named : mapping of str to torch.nn.Module
        Every submodule by its name, as :func:`repsim.capture.named_layers` returns them.

    Returns
    -------
    list of str
        Empty if no module is repeated in this way, as in VGG and Inception.
    """
    weights = Counter(
        above for name, module in named.items() if _has_matrix(module) for above in _paths(name)
    )
    runs: dict[str, list[str]] = {}
    for name, module in named.items():
        numbered = number_of(name)
        if numbered is None or weights[name] < LEAST or _is_part(name, module):
            continue
        runs.setdefault(numbered[0], []).append(name)
    found = {name for run in runs.values() if _are_alike(run, named) for name in run}
    alone = [name for run in runs.values() for name in run if _is_only_child(name, named)]
    found |= _of_one_class(alone, named)
    # A block whose class occurs nowhere else in its stage, beside stages with such blocks.
    places = {_place(name) for name in found}
    found.update(name for run in runs.values() for name in run if _place(name) in places)
    outer = {above for name in found for above in _paths(name) if above != name}
    return [name for name in named if name in found - outer]


def _paths(name: str) -> list[str]:
    """Return the names of a module and of all modules that hold it, without the root."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _is_part(name: str, module: nn.Module) -> bool:
    *_, above, own = ["", *name.split(".")]
    return bool(PART.search(own) or ASIDE.search(above) or ASIDE.search(type(module).__name__))


def _are_alike(run: Sequence[str], named: Mapping[str, nn.Module]) -> bool:
    """Whether two of a run are of one class."""
    return len({type(named[name]) for name in run}) < len(run)


def _of_one_class(names: Sequence[str], named: Mapping[str, nn.Module]) -> set[str]:
    """Return the modules whose class occurs at least twice among them."""
    times = Counter(type(named[name]) for name in names)
    return {name for name in names if times[type(named[name])] > 1}


def _place(name: str) -> str:
    """Return a name without its numbers."""
    return re.sub(r"\d+", "#", name)


def _is_only_child(name: str, named: Mapping[str, nn.Module]) -> bool:
    parent = named.get(name.rpartition(".")[0])
    return parent is not None and len(list(parent.children())) == 1


def _has_matrix(module: nn.Module) -> bool:
    return any(weight.ndim > 1 for weight in module.parameters(recurse=False))
