"""Functions of other packages as functions of two arrays, for the table in `_array_peers.py`.

Each imports its package when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Value = Callable[[np.ndarray, np.ndarray], float]

K = 10
"""Neighbours, if there are as many samples."""


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def tensors(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    import torch

    return torch.from_numpy(x), torch.from_numpy(y)


# Linear and radial CKA


def shesha_cka(x: np.ndarray, y: np.ndarray) -> float:
    from shesha.sim import cka_linear

    return cka_linear(x, y)


def shesha_debiased(x: np.ndarray, y: np.ndarray) -> float:
    from shesha.sim import cka_debiased

    return cka_debiased(x, y)


def of_ckatorch(**options: Any) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        from ckatorch import cka_base

        return float(cka_base(*tensors(x, y), **options))

    return run


def pytorch_cka(x: np.ndarray, y: np.ndarray) -> float:
    from cka import cka_from_features

    return float(cka_from_features(*tensors(x, y)))


def cka_pytorch(x: np.ndarray, y: np.ndarray) -> float:
    import torch
    from cka_pytorch.hsic import hsic1
    from cka_pytorch.utils import gram

    k, l = (gram(z)[None] for z in tensors(x, y))  # noqa: E741
    # Its default epsilon.
    return float(hsic1(k, l) / torch.sqrt(hsic1(k, k) * hsic1(l, l) + 1e-4))


def of_hyppo(name: str, **options: Any) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        import hyppo.independence

        return float(getattr(hyppo.independence, name)(**options).statistic(x, y))

    return run


# Distance correlation


def of_dcor(name: str) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        import dcor

        return float(getattr(dcor, name)(x, y))

    return run


def of_statsmodels(x: np.ndarray, y: np.ndarray) -> float:
    from statsmodels.stats.dist_dependence_measures import distance_statistics

    return float(distance_statistics(x, y).distance_correlation)


def sklearn_distances(x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.metrics import euclidean_distances

    a, b = euclidean_distances(x), euclidean_distances(y)
    for d in (a, b):
        means = d.mean(0)
        d -= means
        d -= means[:, None] - means.mean()
    ab, aa, bb = (np.dot(s.ravel(), t.ravel()) for s, t in ((a, b), (a, a), (b, b)))
    return float(ab / np.sqrt(aa) / np.sqrt(bb))


# Dissimilarity matrices


def of_scipy_rdm(metric: str, comparison: str) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        import scipy.stats
        from scipy.spatial.distance import pdist

        return float(getattr(scipy.stats, comparison)(pdist(x, metric), pdist(y, metric))[0])

    return run


def of_rsatoolbox(method: str, comparison: str) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        from rsatoolbox.data import Dataset
        from rsatoolbox.rdm import calc_rdm, compare

        a, b = (calc_rdm(Dataset(z), method=method) for z in (x, y))
        return float(compare(a, b, method=comparison)[0, 0])

    return run


def of_shesha_rdm(metric: str, method: str) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        from shesha.sim import rdm_similarity

        return float(rdm_similarity(x, y, metric=metric, method=method))

    return run


def of_thingsvision(method: str, correlation: str) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        from thingsvision.core.rsa import compute_rdm, correlate_rdms

        return float(correlate_rdms(compute_rdm(x, method), compute_rdm(y, method), correlation))

    return run


# Neighbours


def neighbours(x: np.ndarray, k: int, metric: str) -> list[list[int]]:
    from sklearn.neighbors import NearestNeighbors

    if metric == "cosine":  # its own cosine takes ten times as long
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=1).fit(x)
    found: list[list[int]] = search.kneighbors(return_distance=False).tolist()
    return found


def of_sklearn_neighbours(metric: str, *, jaccard: bool = False) -> Value:
    def run(x: np.ndarray, y: np.ndarray) -> float:
        k = min(K, len(x) - 2)
        pairs = zip(neighbours(x, k, metric), neighbours(y, k, metric), strict=True)
        both = [len(set(a) & set(b)) for a, b in pairs]
        return float(np.mean([m / (2 * k - m if jaccard else k) for m in both]))

    return run


# Alignment of features, regression and canonical correlation


def scipy_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.spatial import procrustes

    return float(procrustes(x, y)[2])


def scipy_rotation(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.linalg import orthogonal_procrustes

    x, y = centred(x), centred(y)
    return float(np.sqrt((x**2).sum() + (y**2).sum() - 2 * orthogonal_procrustes(x, y)[1]))


def shesha_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    from shesha.sim import procrustes_similarity

    return float(procrustes_similarity(x, y))


def netrep_shape(x: np.ndarray, y: np.ndarray) -> float:
    from netrep.metrics import LinearMetric

    return float(LinearMetric(alpha=1.0).fit(x, y).score(x, y))


def statsmodels_cca(x: np.ndarray, y: np.ndarray) -> float:
    from statsmodels.multivariate.cancorr import CanCorr

    return float(np.mean(CanCorr(centred(x), centred(y)).cancorr))


def sklearn_regression(x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    fitted = LinearRegression().fit(y, x).predict(y)
    return float(r2_score(x, fitted, multioutput="variance_weighted"))


def scipy_assignment(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.optimize import linear_sum_assignment

    r = np.corrcoef(x.T, y.T)[: x.shape[1], x.shape[1] :]
    return float(r[linear_sum_assignment(r, maximize=True)].mean())


def pot_matching(x: np.ndarray, y: np.ndarray) -> float:
    import ot

    x, y = centred(x), centred(y)
    cost = ((x.T[:, None] - y.T) ** 2).sum(-1)
    return float(ot.emd2([], [], cost))


def scipy_angles(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.linalg import subspace_angles

    dimensions = max(np.linalg.matrix_rank(x), np.linalg.matrix_rank(y))
    return float((np.cos(subspace_angles(x, y)) ** 2).sum() / dimensions)
