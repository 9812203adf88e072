"""The analyses of ``repsim analyse``, by the names of their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim.cli._outcome import Interrupted
from repsim.cli.data._inputs import Inputs
from repsim.cli.models._blocks import default_layers
from repsim.cli.models._load import LoadedModel
from repsim.cli.tasks._shapes import output_shapes

__all__ = ["ANALYSES", "Task", "Tokens"]

FIELD_IMAGES, FIELD_BATCH = 32, 8
"""Images for receptive fields, and images per batch.

More images change a field little. Batches are small because the graph of a batch is in memory.
"""

FINEST = 16
"""Up to this number of rows each token has its own patch; finer maps get 14 x 14 patches."""

HELD_OUT = 5
"""Every n-th sample tests a probe."""


@dataclass(frozen=True)
class Tokens:
    """The user's options about where the tokens of a model lie.

    Attributes
    ----------
    grid : (int, int) or None
        Rows and columns of patches.
    prefix : int or None
        Tokens before them.
    patch_size : float or None
        Pixels from one patch to the next.
    """

    grid: tuple[int, int] | None = None
    prefix: int | None = None
    patch_size: float | None = None


@dataclass
class Task:
    """One model, the data, and the layers to analyse.

    Attributes
    ----------
    model : LoadedModel
        The model.
    inputs : Inputs
        The data.
    wanted : tuple of str, or None
        The layers of ``--layers``; with None each analysis chooses.
    progress : bool
        Whether to show bars.
    tokens : Tokens
        Where they lie.
    attention : tuple of str, or None
        The layers of ``--layers`` if they name modules with attention only.
    state : pathlib.Path or None
        Where an unfinished map is kept.
    """

    model: LoadedModel
    inputs: Inputs
    wanted: tuple[str, ...] | None
    progress: bool
    tokens: Tokens = Tokens()
    attention: tuple[str, ...] | None = None
    state: Path | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the requested layers, or of the blocks of the model."""
        return self.wanted or tuple(default_layers(self.model.module))

    @property
    def blocks(self) -> Any:
        """The layers in the form that an analysis takes.

        Layers that the user did not name may be left out if they have no grid, such as the head of
        a network.
        """
        if self.wanted is not None:
            return self.wanted
        found = frozenset(self.names)
        return lambda name, module: name in found

    @property
    def common(self) -> dict[str, Any]:
        """The common arguments of all analyses."""
        return {"progress": self.progress, "name": self.model.name}

    def batches(self, **options: Any) -> Any:
        """Return batches of inputs of the model, with labels if asked."""
        return self.inputs.batches([self.model], alone=True, **options)


def _layer_map(task: Task) -> Any:
    from repsim.analysis import compare

    result = compare(
        task.model.module,
        data=task.batches(),
        layers=task.wanted or "*",
        # Padding enters no mean.
        transform=None if task.inputs.samples.mask is None else "mean",
        names=(task.model.name, task.model.name),
        progress=task.progress,
        checkpoint=task.state,
    )
    if "interrupted" in result.attrs:
        raise Interrupted(str(result.attrs["interrupted"]))
    return result


def _attention_distance(task: Task) -> Any:
    from repsim.analysis import attention_distance

    return attention_distance(
        task.model.module,
        task.batches(),
        layers=task.attention or "*",
        grid=task.tokens.grid,
        patch_size=task.tokens.patch_size,
        prefix=task.tokens.prefix,
        **task.common,
    )


def _residual_ratios(task: Task) -> Any:
    from repsim.analysis import residual_ratios

    return residual_ratios(
        task.model.module, task.batches(), prefix=task.tokens.prefix, **task.common
    )


def _block_influence(task: Task) -> Any:
    from repsim.analysis import block_influence

    return block_influence(task.model.module, task.batches(), **task.common)


def _receptive_field(task: Task) -> Any:
    from repsim.analysis import effective_receptive_field

    few = task.batches(
        order=task.inputs.order[:FIELD_IMAGES],
        batch_size=min(FIELD_BATCH, task.inputs.batch_size),
    )
    return effective_receptive_field(
        task.model.module,
        few,
        task.blocks,
        seed=task.inputs.seed,
        grid=task.tokens.grid,
        prefix=task.tokens.prefix,
        **task.common,
    )


def _localization(task: Task) -> Any:
    from repsim.analysis import token_localization

    shapes = output_shapes(task.model, task.inputs, task.names)
    finest = max((max(each.shape[2:]) for each in shapes if len(each.shape) == 4), default=0)
    return token_localization(
        task.model.module,
        task.batches(),
        task.blocks,
        patches=(14, 14) if finest > FINEST else None,
        grid=task.tokens.grid,
        prefix=task.tokens.prefix,
        **task.common,
    )


def _linear_probe(task: Task) -> Any:
    from repsim.analysis import linear_probe

    labels = task.inputs.samples.labels
    if labels is None:
        raise InputError(
            "linear_probe: the data have no labels.\n"
            "  Put the images of each class into a sub-folder, or labels into the .npz."
        )
    order = task.inputs.order
    test = order[::HELD_OUT]
    train = [at for k, at in enumerate(order) if k % HELD_OUT]
    return linear_probe(
        task.model.module,
        task.batches(order=np.array(train), labelled=True),
        task.batches(order=test, labelled=True),
        layers=task.blocks,
        n_classes=int(labels.max()) + 1,
        prefix=task.tokens.prefix,
        **task.common,
    )


ANALYSES: dict[str, Callable[[Task], Any]] = {
    "layer_map": _layer_map,
    "attention_distance": _attention_distance,
    "residual_ratios": _residual_ratios,
    "block_influence": _block_influence,
    "receptive_field": _receptive_field,
    "localization": _localization,
    "linear_probe": _linear_probe,
}
"""By the name of the saved result, in the order in which they run."""
