"""Effective receptive fields letter by letter: full Jacobians, then loops over pixels, float64."""

import math

import numpy as np


def field(jacobians, mode="frobenius"):
    """Mean over images of the map, from one Jacobian (c, i, rows, columns) for each image."""
    images = []
    for jacobian in jacobians:
        channels, inputs, rows, columns = jacobian.shape
        out = np.zeros((rows, columns))
        for r in range(rows):
            for k in range(columns):
                for i in range(inputs):
                    each = [float(jacobian[c, i, r, k]) for c in range(channels)]
                    if mode == "sum":
                        out[r, k] += abs(sum(each))
                    else:
                        out[r, k] += math.sqrt(sum(g * g for g in each))
        images.append(out)
    return sum(images) / len(images)


def summaries(m):
    """Participation area, sigma, side, mass and centre of mass of one map."""
    rows, columns = m.shape
    mass = sum(float(v) for v in m.ravel())
    p = m / mass
    row = sum(float(p[r, k]) * r for r in range(rows) for k in range(columns))
    column = sum(float(p[r, k]) * k for r in range(rows) for k in range(columns))
    second = sum(
        float(p[r, k]) * ((r - row) ** 2 + (k - column) ** 2)
        for r in range(rows)
        for k in range(columns)
    )
    largest = max(float(v) for v in m.ravel())
    return {
        "participation_area": 1 / sum(float(v) ** 2 for v in p.ravel()),
        "sigma": math.sqrt(second),
        "side": math.sqrt(sum(float(v) > 0.0455 * largest for v in m.ravel())),
        "mass": mass,
        "centre_row": row,
        "centre_column": column,
    }


def ones_convolutions(n, k, size):
    """The field of n all-ones k×k convolutions at the middle of an image, by convolving."""
    line = np.ones(1)
    for _ in range(n):
        line = np.convolve(line, np.ones(k))
    out = np.zeros(size)
    start = size // 2 - len(line) // 2
    out[start : start + len(line)] = line
    return np.outer(out, out)
