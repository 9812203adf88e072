"""What ranks exchange about linear probes: layers, classifiers, and hits on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from repsim._errors import InputError
from repsim.analysis.probes._labelled import IntArray
from repsim.analysis.probes._state import Floats, TestedProbe, TrainedProbe, of_one
from repsim.analysis.run._sequence_means import SequenceMeans
from repsim.analysis.run.ranks import Ranks

__all__ = ["TestTotals", "chosen_probes"]

Layers: TypeAlias = dict[str, tuple[tuple[str, ...], int]]
"""The tokens and the number of features of every layer, in execution order."""


def chosen_probes(
    ranks: Ranks,
    training: dict[str, TrainedProbe],
    ridges: Sequence[float],
    classes: int,
    *,
    standardize: bool,
) -> dict[str, TestedProbe]:
    """Return the classifiers of every layer, fitted on the samples of all ranks.

    The state of a layer is freed once its classifiers exist, and is exchanged layer by layer.
    """
    mine: Layers = {
        layer: (each.names, 0 if each.home is None else len(each.home))
        for layer, each in training.items()
    }
    layers = ranks.merged(mine or None, _same_layers)
    gathered = of_one if ranks.alone else ranks.gather
    tested: dict[str, TestedProbe] = {}
    for layer, (names, _) in layers.items():
        trained = training.pop(layer, None) or TrainedProbe(names)
        tested[layer] = trained.choose(ridges, classes, standardize=standardize, gathered=gathered)
    return tested


def _same_layers(parts: Sequence[Layers]) -> Layers:
    first = parts[0]
    for other in parts[1:]:
        names = dict.fromkeys([*first, *other])
        unlike = [name for name in names if first.get(name) != other.get(name)]
        if unlike:
            name = unlike[0]
            raise InputError(
                f"linear_probe: all ranks must have the same layers, tokens and features.\n"
                f"  layer {name!r}: {_described(first.get(name))} on one rank, "
                f"{_described(other.get(name))} on another\n"
                '  For inputs of different sizes take tokens="mean", or give them one size.'
            )
    return first


def _described(layer: tuple[tuple[str, ...], int] | None) -> str:
    if layer is None:
        return "it did not run"
    return f"{len(layer[0])} tokens of {layer[1]} features"


@dataclass(frozen=True)
class TestTotals:
    """The hits on test.

    Attributes
    ----------
    counts : numpy.ndarray, shape (K,)
        The samples of each class.
    layers : mapping of str to (numpy.ndarray, SequenceMeans)
        Hits by token, and the accuracy by sequence where samples are tokens.
    """

    counts: IntArray
    layers: Mapping[str, tuple[Floats, SequenceMeans]]

    __test__ = False  # pytest would take a class of this name for a test

    @staticmethod
    def merge(parts: Sequence[TestTotals]) -> TestTotals:
        """Return the hits on the samples of all parts."""
        layers = {}
        for name in parts[0].layers:
            correct = np.sum([each.layers[name][0] for each in parts], axis=0)
            sequences = SequenceMeans.merge([each.layers[name][1] for each in parts])
            layers[name] = correct, sequences
        return TestTotals(np.sum([each.counts for each in parts], axis=0), layers)

    def put_in(self, tested: Mapping[str, TestedProbe]) -> dict[str, TestedProbe]:
        """Return these probes with the hits of all ranks."""
        return {name: each.with_totals(*self.layers[name]) for name, each in tested.items()}
