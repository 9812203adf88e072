"""Every public function that takes arrays, as a function of two arrays with a number as value."""

import inspect

import numpy as np
import torch

import repsim
from reference.data import related
from repsim.measures import MEASURES

X, Y = related(12, 3, 3)
LABELS = np.arange(12) % 2
ROWS = {"dims": ("sample", "feature"), "coords": {"sample": np.arange(12)}}


def tensor(x):
    return torch.tensor(np.asarray(x))


def accumulated(kind, x, y):
    accumulator = kind()
    accumulator.update({"a": x, "b": y})
    return accumulator.compute().values[0, 1]


FUNCTIONS = {  # the first word is the function's name
    **{
        f"{m.function.__name__} {m.name}": lambda x, y, m=m: m.function(x, y, **m.preset, **few(m))
        for m in MEASURES.values()
    },
    "cka given": lambda x, y: repsim.cka(y, y, given=x),
    "pairwise": lambda x, y: repsim.pairwise({"a": x}, {"b": y}).item(),
    "pairwise given": lambda x, y: repsim.pairwise({"a": y}, {"b": y}, given=x).item(),
    "jackknife": lambda x, y: repsim.jackknife(x, y).value,
    "permutation_test": lambda x, y: repsim.permutation_test(x, y, permutations=9).value,
    "calibrated_score": lambda x, y: repsim.calibrated_score(x, y, permutations=19).value,
    "chance_floor": repsim.chance_floor,
    "rdm": lambda x, y: repsim.rsa_from_rdm(repsim.rdm(x), repsim.rdm(y)),
    "effective_dimension": lambda x, y: repsim.effective_dimension(x),
    "jensen_shannon": repsim.jensen_shannon,
    "disagreement": repsim.disagreement,
    **{
        kind.__name__: lambda x, y, kind=kind: kind().fit(x, y).score(x, y)
        for kind in (
            repsim.ProcrustesAlignment,
            repsim.PermutationAlignment,
            repsim.RegressionAlignment,
            repsim.CCAAlignment,
        )
    },
    "gromov_wasserstein": lambda x, y: repsim.gromov_wasserstein(x, y, starts=0),
    "noise_ceiling": lambda x, y: repsim.noise_ceiling([x, y]).lower,
    "bootstrap_rsa": lambda x, y: repsim.inference.bootstrap_rsa(x, y, draws=50).value,
    "jackknife_subjects": lambda x, y: repsim.inference.jackknife_subjects(x, y).value,
    "max_t": lambda x, y: repsim.max_t({"a": x}, {"b": y}, permutations=9).cka.item(),
    "null_moments": lambda x, y: repsim.inference.null_moments(x, y).variance,
    "subsample": lambda x, y: repsim.inference.subsample(x, y, draws=5).value,
    "MinibatchCKA": lambda x, y: accumulated(repsim.MinibatchCKA, x, y),
    "StreamingLinearCKA": lambda x, y: accumulated(repsim.StreamingLinearCKA, x, y),
    "StreamingCovariance": lambda x, y: accumulated(repsim.StreamingCovariance, x, y),
    "cka_matrix": lambda x, y: repsim.cka_matrix({"a": x}, {"b": y}).item(),
    "probe_activations": lambda x, y: repsim.probe_activations(
        {"a": x}, LABELS, {"a": y}, LABELS, ridges=[1.0], holdout=0.0
    ).accuracy.item(),
}


def few(measure):
    return {"k": 3} if "k" in inspect.signature(measure.function).parameters else {}
