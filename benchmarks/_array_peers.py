"""What other packages call our measures: their function of two arrays, and ours for the same value.

`array_measures.py` times both, `truth.py` compares their values, and `docs/coming-from.md` lists
them. A package is imported at its first use, and one that is not installed is skipped.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

import _peer_functions as functions
import repsim

__all__ = ["PEERS", "ArrayPeer", "installed"]


@dataclass(frozen=True, eq=False)
class ArrayPeer:
    """A way to the value of one of our measures with another package.

    ``call`` is how its user writes it. ``convert`` turns its value into ours, and ``how`` says so.
    """

    package: str
    call: str
    run: functions.Value
    measure: str
    options: Mapping[str, object] = field(default_factory=dict)
    how: str = "the same"
    convert: Callable[[float], float] | None = float
    module: str = ""

    @property
    def ours(self) -> str:
        words = ", ".join(
            f"{name}={'RBF(median=' + repr(value.median) + ')' if value is OFF else repr(value)}"
            for name, value in self.options.items()
        )
        return f"{self.measure}({words})" if words else self.measure

    def own_value(self, x: np.ndarray, y: np.ndarray) -> float:
        options = dict(self.options)
        if self.measure.endswith("_knn"):
            options["k"] = min(functions.K, len(x) - 2)
        return float(getattr(repsim, self.measure)(x, y, **options))

    @property
    def there(self) -> bool:
        return installed(self.module or self.package.replace("-", "_"))


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a submodule
        return False


def square(value: float) -> float:
    return value**2


BIASED, UNBIASED = {"estimator": "biased"}, {"estimator": "unbiased"}
OFF = repsim.kernels.RBF(median="off_diagonal")
PEERS = (
    ArrayPeer("shesha-geometry", "cka_linear(X, Y)", functions.shesha_cka, "cka", module="shesha"),
    ArrayPeer("ckatorch", "cka_base(x, y)", functions.of_ckatorch(), "cka"),
    ArrayPeer("hyppo", "RV().statistic(x, y)", functions.of_hyppo("RV"), "cka"),
    ArrayPeer(
        "hyppo",
        "CCA().statistic(x, y)",
        functions.of_hyppo("CCA"),
        "cka",
        how="linear CKA, not CCA",
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare(a, b, method="cosine_cov")',
        functions.of_rsatoolbox("euclidean", "cosine_cov"),
        "cka",
        how="the whitened cosine is linear CKA",
    ),
    ArrayPeer(
        "pytorch-cka",
        "cka_from_features(x, y)",
        functions.pytorch_cka,
        "cka",
        UNBIASED,
        how="the same, but negative values are cut to 0",
        module="cka",
    ),
    ArrayPeer(
        "cka-pytorch",
        "hsic1 of gram(x), gram(y)",
        functions.cka_pytorch,
        "cka",
        UNBIASED,
        how="the same except for its ε = 1e-4",
    ),
    ArrayPeer(
        "shesha-geometry",
        "cka_debiased(X, Y)",
        functions.shesha_debiased,
        "cka",
        UNBIASED,
        how="none: the Grams are centred before their diagonals are left out, which keeps a bias",
        convert=None,
        module="shesha",
    ),
    ArrayPeer(
        "ckatorch",
        "cka_base(x, y, unbiased=True)",
        functions.of_ckatorch(unbiased=True),
        "cka",
        UNBIASED,
    ),
    ArrayPeer(
        "ckatorch",
        'cka_base(x, y, kernel="rbf")',
        functions.of_ckatorch(kernel="rbf"),
        "cka",
        {"kernel": "rbf"},
        how="the same, if the number of squared distances is odd (torch's median is the lower one)",
    ),
    ArrayPeer(
        "hyppo",
        "Hsic(bias=True).statistic(x, y)",
        functions.of_hyppo("Hsic", bias=True),
        "cka",
        {"kernel": OFF},
        how="none: a root, and the bandwidth of x serves y too",
        convert=None,
    ),
    ArrayPeer(
        "hyppo",
        "Hsic().statistic(x, y)",
        functions.of_hyppo("Hsic"),
        "cka",
        {"kernel": OFF, **UNBIASED},
        how="none: the bandwidth of x serves y too",
        convert=None,
    ),
    ArrayPeer(
        "dcor",
        "distance_correlation(x, y)",
        functions.of_dcor("distance_correlation"),
        "distance_correlation",
        how="its square",
        convert=square,
    ),
    ArrayPeer(
        "dcor",
        "distance_correlation_sqr(x, y)",
        functions.of_dcor("distance_correlation_sqr"),
        "distance_correlation",
    ),
    ArrayPeer(
        "dcor",
        "u_distance_correlation_sqr(x, y)",
        functions.of_dcor("u_distance_correlation_sqr"),
        "distance_correlation",
        UNBIASED,
    ),
    ArrayPeer(
        "hyppo",
        "Dcorr(bias=True).statistic(x, y)",
        functions.of_hyppo("Dcorr", bias=True),
        "distance_correlation",
        how="its square",
        convert=square,
    ),
    ArrayPeer(
        "hyppo",
        "Dcorr().statistic(x, y)",
        functions.of_hyppo("Dcorr"),
        "distance_correlation",
        UNBIASED,
    ),
    ArrayPeer(
        "statsmodels",
        "distance_statistics(x, y).distance_correlation",
        functions.of_statsmodels,
        "distance_correlation",
        how="its square",
        convert=square,
    ),
    ArrayPeer(
        "scikit-learn",
        "euclidean_distances, centred by NumPy",
        functions.sklearn_distances,
        "distance_correlation",
        module="sklearn",
    ),
    ArrayPeer(
        "scipy",
        "spearmanr(pdist(x), pdist(y))",
        functions.of_scipy_rdm("euclidean", "spearmanr"),
        "rsa",
    ),
    ArrayPeer(
        "scipy",
        "pearsonr(pdist(x), pdist(y))",
        functions.of_scipy_rdm("euclidean", "pearsonr"),
        "rsa",
        {"comparison": "pearson"},
    ),
    ArrayPeer(
        "scipy",
        'spearmanr of pdist(·, "correlation")',
        functions.of_scipy_rdm("correlation", "spearmanr"),
        "rsa",
        {"rdm": "correlation"},
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "euclidean"), "spearman"',
        functions.of_rsatoolbox("euclidean", "spearman"),
        "rsa",
        how="the same, because ranks of squares are ranks",
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "euclidean"), "rho-a"',
        functions.of_rsatoolbox("euclidean", "rho-a"),
        "rsa",
        {"comparison": "rho_a"},
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "euclidean"), "kendall"',
        functions.of_rsatoolbox("euclidean", "kendall"),
        "rsa",
        {"comparison": "kendall"},
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "euclidean"), "tau-a"',
        functions.of_rsatoolbox("euclidean", "tau-a"),
        "rsa",
        {"comparison": "kendall_a"},
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "euclidean"), "corr"',
        functions.of_rsatoolbox("euclidean", "corr"),
        "rsa",
        {"rdm": "sqeuclidean", "comparison": "pearson"},
        how='the same: its "euclidean" is squared and divided by p',
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "euclidean"), "cosine"',
        functions.of_rsatoolbox("euclidean", "cosine"),
        "rsa",
        {"rdm": "sqeuclidean", "comparison": "cosine"},
        how='the same: its "euclidean" is squared and divided by p',
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "euclidean"), "corr_cov"',
        functions.of_rsatoolbox("euclidean", "corr_cov"),
        "rsa",
        {"rdm": "sqeuclidean", "comparison": "whitened"},
    ),
    ArrayPeer(
        "rsatoolbox",
        'compare of calc_rdm(·, "correlation"), "spearman"',
        functions.of_rsatoolbox("correlation", "spearman"),
        "rsa",
        {"rdm": "correlation"},
    ),
    ArrayPeer(
        "shesha-geometry",
        'rdm_similarity(X, Y, metric="euclidean")',
        functions.of_shesha_rdm("euclidean", "spearman"),
        "rsa",
        module="shesha",
    ),
    ArrayPeer(
        "shesha-geometry",
        "rdm_similarity(X, Y)",
        functions.of_shesha_rdm("cosine", "spearman"),
        "rsa",
        {"rdm": "cosine"},
        module="shesha",
    ),
    ArrayPeer(
        "thingsvision",
        'correlate_rdms of compute_rdm(·, "correlation"), "spearman"',
        functions.of_thingsvision("correlation", "spearman"),
        "rsa",
        {"rdm": "correlation"},
    ),
    ArrayPeer(
        "thingsvision",
        'correlate_rdms of compute_rdm(·, "euclidean"), "pearson"',
        functions.of_thingsvision("euclidean", "pearson"),
        "rsa",
        {"comparison": "pearson"},
    ),
    ArrayPeer(
        "scikit-learn",
        'NearestNeighbors(algorithm="brute") of unit rows',
        functions.of_sklearn_neighbours("cosine"),
        "mutual_knn",
        how="the same without ties",
        module="sklearn",
    ),
    ArrayPeer(
        "scikit-learn",
        'NearestNeighbors(algorithm="brute")',
        functions.of_sklearn_neighbours("euclidean"),
        "mutual_knn",
        {"metric": "euclidean"},
        how="the same without ties",
        module="sklearn",
    ),
    ArrayPeer(
        "scikit-learn",
        'NearestNeighbors(algorithm="brute") of unit rows',
        functions.of_sklearn_neighbours("cosine", jaccard=True),
        "jaccard_knn",
        how="the same without ties",
        module="sklearn",
    ),
    ArrayPeer(
        "scipy",
        "spatial.procrustes(x, y)[2]",
        functions.scipy_procrustes,
        "nbs",
        how="√(1 − value)",
        convert=lambda v: float(np.sqrt(1 - v)),
    ),
    ArrayPeer(
        "shesha-geometry",
        "procrustes_similarity(X, Y)",
        functions.shesha_procrustes,
        "nbs",
        module="shesha",
    ),
    ArrayPeer(
        "netrep",
        "LinearMetric(alpha=1).fit(x, y).score(x, y)",
        functions.netrep_shape,
        "shape_distance",
    ),
    ArrayPeer(
        "scipy",
        "√(‖x‖² + ‖y‖² − 2 s), s of orthogonal_procrustes",
        functions.scipy_rotation,
        "procrustes",
    ),
    ArrayPeer(
        "statsmodels",
        "CanCorr(x, y).cancorr, centred",
        functions.statsmodels_cca,
        "cca",
        how="the mean of its values",
    ),
    ArrayPeer(
        "scikit-learn",
        "LinearRegression().fit(y, x)",
        functions.sklearn_regression,
        "linear_regression_r2",
        how='the same, with multioutput="variance_weighted"',
        module="sklearn",
    ),
    ArrayPeer(
        "scipy",
        "linear_sum_assignment of np.corrcoef",
        functions.scipy_assignment,
        "correlation_match",
    ),
    ArrayPeer(
        "POT",
        "emd2([], [], cost of columns)",
        functions.pot_matching,
        "soft_matching",
        how="its root",
        convert=lambda v: float(np.sqrt(v)),
        module="ot",
    ),
    ArrayPeer(
        "scipy",
        "subspace_angles(x, y)",
        functions.scipy_angles,
        "eigenspace_overlap",
        how="Σ cos² of its values ÷ the larger rank",
    ),
)
