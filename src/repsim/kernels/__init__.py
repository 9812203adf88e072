"""Kernels: functions of two samples, and their Gram matrices."""

from repsim.kernels._base import KERNELS, Kernel, resolve_kernel
from repsim.kernels._centre import centre_features, column_means, double_centre
from repsim.kernels._dot import Cosine, Linear, Polynomial
from repsim.kernels._precision import Precision, with_precision
from repsim.kernels._products import squared_distances
from repsim.kernels._radial import RBF, Laplacian

__all__ = [
    "KERNELS",
    "RBF",
    "Cosine",
    "Kernel",
    "Laplacian",
    "Linear",
    "Polynomial",
    "Precision",
    "centre_features",
    "column_means",
    "double_centre",
    "resolve_kernel",
    "squared_distances",
    "with_precision",
]
