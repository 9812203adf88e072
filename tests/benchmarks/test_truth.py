"""The table of other packages: its pages name each row, and its conversions hold."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from _array_peers import PEERS
from _truths import truth
from reference.data import related

DOCS = Path(__file__).parents[2] / "docs"

pytest.importorskip("mpmath")


def test_the_page_names_every_function():
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    for peer in PEERS:
        assert f"| {peer.package}, `{peer.call}` | `{peer.ours}` | {peer.how} |" in page


def test_every_difference_has_a_cause():
    page = (DOCS / "truth.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    assert not [row for row in rows if row.endswith("| ? |")]


def test_formulas_give_our_values():
    x, y = related(13, 4, 4)
    rows = {peer.ours: peer for peer in PEERS}
    for name, peer in rows.items():
        expected = truth(peer.measure, peer.options, x, y)
        assert peer.own_value(x, y) == pytest.approx(expected, abs=1e-9), name


@pytest.mark.slow  # it imports the packages
def test_conversions_hold_for_the_packages_that_are_installed():
    x, noise = related(13, 4, 4)
    y = x + 0.1 * noise
    found = 0
    for peer in PEERS:
        if not peer.there or peer.convert is None or peer.package in ("cka-pytorch", "ckatorch"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                value = peer.convert(peer.run(x, y))
            except ModuleNotFoundError:  # installed without what it needs
                continue
        assert np.isclose(value, peer.own_value(x, y), rtol=1e-8), peer.call
        found += 1
    assert found >= 8  # SciPy and scikit-learn
