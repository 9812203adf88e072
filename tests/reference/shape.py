"""Shape distances by the explicit rotation, and the Bures similarity by matrix square roots."""

import numpy as np
from scipy.linalg import orthogonal_procrustes


def centred(x):
    return x - x.mean(0)


def padded(x, y):
    """The narrower one filled up with columns of zeros."""
    width = max(x.shape[1], y.shape[1])
    return [np.pad(z, ((0, 0), (0, width - z.shape[1]))) for z in (x, y)]


def turned(x, y):
    """x, and y after the rotation that brings it closest to x."""
    x, y = padded(x, y)
    return x, y @ orthogonal_procrustes(y, x)[0]


def procrustes(x, y, norm="none"):
    x, y = centred(x), centred(y)
    if norm == "unit":
        x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    a, b = turned(x, y)
    return float(np.linalg.norm(a - b))


def square_root(k):
    values, vectors = np.linalg.eigh(k)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def nbs(x, y):
    """Fidelity of the Grams: tr sqrt(K^1/2 L K^1/2) / sqrt(tr K tr L)."""
    k, l = (centred(z) @ centred(z).T for z in (x, y))  # noqa: E741
    root = square_root(k)
    fidelity = np.trace(square_root(root @ l @ root))
    return float(fidelity / np.sqrt(np.trace(k) * np.trace(l)))


def partly_whitened(x, alpha):
    """Williams et al. 2021: Xc (alpha I + (1 - alpha)(Xc'Xc)^(-1/2))."""
    x = centred(x)
    values, vectors = np.linalg.eigh(x.T @ x)
    inverse_root = (vectors / np.sqrt(values)) @ vectors.T
    return x @ (alpha * np.eye(len(values)) + (1 - alpha) * inverse_root)


def shape_distance(x, y, alpha=1.0):
    a, b = turned(partly_whitened(x, alpha), partly_whitened(y, alpha))
    cosine = np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.arccos(np.clip(cosine, -1, 1)))


def aligned_cosine(x, y):
    """Hamilton et al. 2016, with the orthogonal polar factor by Newton's iteration."""
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(np.asarray(z, np.float64), ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    # A little of the identity makes the product invertible; what it adds meets only zeros.
    q = x.T @ y + 1e-9 * np.eye(width)
    for _ in range(100):
        q = (q + np.linalg.inv(q).T) / 2
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x @ q, y))
    return float((a * b).sum()) / len(a)
