from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def make_weights():
    """Attention weights after a softmax: (..., heads, tokens, tokens), rows that sum to 1."""

    def make(*shape, seed=0, dtype="float64"):
        logits = 2 * np.random.default_rng(seed).standard_normal(shape)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (weights / weights.sum(axis=-1, keepdims=True)).astype(dtype)

    return make
