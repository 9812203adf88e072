"""Measures: two representations in, one number out.

Every name loads on first use, so the first ``repsim.cka`` does not wait for forty other measures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from repsim.measures._registry import (
    INVARIANCES,
    MEASURES,
    Measure,
    evaluate,
    register,
    undefined,
)
from repsim.measures._resolve import check_values, resolve_measure

if TYPE_CHECKING:
    from repsim.measures._align import align
    from repsim.measures._aligned_cosine import aligned_cosine
    from repsim.measures._alignment_map import alignment_map
    from repsim.measures._angular import angular_cka
    from repsim.measures._cca import cca, pwcca, svcca
    from repsim.measures._cka import cka, cka_from_gram
    from repsim.measures._cknna import cknna
    from repsim.measures._concentricity import concentricity_difference
    from repsim.measures._correlation_match import correlation_match
    from repsim.measures._distance_correlation import distance_correlation
    from repsim.measures._effective_dimension import effective_dimension
    from repsim.measures._eigenspace import eigenspace_overlap
    from repsim.measures._gromov import gromov_wasserstein
    from repsim.measures._gulp import gulp
    from repsim.measures._hsic import hsic
    from repsim.measures._information_imbalance import information_imbalance
    from repsim.measures._layer_match import layer_match
    from repsim.measures._magnitude import magnitude_difference
    from repsim.measures._map_of_pairs import map_of_pairs
    from repsim.measures._neighbour_order import cycle_knn, edit_knn, lcs_knn
    from repsim.measures._neighbours import jaccard_knn, mutual_knn, second_order_cosine
    from repsim.measures._outputs import disagreement, jensen_shannon
    from repsim.measures._pairwise import pairwise
    from repsim.measures._permutation_procrustes import permutation_procrustes
    from repsim.measures._predictivity import predictivity
    from repsim.measures._procrustes import nbs, procrustes
    from repsim.measures._rank_similarity import joint_rank_jaccard, rank_similarity
    from repsim.measures._rdm import rdm
    from repsim.measures._regression import linear_regression_r2
    from repsim.measures._rsa import rsa
    from repsim.measures._rsa_from_rdm import rdm_item, rsa_from_rdm
    from repsim.measures._rsm_norm import rsm_norm_difference
    from repsim.measures._rv2 import rv2
    from repsim.measures._shape import shape_distance
    from repsim.measures._soft_matching import soft_matching
    from repsim.measures._uniformity import uniformity_difference
    from repsim.measures.fitted._cca import CCAAlignment
    from repsim.measures.fitted._permutation import PermutationAlignment
    from repsim.measures.fitted._procrustes import ProcrustesAlignment
    from repsim.measures.fitted._regression import RegressionAlignment
    from repsim.measures.parts._geometry import Contrasts
    from repsim.measures.parts._kernel_item import KernelItem
    from repsim.results import layer_map, layer_names, measure_label, model_name

_HOMES = {
    "CCAAlignment": "measures.fitted._cca",
    "Contrasts": "measures.parts._geometry",
    "KernelItem": "measures.parts._kernel_item",
    "PermutationAlignment": "measures.fitted._permutation",
    "ProcrustesAlignment": "measures.fitted._procrustes",
    "RegressionAlignment": "measures.fitted._regression",
    "align": "measures._align",
    "aligned_cosine": "measures._aligned_cosine",
    "alignment_map": "measures._alignment_map",
    "angular_cka": "measures._angular",
    "cca": "measures._cca",
    "cka": "measures._cka",
    "cka_from_gram": "measures._cka",
    "cknna": "measures._cknna",
    "concentricity_difference": "measures._concentricity",
    "correlation_match": "measures._correlation_match",
    "cycle_knn": "measures._neighbour_order",
    "disagreement": "measures._outputs",
    "distance_correlation": "measures._distance_correlation",
    "edit_knn": "measures._neighbour_order",
    "effective_dimension": "measures._effective_dimension",
    "eigenspace_overlap": "measures._eigenspace",
    "gromov_wasserstein": "measures._gromov",
    "gulp": "measures._gulp",
    "hsic": "measures._hsic",
    "information_imbalance": "measures._information_imbalance",
    "jaccard_knn": "measures._neighbours",
    "jensen_shannon": "measures._outputs",
    "joint_rank_jaccard": "measures._rank_similarity",
    "layer_map": "results",
    "layer_match": "measures._layer_match",
    "layer_names": "results",
    "lcs_knn": "measures._neighbour_order",
    "linear_regression_r2": "measures._regression",
    "magnitude_difference": "measures._magnitude",
    "map_of_pairs": "measures._map_of_pairs",
    "measure_label": "results",
    "model_name": "results",
    "mutual_knn": "measures._neighbours",
    "nbs": "measures._procrustes",
    "pairwise": "measures._pairwise",
    "permutation_procrustes": "measures._permutation_procrustes",
    "predictivity": "measures._predictivity",
    "procrustes": "measures._procrustes",
    "pwcca": "measures._cca",
    "rank_similarity": "measures._rank_similarity",
    "rdm": "measures._rdm",
    "rdm_item": "measures._rsa_from_rdm",
    "rsa": "measures._rsa",
    "rsa_from_rdm": "measures._rsa_from_rdm",
    "rsm_norm_difference": "measures._rsm_norm",
    "rv2": "measures._rv2",
    "second_order_cosine": "measures._neighbours",
    "shape_distance": "measures._shape",
    "soft_matching": "measures._soft_matching",
    "svcca": "measures._cca",
    "uniformity_difference": "measures._uniformity",
}

__all__ = [
    "INVARIANCES",
    "MEASURES",
    "CCAAlignment",
    "Contrasts",
    "KernelItem",
    "Measure",
    "PermutationAlignment",
    "ProcrustesAlignment",
    "RegressionAlignment",
    "align",
    "aligned_cosine",
    "alignment_map",
    "angular_cka",
    "cca",
    "check_values",
    "cka",
    "cka_from_gram",
    "cknna",
    "concentricity_difference",
    "correlation_match",
    "cycle_knn",
    "disagreement",
    "distance_correlation",
    "edit_knn",
    "effective_dimension",
    "eigenspace_overlap",
    "evaluate",
    "gromov_wasserstein",
    "gulp",
    "hsic",
    "information_imbalance",
    "jaccard_knn",
    "jensen_shannon",
    "joint_rank_jaccard",
    "layer_map",
    "layer_match",
    "layer_names",
    "lcs_knn",
    "linear_regression_r2",
    "magnitude_difference",
    "map_of_pairs",
    "measure_label",
    "model_name",
    "mutual_knn",
    "nbs",
    "pairwise",
    "permutation_procrustes",
    "predictivity",
    "procrustes",
    "pwcca",
    "rank_similarity",
    "rdm",
    "rdm_item",
    "register",
    "resolve_measure",
    "rsa",
    "rsa_from_rdm",
    "rsm_norm_difference",
    "rv2",
    "second_order_cosine",
    "shape_distance",
    "soft_matching",
    "svcca",
    "undefined",
    "uniformity_difference",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'repsim.measures' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"repsim.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
