"""Pairings of the features of two representations: one to one, or by optimal transport."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["pairing", "transport_plan"]

COPIES = 4
"""How many times the larger number of features an assignment may have after copying features."""


def pairing(gain: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return ones (p, q) at min(p, q) pairs, one in a row and column, of the largest Σ gain_ij."""
    from scipy.optimize import linear_sum_assignment

    pairs = np.zeros(gain.shape)
    pairs[linear_sum_assignment(gain, maximize=True)] = 1.0
    return pairs


def transport_plan(
    gain: np.ndarray[Any, np.dtype[np.float64]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the plan P ≥ 0 (p, q) of rows 1/p and columns 1/q with the largest Σ P_ij gain_ij.

    For p = q the plan is a permutation divided by p. Otherwise features are copied until their
    numbers match, which gives an assignment of lcm(p, q) rows and columns. If that is too large, a
    linear programme is solved.
    """
    from scipy.optimize import linear_sum_assignment

    p, q = gain.shape
    common = math.lcm(p, q)
    if common <= COPIES * max(p, q):
        copied = np.repeat(np.repeat(gain, common // p, axis=0), common // q, axis=1)
        rows, columns = linear_sum_assignment(copied, maximize=True)
        plan = np.zeros((p, q))
        np.add.at(plan, (rows // (common // p), columns // (common // q)), 1 / common)
        return plan
    return _linear_programme(gain)


def _linear_programme(
    gain: np.ndarray[Any, np.dtype[np.float64]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    p, q = gain.shape
    sums = vstack([kron(eye_array(p), np.ones((1, q))), kron(np.ones((1, p)), eye_array(q))])
    # In units of the largest gain and with rows that sum to q, because the tolerances of the solver
    # are absolute.
    unit = float(np.max(np.abs(gain))) or 1.0
    solution = linprog(
        -gain.ravel() / unit,
        A_eq=sums.tocsr(),
        b_eq=np.concatenate([np.full(p, float(q)), np.full(q, float(p))]),
        method="highs-ds",
    )
    if not solution.success:
        raise RuntimeError(f"transport_plan: the solver failed on {p} × {q}: {solution.message}")
    plan: np.ndarray[Any, np.dtype[np.float64]] = np.reshape(solution.x, (p, q)) / (p * q)
    return plan
