"""Representation similarity: how alike two networks see.

``repsim.cka(x, y)`` compares arrays of any framework, ``repsim.compare(model_x, model_y,
data=...)`` unmodified torch models, and ``repsim.MinibatchCKA`` batches of named activations.

Every name loads on first use and imports only what it needs. ``import repsim`` loads only the
errors, and the first ``repsim.cka`` loads NumPy. Neither loads torch, pandas, xarray, SciPy,
matplotlib or jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from repsim._errors import (
    ArrayTypeError,
    CaptureError,
    ChanceWarning,
    CheckpointError,
    DegenerateWarning,
    InputError,
    LayerNotFoundError,
    NonFiniteError,
    RepsimError,
    RepsimWarning,
    StateError,
)
from repsim._version import __version__

if TYPE_CHECKING:
    from repsim import attention, inference, kernels, plot, report
    from repsim.analysis import (
        attention_distance,
        block_influence,
        compare,
        data_scale,
        effective_receptive_field,
        extract,
        head_subset_cka,
        linear_probe,
        probe_activations,
        residual_ratios,
        residual_sites,
        token_localization,
    )
    from repsim.capture import Recorder, without_residual
    from repsim.inference import (
        calibrated_score,
        chance_floor,
        jackknife,
        max_t,
        permutation_test,
    )
    from repsim.measures import (
        align,
        aligned_cosine,
        angular_cka,
        cca,
        cka,
        cka_from_gram,
        cknna,
        correlation_match,
        distance_correlation,
        eigenspace_overlap,
        gulp,
        hsic,
        information_imbalance,
        jaccard_knn,
        layer_match,
        linear_regression_r2,
        mutual_knn,
        nbs,
        pairwise,
        permutation_procrustes,
        procrustes,
        pwcca,
        rdm,
        rsa,
        rsa_from_rdm,
        rsm_norm_difference,
        rv2,
        second_order_cosine,
        shape_distance,
        soft_matching,
        svcca,
    )
    from repsim.storage import open_activations
    from repsim.streaming import (
        MinibatchCKA,
        StreamingLinearCKA,
        cka_matrix,
    )

_LAZY = {
    "MinibatchCKA": "repsim.streaming",
    "Recorder": "repsim.capture",
    "StreamingLinearCKA": "repsim.streaming",
    "align": "repsim.measures",
    "aligned_cosine": "repsim.measures",
    "angular_cka": "repsim.measures",
    "attention": "repsim",
    "attention_distance": "repsim.analysis",
    "block_influence": "repsim.analysis",
    "calibrated_score": "repsim.inference",
    "cca": "repsim.measures",
    "chance_floor": "repsim.inference",
    "cka": "repsim.measures",
    "cka_from_gram": "repsim.measures",
    "cka_matrix": "repsim.streaming",
    "cknna": "repsim.measures",
    "compare": "repsim.analysis",
    "correlation_match": "repsim.measures",
    "data_scale": "repsim.analysis",
    "distance_correlation": "repsim.measures",
    "effective_receptive_field": "repsim.analysis",
    "eigenspace_overlap": "repsim.measures",
    "estimators": "repsim",
    "extract": "repsim.analysis",
    "gulp": "repsim.measures",
    "head_subset_cka": "repsim.analysis",
    "hsic": "repsim.measures",
    "inference": "repsim",
    "information_imbalance": "repsim.measures",
    "jaccard_knn": "repsim.measures",
    "jackknife": "repsim.inference",
    "kernels": "repsim",
    "layer_match": "repsim.measures",
    "linear_probe": "repsim.analysis",
    "linear_regression_r2": "repsim.measures",
    "max_t": "repsim.inference",
    "measures": "repsim",
    "mutual_knn": "repsim.measures",
    "nbs": "repsim.measures",
    "open_activations": "repsim.storage",
    "pairwise": "repsim.measures",
    "permutation_procrustes": "repsim.measures",
    "permutation_test": "repsim.inference",
    "plot": "repsim",
    "probe_activations": "repsim.analysis",
    "procrustes": "repsim.measures",
    "pwcca": "repsim.measures",
    "rdm": "repsim.measures",
    "report": "repsim",
    "residual_ratios": "repsim.analysis",
    "residual_sites": "repsim.analysis",
    "rsa": "repsim.measures",
    "rsa_from_rdm": "repsim.measures",
    "rsm_norm_difference": "repsim.measures",
    "rv2": "repsim.measures",
    "second_order_cosine": "repsim.measures",
    "shape_distance": "repsim.measures",
    "soft_matching": "repsim.measures",
    "svcca": "repsim.measures",
    "token_localization": "repsim.analysis",
    "without_residual": "repsim.capture",
}

__all__ = [
    "ArrayTypeError",
    "CaptureError",
    "ChanceWarning",
    "CheckpointError",
    "DegenerateWarning",
    "InputError",
    "LayerNotFoundError",
    "MinibatchCKA",
    "NonFiniteError",
    "Recorder",
    "RepsimError",
    "RepsimWarning",
    "StateError",
    "StreamingLinearCKA",
    "__version__",
    "align",
    "aligned_cosine",
    "angular_cka",
    "attention",
    "attention_distance",
    "block_influence",
    "calibrated_score",
    "cca",
    "chance_floor",
    "cka",
    "cka_from_gram",
    "cka_matrix",
    "cknna",
    "compare",
    "correlation_match",
    "data_scale",
    "distance_correlation",
    "effective_receptive_field",
    "eigenspace_overlap",
    "extract",
    "gulp",
    "head_subset_cka",
    "hsic",
    "inference",
    "information_imbalance",
    "jaccard_knn",
    "jackknife",
    "kernels",
    "layer_match",
    "linear_probe",
    "linear_regression_r2",
    "max_t",
    "mutual_knn",
    "nbs",
    "open_activations",
    "pairwise",
    "permutation_procrustes",
    "permutation_test",
    "plot",
    "probe_activations",
    "procrustes",
    "pwcca",
    "rdm",
    "report",
    "residual_ratios",
    "residual_sites",
    "rsa",
    "rsa_from_rdm",
    "rsm_norm_difference",
    "rv2",
    "second_order_cosine",
    "shape_distance",
    "soft_matching",
    "svcca",
    "token_localization",
    "without_residual",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'repsim' has no attribute {name!r}")
    if _LAZY[name] == "repsim":
        return importlib.import_module(f"repsim.{name}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
