"""Orders of layers that put similar layers together."""

from __future__ import annotations

import numpy as np
import pytest

from report.pages import compared, orders_of, with_itself

CLUSTERS, AXIS = "clusters of similar layers", "first principal axis"
BOTH = pytest.mark.parametrize("order", [CLUSTERS, AXIS])


def rows_and_columns(order, values):
    return (np.array(each) for each in orders_of(values)[order])


@BOTH
def test_kinds_of_layers_that_alternate_are_parted(order):
    rows, columns = rows_and_columns(order, with_itself(m=12).cka.values)
    for each in (rows, columns):
        kinds = (each % 2).tolist()
        assert kinds == sorted(kinds)
        assert kinds[0] == 0  # the first layer's kind comes first


@BOTH
def test_orders_with_undefined_values_are_permutations(order):
    values = compared(9, 7).cka.values
    values[:, 3] = np.nan
    values[4, 1:] = np.nan
    values[5, :2] = np.nan
    rows, columns = rows_and_columns(order, values)
    assert sorted(rows.tolist()) == list(range(9))
    assert sorted(columns.tolist()) == list(range(7))
    nothing = rows_and_columns(order, np.full((3, 2), np.nan))
    assert [sorted(each.tolist()) for each in nothing] == [[0, 1, 2], [0, 1]]
    assert [each.tolist() for each in rows_and_columns(order, np.ones((1, 1)))] == [[0], [0]]


def test_undefined_layers_come_last_among_clusters():
    rows, _ = rows_and_columns(CLUSTERS, compared().cka.values)
    assert rows[-1] == 2


def test_a_band_is_found_again():
    """Layers of a chain, shuffled: the chain is found, from one end or the other."""
    rng = np.random.default_rng(0)
    depth = rng.permutation(np.linspace(0, 1, 20))
    values = np.exp(-np.abs(depth[:, None] - depth))
    steps = np.diff(depth[next(rows_and_columns(CLUSTERS, values))])
    assert (steps > 0).all() or (steps < 0).all()
    # On a single axis the ends of the chain bend back, by a layer or two.
    assert abs(np.corrcoef(depth[next(rows_and_columns(AXIS, values))], np.arange(20))[0, 1]) > 0.98
