"""HSIC estimators: a centring map and a scale each, from Grams or straight from features."""

from repsim.estimators._centring import double_centre, off_diagonal, u_centre
from repsim.estimators._estimator import ESTIMATORS, Estimator, resolve_estimator
from repsim.estimators._features import feature_products, features_are_cheaper
from repsim.estimators._gram import centred, gram_products
from repsim.estimators._products import Products, alignment, inner

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Products",
    "alignment",
    "centred",
    "double_centre",
    "feature_products",
    "features_are_cheaper",
    "gram_products",
    "inner",
    "off_diagonal",
    "resolve_estimator",
    "u_centre",
]
