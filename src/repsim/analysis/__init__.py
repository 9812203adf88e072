"""Experiments: models and a stream of data in, a labelled ``xarray.Dataset`` out."""

from repsim.analysis._activation_probe import probe_activations
from repsim.analysis._attention_distance import attention_distance
from repsim.analysis._compare import compare
from repsim.analysis._data_scale import data_scale
from repsim.analysis._drive import as_found, run
from repsim.analysis._extract import extract
from repsim.analysis._fingerprint import model_digest
from repsim.analysis._head_subsets import head_subset_cka
from repsim.analysis._linear_probe import linear_probe
from repsim.analysis._localization import token_localization
from repsim.analysis._receptive_field import effective_receptive_field
from repsim.analysis._residual_ratios import residual_ratios
from repsim.analysis._residual_sites import residual_sites

__all__ = [
    "as_found",
    "attention_distance",
    "compare",
    "data_scale",
    "effective_receptive_field",
    "extract",
    "head_subset_cka",
    "linear_probe",
    "model_digest",
    "probe_activations",
    "residual_ratios",
    "residual_sites",
    "run",
    "token_localization",
]
