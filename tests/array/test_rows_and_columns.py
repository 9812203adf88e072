"""What errors say about arrays whose rows are not the samples."""

import numpy as np
import pytest

import repsim

rng = np.random.default_rng(0)
MODEL, NEURONS = rng.standard_normal((12, 30)), rng.standard_normal((9, 12))


def test_samples_along_the_columns():
    for call, name in (
        (lambda: repsim.cka(NEURONS, MODEL), "x"),
        (lambda: repsim.rsa(MODEL, NEURONS), "y"),
        (lambda: repsim.pairwise({"model": MODEL}, {"brain": NEURONS}), r"ys\['brain'\]"),
        (lambda: repsim.noise_ceiling([MODEL, NEURONS]), r"repeats\[1\]"),
    ):
        with pytest.raises(repsim.InputError, match=f"the columns of {name}, pass its transpose"):
            call()
    with pytest.raises(repsim.InputError, match="Did the last batch drop a sample") as caught:
        repsim.cka(MODEL, MODEL[:10])
    assert "If the 30 columns of both are the samples, transpose both." in str(caught.value)


def test_cells_of_arrays():
    cells = np.empty((1, 6), dtype=object)
    cells[0, :] = [MODEL] * 6
    with pytest.raises(repsim.ArrayTypeError, match=r"Cells of arrays: list\(x.flat\)"):
        repsim.cka(cells, MODEL)


def test_one_bad_entry_is_one():
    bad = MODEL.copy()
    bad[3, 4] = np.nan
    with pytest.raises(repsim.NonFiniteError, match="1 entry is NaN or infinite"):
        repsim.cka(bad, MODEL)


def test_a_bad_entry_of_half_precision_is_not_said_to_be_of_float32():
    bad = MODEL.astype(np.float16)
    bad[3, 4] = np.inf
    with pytest.raises(repsim.NonFiniteError, match="half precision overflows") as caught:
        repsim.cka(bad, MODEL)
    assert "float32" not in str(caught.value)
