"""Inference: could this similarity be chance, and how well is it known.

- :func:`permutation_test`: p-value of one pair, for any measure; :func:`null_moments`: mean and
  variance by chance in closed form; :func:`max_t`: p-values of a whole map of layers.
- :func:`jackknife`: standard error and interval of unbiased CKA; :func:`subsample`: the same of any
  measure, from random halves.
- :func:`chance_floor`: what biased CKA is by chance; :func:`calibrated_score`: what is left above.

Samples that come in groups (tokens or positions of one image) are not independent: ``groups=``
permutes, leaves out and draws whole groups.

There is no bootstrap of whole samples. Drawn with replacement, a sample stands beside itself, and
pairs of equal rows enter every kernel matrix as the diagonal does that the unbiased estimator
leaves out: the bootstrap centres on the biased value. ``benchmarks/inference.py`` measures how
often its intervals contain the truth, beside those of the jackknife and of random halves.
"""

from repsim.inference._chance import CalibratedScore, calibrated_score, chance_floor
from repsim.inference._interval import Interval
from repsim.inference._jackknife import jackknife
from repsim.inference._max_t import max_t
from repsim.inference._null_moments import NullMoments, null_moments
from repsim.inference._permutation import PermutationTest, permutation_test
from repsim.inference._subsample import subsample

__all__ = [
    "CalibratedScore",
    "Interval",
    "NullMoments",
    "PermutationTest",
    "calibrated_score",
    "chance_floor",
    "jackknife",
    "max_t",
    "null_moments",
    "permutation_test",
    "subsample",
]
