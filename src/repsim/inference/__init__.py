"""Inference: whether a similarity could be chance, and how precise it is.

- :func:`permutation_test`: p-value of one pair, for any measure; :func:`null_moments`: mean and
  variance by chance in closed form; :func:`max_t`: p-values of a whole map of layers.
- :func:`jackknife`: standard error and interval of unbiased CKA; :func:`subsample`: the same of any
  measure, from random halves.
- :func:`chance_floor`: the biased CKA of unrelated data; :func:`calibrated_score`: the similarity
  above chance.

- :func:`noise_ceiling`: how high a value repeated measurements allow;
  :func:`jackknife_subjects` and :func:`bootstrap_rsa`: intervals of CKA and of RSA over other
  conditions and other subjects.

Samples that come in groups (tokens or positions of one image) are not independent. With
``groups=``, the functions permute, leave out and draw whole groups.

CKA has no bootstrap. Drawing with replacement pairs a sample with its own copy, off the diagonal
of every kernel matrix. These pairs are as large as the diagonal, which the unbiased estimator
leaves out, so the bootstrap is centred on the biased value. ``benchmarks/inference.py`` measures
how often its intervals contain the true value, beside those of the jackknife and of random halves.
RSA compares pairs one by one, so that :func:`bootstrap_rsa` can leave out the pairs of copies.
"""

from repsim.inference._chance import CalibratedScore, calibrated_score, chance_floor
from repsim.inference._interval import Interval
from repsim.inference._jackknife import jackknife
from repsim.inference._max_t import max_t
from repsim.inference._null_moments import NullMoments, null_moments
from repsim.inference._permutation import PermutationTest, permutation_test
from repsim.inference._subsample import subsample
from repsim.inference.repeats._bootstrap_rsa import bootstrap_rsa
from repsim.inference.repeats._interval import SubjectsInterval
from repsim.inference.repeats._jackknife_subjects import jackknife_subjects
from repsim.inference.repeats._noise_ceiling import NoiseCeiling, noise_ceiling

__all__ = [
    "CalibratedScore",
    "Interval",
    "NoiseCeiling",
    "NullMoments",
    "PermutationTest",
    "SubjectsInterval",
    "bootstrap_rsa",
    "calibrated_score",
    "chance_floor",
    "jackknife",
    "jackknife_subjects",
    "max_t",
    "noise_ceiling",
    "null_moments",
    "permutation_test",
    "subsample",
]
