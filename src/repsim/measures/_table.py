"""Every measure by its name, loaded on first use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repsim.measures._registry import Measure

__all__ = ["Table"]

HOMES = {
    "nbs": "_procrustes",
    "procrustes": "_procrustes",
    "normalised_procrustes": "_procrustes",
    "aligned_cosine": "_aligned_cosine",
    "hsic": "_hsic",
    "cka": "_cka",
    "angular_cka": "_angular",
    "cca": "_cca",
    "svcca": "_cca",
    "pwcca": "_cca",
    "cknna": "_cknna",
    "concentricity_difference": "_concentricity",
    "correlation_match": "_correlation_match",
    "correlation_match_soft": "_correlation_match",
    "distance_correlation": "_distance_correlation",
    "eigenspace_overlap": "_eigenspace",
    "gulp": "_gulp",
    "gulp_without_ridge": "_gulp",
    "information_imbalance": "_information_imbalance",
    "magnitude_difference": "_magnitude",
    "cycle_knn": "_neighbour_order",
    "lcs_knn": "_neighbour_order",
    "edit_knn": "_neighbour_order",
    "mutual_knn": "_neighbours",
    "mutual_knn_euclidean": "_neighbours",
    "jaccard_knn": "_neighbours",
    "second_order_cosine": "_neighbours",
    "permutation_procrustes": "_permutation_procrustes",
    "permutation_procrustes_angle": "_permutation_procrustes",
    "predictivity": "_predictivity",
    "predictivity_pls": "_predictivity",
    "rank_similarity": "_rank_similarity",
    "joint_rank_jaccard": "_rank_similarity",
    "linear_regression_r2": "_regression",
    "rsa": "_rsa",
    "rsa_cosine": "_rsa",
    "rsa_correlation": "_rsa",
    "rsa_whitened": "_rsa",
    "rsm_norm_difference": "_rsm_norm",
    "rsm_norm_difference_frobenius": "_rsm_norm",
    "rv2": "_rv2",
    "shape_distance": "_shape",
    "whitened_shape_distance": "_shape",
    "soft_matching": "_soft_matching",
    "soft_matching_correlation": "_soft_matching",
    "uniformity_difference": "_uniformity",
}
"""The module that registers each measure, in the order of tables and pages."""


class Table(Mapping[str, "Measure"]):
    """The measures that are registered: first those of this package, then those of users."""

    def __init__(self) -> None:
        self._loaded: dict[str, Measure] = {}

    def __getitem__(self, name: str) -> Measure:
        if name not in self._loaded and name in HOMES:
            importlib.import_module(f"repsim.measures.{HOMES[name]}")
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded or name in HOMES

    def __iter__(self) -> Iterator[str]:
        return iter(list(dict.fromkeys([*HOMES, *self._loaded])))

    def __len__(self) -> int:
        return len(HOMES.keys() | self._loaded.keys())

    def of_function(self, function: object) -> list[Measure]:
        """Return the entries of a function. Its module has registered them all."""
        return [measure for measure in self._loaded.values() if measure.function is function]

    def add(self, measure: Measure) -> None:
        """Add a measure, or replace the one that has its name."""
        self._loaded[measure.name] = measure
