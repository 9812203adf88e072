"""The paper's experiments, a file each, in the order of its figures."""

from raghu2021.experiments import (
    across,
    attention,
    data_scale,
    head_subsets,
    norms,
    places,
    probes,
    receptive,
    skips,
    within,
)
from raghu2021.experiments._base import Experiment, Finding, Measurement, Picture, Results

__all__ = ["EXPERIMENTS", "Experiment", "Finding", "Measurement", "Picture", "Results"]

EXPERIMENTS: tuple[Experiment, ...] = (
    within,
    across,
    attention,
    head_subsets,
    receptive,
    norms,
    skips,
    places,
    probes,
    data_scale,
)
