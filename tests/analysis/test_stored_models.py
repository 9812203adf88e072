"""Maps of stored activations name the models that made them."""

import numpy as np
import pytest
from torch import nn

import repsim
from analysis.plain import inputs, net


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("stores"), inputs(4, 10)
    return [
        repsim.extract(
            net(seed=seed), data, nn.Linear, out=folder / f"{name}.zarr", name=name, progress=False
        )
        for seed, name in enumerate(("early", "late"))
    ]


def test_maps_of_stores_have_the_names_of_the_models(stores):
    early, late = stores
    for compared in (
        repsim.cka_matrix,
        repsim.pairwise,
        lambda *sides: repsim.max_t(*sides, permutations=9),
        lambda *sides: repsim.max_t(*sides, measure="mutual_knn", k=3, permutations=9),
    ):
        both, alone = compared(early, late), compared(late)
        assert (both.attrs["model_x"], both.attrs["model_y"]) == ("early", "late")
        assert (alone.attrs["model_x"], alone.attrs["model_y"]) == ("late", "late")
        ax = repsim.plot.heatmap(both)
        assert (ax.get_ylabel(), ax.get_xlabel()) == ("early layer", "late layer")
    some = repsim.pairwise(early[["0"]], late)
    assert some.attrs["model_x"] == "early"


def test_other_mappings_have_no_model(stores):
    x = np.random.default_rng(0).standard_normal((40, 3))
    found = repsim.pairwise(dict(stores[0]), {"x": x})
    assert not {"model_x", "model_y"} & set(found.attrs)
