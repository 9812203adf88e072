"""Analyses: each takes models and a stream of data and returns a labelled ``xarray.Dataset``."""

from repsim.analysis._call import call_model
from repsim.analysis._extract import extract
from repsim.analysis.attention._distance import attention_distance
from repsim.analysis.attention._head_subsets import head_subset_cka
from repsim.analysis.features._alignment import alignment
from repsim.analysis.images._localization import token_localization
from repsim.analysis.images._receptive_field import effective_receptive_field
from repsim.analysis.maps._compare import compare
from repsim.analysis.probes._activation_probe import probe_activations
from repsim.analysis.probes._linear_probe import linear_probe
from repsim.analysis.residual._block_influence import block_influence
from repsim.analysis.residual._ratios import residual_ratios
from repsim.analysis.residual._sites import residual_sites
from repsim.analysis.run._drive import as_found
from repsim.analysis.run._fingerprint import model_digest
from repsim.analysis.stitching._stitch import stitch
from repsim.analysis.training._data_scale import data_scale
from repsim.analysis.training._trajectory import trajectory

__all__ = [
    "alignment",
    "as_found",
    "attention_distance",
    "block_influence",
    "call_model",
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
    "stitch",
    "token_localization",
    "trajectory",
]
