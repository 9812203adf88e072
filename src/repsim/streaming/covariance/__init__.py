"""Accumulators of covariances: sums of them, or their triangular root."""
