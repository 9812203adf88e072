"""A data set and its options, from the command line to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from repsim.cli.data._batches import BadSamples, Batches, chosen_samples
from repsim.cli.data._samples import Samples, open_samples
from repsim.cli.models._load import LoadedModel
from repsim.results import attribute

__all__ = ["Inputs"]


@dataclass
class Inputs:
    """The samples that a command runs over.

    Attributes
    ----------
    data : str
        What ``--data`` names.
    limit : int or None
        Number of samples; None for all.
    seed : int
        Seed of their order.
    batch_size, workers : int
        As in :class:`repsim.cli.data._batches.Batches`.
    stop_at_bad : bool
        Whether an image that cannot be read is an error.
    """

    data: str
    limit: int | None = None
    seed: int = 0
    batch_size: int = 128
    workers: int = 2
    stop_at_bad: bool = False

    def __post_init__(self) -> None:
        self.samples: Samples = open_samples(self.data)
        self.bad = BadSamples(self.stop_at_bad)

    @cached_property
    def order(self) -> np.ndarray[Any, Any]:
        """The numbers of the chosen samples, in the order of the first pass."""
        return chosen_samples(self.samples, self.limit, self.seed)

    def arguments(self) -> dict[str, Any]:
        """Return all values that determine the batches, in JSON types."""
        return {
            "data": self.samples.digest,
            "n": len(self.samples),
            "limit": self.limit,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "on_bad_image": "error" if self.stop_at_bad else "skip",
        }

    def batches(
        self,
        models: Sequence[LoadedModel],
        *,
        order: np.ndarray[Any, Any] | None = None,
        batch_size: int | None = None,
        alone: bool = False,
        labelled: bool = False,
    ) -> Batches:
        """Return the batches for these models; by default all chosen samples.

        Raises
        ------
        UsageError
            A model needs images but does not say how it gets them, or takes no texts with a mask.
        """
        images = self.samples.are_images
        if self.samples.mask is not None:
            for model in models:
                model.require_texts()
        return Batches(
            self.samples,
            self.order if order is None else order,
            [model.for_images() if images else None for model in models],
            batch_size=batch_size or self.batch_size,
            seed=self.seed,
            bad=self.bad,
            workers=self.workers,
            alone=alone,
            labelled=labelled,
        )

    def provenance(self) -> dict[str, Any]:
        """Return the attributes of a result about its data."""
        return {
            "data": self.samples.name,
            "data_digest": self.samples.digest,
            "data_seed": attribute(self.seed),
            "batch_size": self.batch_size,
            **self.bad.attributes(),
        }
