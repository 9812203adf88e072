"""Linear regression by the normal equations and plain refits, in float64."""

import math

import numpy as np


def centre(x):
    x = np.asarray(x, np.float64)
    return x - x.mean(axis=0)


def fit(x, y, penalty=0.0):
    """Weights and intercept of the ridge regression of x on y; the smallest ones without."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    yc, xc = y - mean_y, x - mean_x
    if penalty == 0:
        weights = np.linalg.lstsq(yc, xc, rcond=None)[0]
    else:
        weights = np.linalg.solve(yc.T @ yc + penalty * np.eye(y.shape[1]), yc.T @ xc)
    return weights, mean_x - mean_y @ weights


def unit(y):
    """The mean squared norm of the centred samples."""
    return (centre(y) ** 2).sum() / len(y)


def r2(x, y, ridge=0.0):
    """Kornblith et al. 2019, section 4: x predicted from y."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    weights, intercept = fit(x, y, ridge * unit(y))
    return 1 - ((x - y @ weights - intercept) ** 2).sum() / (centre(x) ** 2).sum()


def leave_one_out(x, y, penalty):
    """The squared error of each sample, predicted by a refit to the others."""
    error = 0.0
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        weights, intercept = fit(x[rest], y[rest], penalty)
        error += ((x[i] - y[i] @ weights - intercept) ** 2).sum()
    return error


def cross_validated(x, y, folds, ridge=(0.0,)):
    """Held-out error beside that of the training mean."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    error = spread = 0.0
    for fold in range(folds):
        held = np.arange(len(x)) % folds == fold
        train_x, train_y = x[~held], y[~held]
        penalties = [r * unit(train_y) for r in ridge]
        if len(penalties) > 1:
            best = min(penalties, key=lambda p: leave_one_out(train_x, train_y, p))
        else:
            best = penalties[0]
        weights, intercept = fit(train_x, train_y, best)
        error += ((x[held] - y[held] @ weights - intercept) ** 2).sum()
        spread += ((x[held] - train_x.mean(axis=0)) ** 2).sum()
    return 1 - error / spread


def gulp(x, y, ridge):
    """Boix-Adsera et al. 2022, by the covariances; pseudo-inverses for a ridge of zero."""
    x, y = (np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=float) for z in (x, y))
    n = len(x)
    x, y = (z * math.sqrt(n) / np.linalg.norm(z) for z in (x, y))
    inverses = [np.linalg.pinv(z.T @ z / n + ridge * np.eye(z.shape[1])) for z in (x, y)]
    a, b = (s @ z.T @ z / n for s, z in zip(inverses, (x, y), strict=True))
    cross = x.T @ y / n
    joint = np.trace(inverses[0] @ cross @ inverses[1] @ cross.T)
    return math.sqrt(float(np.trace(a @ a) + np.trace(b @ b) - 2 * joint))
