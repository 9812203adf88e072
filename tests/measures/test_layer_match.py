"""The best match of every layer as numbers; tests/plot tests its picture."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import repsim
from cases import each
from repsim import InputError, layer_match


def a_map(values, **attrs):
    values = np.asarray(values)
    return xr.DataArray(
        values,
        dims=("layer_x", "layer_y"),
        coords={
            "layer_x": [f"conv.{i}" for i in range(values.shape[0])],
            "layer_y": [f"block.{j}" for j in range(values.shape[1])],
        },
        name="cka",
        attrs=attrs,
    )


def known(matches, n_y, top=0.9):
    values = np.random.default_rng(0).uniform(0.0, 0.5, (len(matches), n_y))
    values[np.arange(len(matches)), matches] = top
    return a_map(values)


def test_matches_depths_and_values():
    match = layer_match(known([0, 2, 1, 4], 5))
    assert dict(match.sizes) == {"layer_x": 4}
    assert match["match"].values.tolist() == ["block.0", "block.2", "block.1", "block.4"]
    assert match.layer_x.values.tolist() == ["conv.0", "conv.1", "conv.2", "conv.3"]
    np.testing.assert_allclose(match.cka, 0.9)
    np.testing.assert_allclose(match.depth_x, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(match.depth_y, [0, 0.5, 0.25, 1])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_plain_loops(n_x, n_y, seed):
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (n_x, n_y))
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    match = layer_match(a_map(values))
    # Of a dissimilarity, the least is the best.
    least = layer_match(a_map(-values, kind="dissimilarity"))
    np.testing.assert_array_equal(least["match"], match["match"])
    np.testing.assert_array_equal(least.cka, -match.cka)
    lower, left_out = [], []
    for i in range(n_x):
        best = None
        for j in range(n_y):
            if not np.isnan(values[i, j]) and (best is None or values[i, j] > values[i, best]):
                best = j
        if best is None:
            left_out.append(f"conv.{i}")
            continue
        row = match.sel(layer_x=f"conv.{i}")
        assert row["match"].item() == f"block.{best}"
        assert row.cka.item() == values[i, best]
        assert row.depth_x.item() == pytest.approx(i / (n_x - 1) if n_x > 1 else 0)
        assert row.depth_y.item() == pytest.approx(best / (n_y - 1) if n_y > 1 else 0)
        if 2 * i <= n_x - 1:
            lower.append(best / (n_y - 1) if n_y > 1 else 0.0)
    assert match.attrs["left_out"] == ", ".join(left_out)
    assert match.sizes["layer_x"] == n_x - len(left_out)
    if lower:
        # The least matched depth with at least nine in ten at or below it.
        reach = min(d for d in lower if 10 * sum(e <= d for e in lower) >= 9 * len(lower))
        assert match.attrs["lower_half_reach"] == pytest.approx(reach)
        assert match.attrs["lower_half_median"] == pytest.approx(np.median(lower))
    else:
        assert np.isnan(match.attrs["lower_half_reach"])
        assert np.isnan(match.attrs["lower_half_median"])


def test_the_lower_half():
    # Ten of the twenty layers are in the lower half; nine match by block 27 of 101, one strays.
    match = layer_match(known([3, 6, 9, 12, 15, 18, 21, 24, 27, 90, *range(91, 101)], 101))
    assert match.attrs["lower_half_reach"] == pytest.approx(0.27)
    assert match.attrs["lower_half_median"] == pytest.approx(0.165)


def test_the_layer_in_the_middle_belongs_to_the_lower_half():
    assert layer_match(known([0, 3, 4], 5)).attrs["lower_half_reach"] == pytest.approx(0.75)


def test_the_lowest_of_equals():
    assert layer_match(a_map([[0.1, 0.7, 0.7, 0.2]]))["match"].item() == "block.1"


def test_negative_is_better_than_undefined():
    match = layer_match(a_map([[np.nan, -0.2, -0.1]]))
    assert (match["match"].item(), match.cka.item()) == ("block.2", -0.1)


def test_all_undefined():
    match = layer_match(a_map(np.full((2, 3), np.nan)))
    assert match.sizes["layer_x"] == 0
    assert match.attrs["left_out"] == "conv.0, conv.1"
    assert np.isnan(match.attrs["lower_half_reach"])


def test_either_order_of_dimensions():
    values = known([0, 2, 1, 4], 5)
    xr.testing.assert_identical(layer_match(values.T), layer_match(values))


def test_values_are_not_changed():
    values = known([0, 2], 3)
    values[0, 1] = np.nan
    before = values.copy(deep=True)
    layer_match(values)
    xr.testing.assert_identical(values, before)


def test_integers_and_unnamed_maps():
    match = layer_match(xr.DataArray([[1, 3, 2]], dims=("layer_x", "layer_y")))
    assert match["match"].values.tolist() == ["1"]
    assert match["value"].values.tolist() == [3.0]


def test_another_variable_keeps_its_name():
    dataset = xr.Dataset({"rsa": known([1, 0], 2), "cka": known([0, 1], 2)})
    match = layer_match(dataset, "rsa")
    assert match["match"].values.tolist() == ["block.1", "block.0"]
    np.testing.assert_allclose(match.rsa, 0.9)
    assert "cka" not in match


def test_provenance_is_kept():
    dataset = known([0, 1], 2).to_dataset().assign_attrs(model_x="ResNet", model_y="ViT")
    assert layer_match(dataset).attrs["model_x"] == "ResNet"
    assert layer_match(a_map([[1.0]], model_y="ViT")).attrs["model_y"] == "ViT"


def test_of_a_comparison():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    data = [torch.randn(16, 6) for _ in range(3)]
    match = layer_match(repsim.compare(net, data=data, progress=False))
    assert match["match"].values.tolist() == ["0", "1", "2"]
    np.testing.assert_allclose(match.cka, 1)
    assert match.attrs["model_y"] == "Sequential"


def test_the_picture_shows_the_numbers():
    pytest.importorskip("matplotlib")
    from repsim import plot

    values = known([3, 6, 9, 40, 15, 18, 21, 24], 50)
    match = layer_match(values)
    ax = plot.layer_match(values)
    points = ax.collections[0]
    np.testing.assert_array_equal(
        points.get_offsets(), np.column_stack([match.depth_x, match.depth_y])
    )
    np.testing.assert_array_equal(points.get_array(), match.cka)
    assert f"lowest {match.attrs['lower_half_reach']:.0%}" in ax.texts[0].get_text()


@each(
    ("result", "message"),
    [
        (np.ones((2, 2)), r"must be an xarray.Dataset or DataArray"),
        (known([0, 1], 2).to_dataset(name="rsa"), r"no variable 'cka'"),
        (known([0, 1], 2)[0], r"exactly the dimensions"),
        (known([0, 1], 2).expand_dims("pass"), r"exactly the dimensions"),
        (known([0, 1], 2).rename(layer_x="layer"), r"exactly the dimensions"),
        (known([0, 1], 2)[:0], r"at least one layer"),
        (known([0, 1], 2).astype(str), r"real numbers"),
    ],
)
def test_errors(result, message):
    with pytest.raises(InputError, match=f"^layer_match: .*{message}"):
        layer_match(result)


def test_matches_above_chance_are_those_that_pass_the_test():
    cka = known([0, 2, 1, 4], 5)
    z = xr.full_like(cka, 9.0)
    z[1, 2], z[3, 4] = 2.9, np.nan
    p = xr.full_like(cka, 0.05)
    p[0, 0], p[3, 4] = 0.051, np.nan
    for tests, expected, said in (
        ({"z": z}, [True, False, True, False], "z ≥ 3, each tested alone"),
        ({"z": z.T}, [True, False, True, False], "z ≥ 3"),
        ({"z": z, "p_adjusted": p}, [False, True, True, False], "p ≤ 0.05, adjusted"),
    ):
        match = layer_match(cka.to_dataset().assign(tests))
        assert match.above_chance.values.tolist() == expected
        assert match.above_chance.attrs["description"].startswith(said)
        assert repsim.results.similarity_of(match) == "cka"
    assert "above_chance" not in layer_match(cka)
    assert "above_chance" not in layer_match(cka.to_dataset())
    cka[1] = np.nan  # a layer that is left out
    match = layer_match(cka.to_dataset().assign(z=z))
    assert match.above_chance.values.tolist() == [True, True, False]
