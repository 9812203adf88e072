"""Residual streams: how much of each token comes through the skip."""
