"""Distances in units of noise and from repeated measurements."""
