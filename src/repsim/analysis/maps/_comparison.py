"""What one call of `compare` compares: two models, their layers, and the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, TypeAlias

from torch import nn

from repsim.analysis.maps._side import Side, SideOptions, Sides
from repsim.analysis.run._drive import Forward, Prepare
from repsim.analysis.run._fingerprint import label_of, model_digest, modules_digest
from repsim.analysis.run._provenance import model_label, transform_label
from repsim.analysis.run._sample_finder import BatchSize
from repsim.analysis.run._token_samples import Pairs, Samples, TokenSamples
from repsim.analysis.run.ranks import SampleIds
from repsim.analysis.run.settings import autocast_of, codes_of, settings_digest
from repsim.capture import Layers

__all__ = ["Comparison", "label_of_side"]

OneSide: TypeAlias = tuple[nn.Module, Layers, SideOptions, Prepare | None]
"""A model, its layers, what is compared of an output, and the function of its batches."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The arguments of `compare` that do not depend on the measure, checked.

    None in place of the model or the layers of y means those of x.
    """

    data: Iterable[Any] | None
    x: OneSide
    y: tuple[nn.Module | None, Layers | None, SideOptions, Prepare | None]
    forward: Forward | None
    batch_size: BatchSize
    sample_ids: SampleIds | None
    samples: Samples
    pairs: Pairs
    tokens: TokenSamples | None
    names: tuple[str, str] | None
    progress: bool
    checkpoint: str | PathLike[str] | None

    def sides(self, side: Callable[..., Side]) -> Sides[Side]:
        """Return both sides of this kind."""
        made = partial(
            side,
            "compare",
            tokens=self.tokens,
            forward=self.forward,
            batch_size=self.batch_size,
        )
        return Sides.of(made, self.x, self.y)

    def labels(self, sides: Sides[Any]) -> dict[str, str]:
        """Return the names of the models and the transforms, for ``attrs``."""
        of_x, of_y = self.x[2], self.y[2]
        labels = {
            "model_x": model_label(self.x[0], self.names and self.names[0]),
            "model_y": model_label(sides.model_y, self.names and self.names[1]),
            "transform": transform_label(of_x.transform),
        }
        if of_y.transform is not of_x.transform:
            labels["transform_y"] = transform_label(of_y.transform)
        return labels

    def fingerprint(
        self, sides: Sides[Any], *, with_shards: bool = True, **more: Any
    ) -> dict[str, Any]:
        """Return the values that must be equal to go on with a saved state.

        Without shards, they are also those that must be equal on all ranks.
        """
        x, y = sides.x, sides.y
        functions = {
            "prepare_x": self.x[3],
            "prepare_y": self.y[3],
            "forward": self.forward,
            "batch_size": self.batch_size,
            "sample_ids": self.sample_ids,
        }
        of_process: Mapping[str, str | None] = {}
        if with_shards:
            of_process = {
                "attributes and code of model_x": settings_digest(x.model),
                "attributes and code of model_y": settings_digest(sides.model_y),
                "autocast of model_x": autocast_of(x.model),
                "autocast of model_y": autocast_of(sides.model_y),
                **codes_of(functions),
                **codes_of(_functions_of(x.options, "x")),
                **codes_of(_functions_of(sides.options_y, "y")),
            }
        samples: Mapping[str, Any] = {}
        if self.tokens is not None:
            samples = {"samples": self.samples, "pairs": self.pairs, **self.tokens.options()}
        return {
            **self.labels(sides),
            **more,
            **samples,
            **of_process,
            "modules of model_x": modules_digest(x.model),
            "modules of model_y": modules_digest(sides.model_y),
            "weights of model_x": model_digest(x.model, with_shards=with_shards),
            "weights of model_y": model_digest(sides.model_y, with_shards=with_shards),
            "layers": x.chosen,
            "layers_y": "as layers" if y is None else y.chosen,
            "options of x": label_of_side(x.options),
            "options of y": label_of_side(sides.options_y),
            **{name: label_of(value) for name, value in functions.items()},
        }


def _functions_of(options: SideOptions, side: str) -> dict[str, Any]:
    """Return the options of a side that may hold functions, by name."""
    named = {"transform": options.transform, "mask": options.mask, "select": options.select}
    return {f"{name}_{side}": each for name, each in named.items()}


def label_of_side(options: SideOptions) -> str:
    """Return a text that stands for the options of a side."""
    named = (options.mask, options.select, options.batch_dim)
    more = ["all modules"] if options.all_modules else []
    return ", ".join([transform_label(options.transform), *map(label_of, named), *more])
