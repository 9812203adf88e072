"""Canonical correlations from covariance matrices, which no code in the library forms."""

import numpy as np


def covariances(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return x.T @ x, x.T @ y, y.T @ y


def correlations(x, y):
    """Hotelling 1936: rho^2 are the eigenvalues of Sxx^-1 Sxy Syy^-1 Syx. Largest first."""
    sxx, sxy, syy = covariances(x, y)
    matrix = np.linalg.inv(sxx) @ sxy @ np.linalg.inv(syy) @ sxy.T
    squared = np.sort(np.linalg.eigvals(matrix).real)[::-1]
    return np.sqrt(np.clip(squared, 0, None))[: min(x.shape[1], y.shape[1])]


def cca(x, y, statistic="mean_rho"):
    rho = correlations(x, y)
    return float(np.mean(rho if statistic == "mean_rho" else rho**2))


def leading(x, variance=None, directions=None):
    """Principal components by the covariance, one after the other until there are enough."""
    x = x - x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x)
    values, vectors = values[::-1], vectors[:, ::-1]
    if directions is None:
        directions, held = 0, 0.0
        while held < variance * values.sum() * (1 - 1e-12):
            held += values[directions]
            directions += 1
    return x @ vectors[:, :directions]


def svcca(x, y, variance=None, directions=None, statistic="mean_rho"):
    return cca(leading(x, variance, directions), leading(y, variance, directions), statistic)


def pwcca(x, y):
    """Morcos et al. 2018: the weight of a canonical variate of x is sum_j |<h_i, x_j>|."""
    sxx, sxy, syy = covariances(x, y)
    values, maps = np.linalg.eig(np.linalg.inv(sxx) @ sxy @ np.linalg.inv(syy) @ sxy.T)
    order = np.argsort(values.real)[::-1][: min(x.shape[1], y.shape[1])]
    centred = x - x.mean(0)
    total = weights = 0.0
    for i in order:
        variate = centred @ maps[:, i].real
        variate /= np.linalg.norm(variate)
        weight = 0.0
        for column in centred.T:
            weight += abs(float(variate @ column))
        total += weight * float(np.sqrt(max(values[i].real, 0)))
        weights += weight
    return total / weights


def variates(x, y):
    """Orthonormal canonical variates of x and their correlations, by QR and SVD (Björck, Golub)."""
    (qx, _), (qy, _) = (np.linalg.qr(z - z.mean(0)) for z in (x, y))
    turn, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    return qx @ turn, rho


def eigenspace_overlap(x, y):
    """May et al. 2019, by the projections onto the columns, which are independent."""
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    p, q = (z @ np.linalg.solve(z.T @ z, z.T) for z in (x, y))
    return float(np.trace(p @ q)) / max(x.shape[1], y.shape[1])
