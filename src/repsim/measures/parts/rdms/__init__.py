"""Dissimilarity matrices: noise, repeated measurements, ranks of the entries."""
