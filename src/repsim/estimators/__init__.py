"""HSIC estimators: each has a centring map and a scale, from Grams or from features."""

from repsim.estimators._blocks import BlockSizes, block_products, blocks_of_features
from repsim.estimators._by_chance import (
    BIASED_CKA,
    HIGH_FLOOR,
    ChanceWords,
    high_floor,
    mean_by_chance,
    warn_of_chance,
    warn_of_matrix,
)
from repsim.estimators._centred import blockwise
from repsim.estimators._centring import double_centre, off_diagonal, u_centre
from repsim.estimators._correction import above_rounding, unbiased_product
from repsim.estimators._digits import few_digits, rounding_of, warn_of_few_digits
from repsim.estimators._estimator import ESTIMATORS, Estimator, resolve_estimator
from repsim.estimators._features import (
    feature_product,
    feature_products,
    feature_self_product,
    features_are_cheaper,
    scaled_features,
)
from repsim.estimators._gram import centred, gram_products, scaled_gram
from repsim.estimators._in_place import centre_in_place
from repsim.estimators._null import permutation_variance
from repsim.estimators._products import Products, alignment, inner, ratio, within_one
from repsim.estimators._subsampled import between_features, within_features

__all__ = [
    "BIASED_CKA",
    "ESTIMATORS",
    "HIGH_FLOOR",
    "BlockSizes",
    "ChanceWords",
    "Estimator",
    "Products",
    "above_rounding",
    "alignment",
    "between_features",
    "block_products",
    "blocks_of_features",
    "blockwise",
    "centre_in_place",
    "centred",
    "double_centre",
    "feature_product",
    "feature_products",
    "feature_self_product",
    "features_are_cheaper",
    "few_digits",
    "gram_products",
    "high_floor",
    "inner",
    "mean_by_chance",
    "off_diagonal",
    "permutation_variance",
    "ratio",
    "resolve_estimator",
    "rounding_of",
    "scaled_features",
    "scaled_gram",
    "u_centre",
    "unbiased_product",
    "warn_of_chance",
    "warn_of_few_digits",
    "warn_of_matrix",
    "within_features",
    "within_one",
]
