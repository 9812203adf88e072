"""Arrays of any framework: namespace, computing precision, checks and layout.

All layers above this package get arrays that are two-dimensional, floating, finite, of one
framework and on one device. They do not depend on which framework that is.
"""

from repsim.arrays._autocast import active_autocast, without_autocast
from repsim.arrays._dtype import accumulator_dtype, compute_dtype, promote, rounding_unit, scalar
from repsim.arrays._groups import Groups, Indices, one_each, resolve_groups
from repsim.arrays._labelled import (
    check_same_samples,
    labelled_like,
    labelled_types,
    same_labels,
    unlabelled,
    unlabelled_sides,
)
from repsim.arrays._layout import column_blocks, flatten_features, reordered_pairs, row_blocks
from repsim.arrays._lazy import dask_array, dask_package, dask_values
from repsim.arrays._matmul import PRECISIONS, require_precision, row_products
from repsim.arrays._namespace import (
    array_namespace,
    device_type,
    host_resident,
    namespace,
    same_home,
)
from repsim.arrays._ordinary import describe, how_to_name
from repsim.arrays._parts import in_threads, product_threads
from repsim.arrays._readable import (
    detached,
    host_numbers,
    known,
    numbers,
    recorded,
    to_numpy,
    transformed,
    uploaded,
    writable_numbers,
)
from repsim.arrays._scale import own_root, root, square, unit_scale
from repsim.arrays._validate import (
    as_samples,
    as_square,
    check_finite,
    common_namespace,
    paired,
    require_exact,
    require_same_n,
    require_square,
    row_dtype,
    unpromoted_samples,
)

__all__ = [
    "PRECISIONS",
    "Groups",
    "Indices",
    "accumulator_dtype",
    "active_autocast",
    "array_namespace",
    "as_samples",
    "as_square",
    "check_finite",
    "check_same_samples",
    "column_blocks",
    "common_namespace",
    "compute_dtype",
    "dask_array",
    "dask_package",
    "dask_values",
    "describe",
    "detached",
    "device_type",
    "flatten_features",
    "host_numbers",
    "host_resident",
    "how_to_name",
    "in_threads",
    "known",
    "labelled_like",
    "labelled_types",
    "namespace",
    "numbers",
    "one_each",
    "own_root",
    "paired",
    "product_threads",
    "promote",
    "recorded",
    "reordered_pairs",
    "require_exact",
    "require_precision",
    "require_same_n",
    "require_square",
    "resolve_groups",
    "root",
    "rounding_unit",
    "row_blocks",
    "row_dtype",
    "row_products",
    "same_home",
    "same_labels",
    "scalar",
    "square",
    "to_numpy",
    "transformed",
    "unit_scale",
    "unlabelled",
    "unlabelled_sides",
    "unpromoted_samples",
    "uploaded",
    "without_autocast",
    "writable_numbers",
]
