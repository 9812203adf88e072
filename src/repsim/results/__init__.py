"""The contents of results: kinds, their variables and units, and files."""

from repsim.results._attribute import attribute
from repsim.results._findings import Finding, Table, ends, extreme
from repsim.results._kind import Kind, Variable
from repsim.results._maps import (
    DIMS,
    layer_map,
    layer_names,
    main_map,
    map_of_layers,
    measure_label,
    model_name,
    models_of,
    scale_of,
)
from repsim.results._netcdf import UnstorableError, decode, encode
from repsim.results._reading import (
    has,
    mean_of,
    model_of,
    names_of,
    optional_values,
    unit_of,
    values_of,
)
from repsim.results._registry import KINDS, kind_of, register
from repsim.results._text import number, ordinal, percent, plus_minus
from repsim.results.kinds._alignment import ALIGNMENT
from repsim.results.kinds._attention_distance import ATTENTION_DISTANCE, uniform_distances
from repsim.results.kinds._block_influence import BLOCK_INFLUENCE, closest_spans
from repsim.results.kinds._data_scale import DATA_SCALE, part_label
from repsim.results.kinds._head_subset_cka import ALONG_DISTANCE, HEAD_SUBSET_CKA, subset_order
from repsim.results.kinds._layer_map import (
    ADJUSTED,
    LAYER_MAP,
    MAX_T,
    chance_table,
    chance_threshold,
    is_with_itself,
    main_variable,
    map_table,
    map_variables,
    measured_map,
    model_names,
)
from repsim.results.kinds._layer_match import LAYER_MATCH, LOWER_HALF, above_chance, similarity_of
from repsim.results.kinds._linear_probe import LINEAR_PROBE, chosen_tokens, single_tokens
from repsim.results.kinds._receptive_field import DECADES, RECEPTIVE_FIELD
from repsim.results.kinds._residual_ratios import GROUPS, RATIO, RESIDUAL_RATIOS, group_ratios
from repsim.results.kinds._stitching import STITCHING
from repsim.results.kinds._token_localization import (
    PLACES,
    TOKEN_LOCALIZATION,
    Frame,
    frame_map,
    token_maps,
    token_scale,
)
from repsim.results.kinds._trajectory import (
    BETWEEN_STEPS,
    EACH_OTHER,
    TRAJECTORY,
    against,
    is_between,
    log_from,
    step_label,
    trajectory_label,
    trajectory_scale,
    trajectory_variable,
)

__all__ = [
    "ADJUSTED",
    "ALIGNMENT",
    "ALONG_DISTANCE",
    "ATTENTION_DISTANCE",
    "BETWEEN_STEPS",
    "BLOCK_INFLUENCE",
    "DATA_SCALE",
    "DECADES",
    "DIMS",
    "EACH_OTHER",
    "GROUPS",
    "HEAD_SUBSET_CKA",
    "KINDS",
    "LAYER_MAP",
    "LAYER_MATCH",
    "LINEAR_PROBE",
    "LOWER_HALF",
    "MAX_T",
    "PLACES",
    "RATIO",
    "RECEPTIVE_FIELD",
    "RESIDUAL_RATIOS",
    "STITCHING",
    "TOKEN_LOCALIZATION",
    "TRAJECTORY",
    "Finding",
    "Frame",
    "Kind",
    "Table",
    "UnstorableError",
    "Variable",
    "above_chance",
    "against",
    "attribute",
    "chance_table",
    "chance_threshold",
    "chosen_tokens",
    "closest_spans",
    "decode",
    "encode",
    "ends",
    "extreme",
    "frame_map",
    "group_ratios",
    "has",
    "is_between",
    "is_with_itself",
    "kind_of",
    "layer_map",
    "layer_names",
    "log_from",
    "main_map",
    "main_variable",
    "map_of_layers",
    "map_table",
    "map_variables",
    "mean_of",
    "measure_label",
    "measured_map",
    "model_name",
    "model_names",
    "model_of",
    "models_of",
    "names_of",
    "number",
    "optional_values",
    "ordinal",
    "part_label",
    "percent",
    "plus_minus",
    "register",
    "scale_of",
    "similarity_of",
    "single_tokens",
    "step_label",
    "subset_order",
    "token_maps",
    "token_scale",
    "trajectory_label",
    "trajectory_scale",
    "trajectory_variable",
    "uniform_distances",
    "unit_of",
    "values_of",
]
