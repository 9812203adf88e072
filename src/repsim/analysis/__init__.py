"""Experiments: models and a stream of data in, a labelled ``xarray.Dataset`` out."""

from repsim.analysis._compare import compare

__all__ = ["compare"]
