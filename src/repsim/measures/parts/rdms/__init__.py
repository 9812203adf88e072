"""Dissimilarity matrices: noise, repeated measurements, ranks of the entries."""

from repsim.measures.parts.rdms._entries import RANKED, samples_of

__all__ = ["RANKED", "samples_of"]
