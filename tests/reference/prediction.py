"""Predictivity by plain refits, one fold and one column after the other, in float64."""

import numpy as np

from reference.regression import fit


def folds_of(labels, folds):
    """Runs of groups in the order of their first appearance."""
    order = list(dict.fromkeys(labels))
    size, more = divmod(len(order), folds)
    start = 0
    for fold in range(folds):
        stop = start + size + (fold < more)
        yield np.array([label in order[start:stop] for label in labels])
        start = stop


def pls(x, y, components):
    """Weights and intercept by the power method, run until nothing changes."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    a, b = x - mean_x, y - mean_y
    directions, loadings, slopes = [], [], []
    for _ in range(components):
        u = b[:, [np.argmax((b**2).sum(axis=0))]]
        for _ in range(5000):
            w = a.T @ u
            w /= np.linalg.norm(w)
            q = b.T @ (a @ w)
            u = b @ q / np.linalg.norm(q)
        t = a @ w
        p, c = a.T @ t / (t.T @ t), b.T @ t / (t.T @ t)
        a, b = a - t @ p.T, b - t @ c.T
        directions.append(w)
        loadings.append(p)
        slopes.append(c)
    w, p, c = (np.concatenate(z, axis=1) for z in (directions, loadings, slopes))
    weights = w @ np.linalg.inv(p.T @ w) @ c.T
    return weights, mean_y - mean_x @ weights


def predictivity(
    x, y, *, model="ridge", ridge=1.0, components=25, folds=5, groups=None, score="pearson",
    reduce="mean", reliability=1.0,
):  # fmt: skip
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    out = np.empty_like(y)
    for held in folds_of(range(len(x)) if groups is None else groups, folds):
        if model == "pls":
            weights, intercept = pls(x[~held], y[~held], components)
        else:
            weights, intercept = fit(y[~held], x[~held], ridge if model == "ridge" else 0.0)
        out[held] = x[held] @ weights + intercept
    ceiling = np.broadcast_to(reliability, y.shape[1])
    scores = []
    for j in range(y.shape[1]):
        if score == "pearson":
            scores.append(np.corrcoef(out[:, j], y[:, j])[0, 1] / ceiling[j] ** 0.5)
        else:
            spread = ((y[:, j] - y[:, j].mean()) ** 2).sum()
            scores.append((1 - ((y[:, j] - out[:, j]) ** 2).sum() / spread) / ceiling[j])
    return float({"mean": np.mean, "median": np.median}[reduce](scores))
