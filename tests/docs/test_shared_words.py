"""Arguments that stand in many docstrings have the same words in each of them."""

from __future__ import annotations

import inspect
from collections import defaultdict

import pytest
from numpydoc.docscrape import NumpyDocString

import repsim

HOMES = {
    "group": "block_influence",
    "sample_ids": "block_influence",
    "name": "extract",
    "names": "compare",
    "progress": "extract",
    "prepare, forward": "extract",
    "all_modules": "extract",
    "select, batch_dim": "linear_probe",
    "samples, max_samples, skip_first, seed, pairs": "data_scale",
    "metric": "mutual_knn",
    "k": "jaccard_knn",
}
"""By argument: the function whose words the others repeat."""

INSTEAD = {
    ("group", "compare"): {
        " With ``checkpoint`` each rank writes a separate file, "
        "``<checkpoint>.rank<r>of<size>``.": "",
    },
    ("group", "data_scale"): {"all models and its share": "its share"},
    ("group", "trajectory"): {
        "For CKA, the ranks": "The ranks",
        "all checkpoints and its share": "its share",
    },
    ("group", "linear_probe"): {
        "whose samples": "whose batches",
        "its shares as ``train`` and ``test``": "its share as ``data``",
    },
    ("sample_ids", "data_scale"): {"the models get": "the model gets"},
    ("sample_ids", "head_subset_cka"): {"the models get": "the model gets"},
    ("sample_ids", "linear_probe"): {" in ``train``, or in ``test``": ""},
    ("sample_ids", "trajectory"): {
        " in the pass": "",
        "again. For CKA the models get": "again: the model gets",
    },
    ("sample_ids", "compare"): {
        " in the pass": "",
        "again.": "again: the model gets the other samples of the batch.",
    },
    ("name", "data_scale"): {"the architecture": "the model", "the class of ``full``": "its class"},
    ("progress", "compare"): {" with rate and remaining time": ""},
    ("progress", "alignment"): {"progress bars": "a progress bar"},
    ("progress", "linear_probe"): {"progress bars": "a progress bar"},
    ("progress", "stitch"): {"progress bars": "a progress bar"},
    ("progress", "probe_activations"): {" over layers": " on standard error"},
    ("prepare, forward", "data_scale"): {"for all models": "for the model"},
    ("prepare, forward", "trajectory"): {"for all models": "for the model"},
    ("all_modules", "Recorder"): {
        ", such as identities, and dropout in evaluation": ", as in :class:`repsim.Recorder`",
        " A name, a type or another pattern always does.": "",
    },
    ("k", "mutual_knn"): {" With n − 1, all samples would be neighbours.": ""},
}
"""What an argument says in another way, and the words that it stands for."""

OWN = {
    "group": {"extract", "cka_matrix", "pairwise"} | {
        f"{each}.all_reduce"
        for each in ("MinibatchCKA", "StreamingCovariance", "StreamingLinearCKA")
    },
    "sample_ids": {"extract"},
    "metric": {"gromov_wasserstein"},
    "k": {"cknna", "second_order_cosine"},
}  # fmt: skip
"""Where an argument of this name means something else."""


@pytest.fixture(scope="module")
def words():
    """By argument and function: what the docstring says."""
    found = defaultdict(dict)
    for name in repsim.__all__:
        value = getattr(repsim, name)
        documented = {name: value} if callable(value) else {}
        if inspect.isclass(value):
            members = {m: getattr(value, m) for m in vars(value) if not m.startswith("_")}
            documented |= {f"{name}.{m}": each for m, each in members.items() if callable(each)}
        for label, each in documented.items():
            for argument, _, lines in NumpyDocString(inspect.getdoc(each) or "")["Parameters"]:
                found[argument][label] = " ".join(line.strip() for line in lines).strip()
    return found


def test_an_argument_has_the_same_words_everywhere(words):
    for argument, home in HOMES.items():
        others = words[argument].keys() - {home} - OWN.get(argument, set())
        assert others, argument
        for function in others:
            text = words[argument][function]
            if text.startswith("As in :func:"):
                continue
            for theirs, ours in INSTEAD.get((argument, function), {}).items():
                assert theirs in text, (argument, function, theirs)
                text = text.replace(theirs, ours, 1)
            assert text == words[argument][home], (argument, function)


def test_accumulators_of_covariances_have_the_same_words(words):
    for argument, method in (
        ("xs", "update"), ("ys", "update"), ("group", "all_reduce"), ("state", "from_state_dict"),
    ):  # fmt: skip
        names = [f"StreamingCovariance.{method}", f"StreamingLinearCKA.{method}"]
        assert len({words[argument][name] for name in names}) == 1, argument
