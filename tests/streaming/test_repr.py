"""The text of an accumulator says what it holds."""

import numpy as np

import repsim


def test_of_every_accumulator():
    rng = np.random.default_rng(0)
    for kind in (repsim.MinibatchCKA, repsim.StreamingLinearCKA, repsim.StreamingCovariance):
        acc = kind()
        name = kind.__name__
        assert repr(acc) == f"<{name}: empty>"
        xs = {"a": rng.random((1500, 3)), "b": rng.random((1500, 2))}
        acc.update(xs, {"c": xs["a"]})
        assert repr(acc) == f"<{name} of 2 × 1 layers: 1,500 samples in 1 batch>"
        acc.update(xs, {"c": xs["a"]})
        assert repr(acc) == f"<{name} of 2 × 1 layers: 3,000 samples in 2 batches>"
        alone = kind()
        alone.update(xs)
        assert repr(alone) == f"<{name} of 2 × 2 layers: 1,500 samples in 1 batch>"
