"""One table recognises, describes and summarises every kind of result."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import repsim
from plot import results as made
from report.pages import compared
from repsim import InputError
from repsim.results import ATTENTION_DISTANCE, DATA_SCALE, KINDS, kind_of, token_maps


def aligned():
    rng = np.random.default_rng(0)
    models = {name: {"a": rng.standard_normal((20, 3))} for name in "xyz"}
    return repsim.alignment(models, measure="nbs", permutations=19, progress=False)


RESULTS = {
    "attention_distance": made.attention,
    "head_subset_cka": made.subsets,
    "effective_receptive_field": made.fields,
    "residual_ratios": made.ratios,
    "block_influence": made.influences,
    "token_localization": made.localized,
    "linear_probe": made.probes,
    "data_scale": made.scales,
    "stitch": made.stitched,
    "trajectory": made.steps,
    "alignment": aligned,
    "layer_match": lambda: repsim.layer_match(compared()),
    "compare": compared,
}


def test_every_result_is_of_one_kind_and_no_other():
    assert set(RESULTS) == set(KINDS)
    for name, make in RESULTS.items():
        result = make()
        assert [kind.function for kind in KINDS.values() if kind.fits(result)] == [name]
        assert kind_of(result) is KINDS[name]
    assert kind_of(made.scales().isel(fraction=[])) is None
    assert kind_of(xr.Dataset({"loss": ("step", [3.0, 1.0])})) is None


def test_every_kind_has_headline_numbers_and_a_table_of_plain_cells():
    for name, make in RESULTS.items():
        result = make()
        assert KINDS[name].findings(result), name
        title, columns, rows = KINDS[name].table(result)
        assert title
        assert rows
        assert {len(row) for row in rows} == {len(columns)}, name
        assert all(isinstance(cell, str | int | float) for row in rows for cell in row)


def test_a_dataset_has_the_attributes_of_its_kind():
    result = ATTENTION_DISTANCE.dataset(
        {"distance": np.ones((2, 3)), "uniform_distance": [1.0, 2.0]}, {"layer": ["a", "b"]}
    )
    assert result.distance.dims == ("layer", "head")
    assert result.distance.attrs == {"long_name": "mean attention distance", "units": "pixels"}
    assert ATTENTION_DISTANCE.label(result, "distance") == "mean attention distance (pixels)"
    result.distance.attrs["units"] = "patches"
    assert ATTENTION_DISTANCE.label(result, "distance") == "mean attention distance (patches)"
    assert ATTENTION_DISTANCE.variables["distance"].attrs["units"] == "pixels"


def test_distances_are_given_in_the_unit_of_the_result():
    text = made.attention()
    text.distance.attrs["units"] = "tokens"
    for result, unit, long in ((made.attention(), " px", "pixels"), (text, " tokens", "tokens")):
        found = ATTENTION_DISTANCE.findings(result)
        assert all(each.value.endswith(unit) for each in found if "most" in each.what)
        assert ATTENTION_DISTANCE.table(result).title.startswith(f"Attention distance in {long}")


def test_the_least_and_the_largest_have_their_names():
    kind, result = KINDS["block_influence"], made.influences()
    values, (least, largest) = result.influence.values, kind.findings(result)[:2]
    for found, i in ((least, np.argmin(values)), (largest, np.argmax(values))):
        value = f"{values[i]:.3f}"
        assert (found.value, found.where) == (value, str(result["block"].values[i]))
    assert kind.table(result).title.endswith(", Llama, 64 samples")
    result["influence"] = result.influence * np.nan
    assert not any(found.what.endswith(" influence") for found in kind.findings(result))


def test_require_converts_variables_and_leaves_out_empty_ones():
    result = made.scales().astype(np.float32)
    empty = result.isel(control=[])
    for given, controls in ((result, True), (empty, False)):
        back = DATA_SCALE.require(given, "f", "cka", optional=("control_cka",))
        assert back.cka.dtype == np.float64
        assert ("control_cka" in back) == controls
    with pytest.raises(InputError, match="f: result has no variable 'standard_error'"):
        DATA_SCALE.require(result.drop_vars("standard_error"), "f", "standard_error")


def test_maps_of_tokens_stand_at_the_places_of_the_patches():
    result = made.localized()
    one = result.isel(layer=0)
    tokens = token_maps(one)
    for patch in range(one.sizes["patch"]):
        row, column = int(one.patch_row[patch]), int(one.patch_column[patch])
        if row >= 0 and column >= 0:
            np.testing.assert_array_equal(tokens.maps[:, row, column], one.cka[:, patch])
    assert tokens.placed.sum() == tokens.grid[0] * tokens.grid[1]
    assert not (tokens.placed & tokens.is_prefix).any()


def test_maps_mark_the_cells_above_chance_for_each_test():
    result = compared()
    found = {each.what: each.value for each in KINDS["compare"].findings(result)}
    share = float((result.z >= 3).sum() / np.isfinite(result.cka).sum())
    assert found["pairs above chance, z ≥ 3 each tested alone"] == f"{share:.1%}"
    stricter = result.assign(p_adjusted=result.z * 0 + 0.5)
    found = {each.what: each.value for each in KINDS["compare"].findings(stricter)}
    assert found["pairs above chance, p ≤ 0.05 adjusted for all pairs"] == "0.0%"


def layer_pairs(values, name="net", **attrs):
    names = [f"l{i}" for i in range(len(values))]
    return xr.Dataset(
        {"cka": (("layer_x", "layer_y"), np.asarray(values, dtype=float), attrs)},
        coords={"layer_x": names, "layer_y": names},
        attrs={"model_x": name, "model_y": name},
    )


def test_pairs_of_layers_have_the_names_of_rows_and_columns_and_their_errors():
    dims = ("layer_x", "layer_y")
    values, errors = [[0.2, 0.9], [0.5, 0.1]], [[0.01, 0.02], [0.03, 0.04]]
    result = xr.Dataset(
        {"cka": (dims, values), "standard_error": (dims, errors)},
        coords={"layer_x": ["a", "b"], "layer_y": ["c", "d"]},
        attrs={"model_x": "one", "model_y": "two"},
    )
    kind, columns = KINDS["compare"], ["layer of x", "layer of y", "CKA", "standard error"]
    for each in (result, result.transpose()):
        assert [(found.value, found.where) for found in kind.findings(each)] == [
            ("0.425", "2 × 2"),
            ("0.900 ± 0.020", "a · d"),
            ("0.100 ± 0.040", "b · d"),
            ("0.040", ""),
        ]
        assert kind.table(each) == (
            "CKA of one with two: most similar layers",
            columns,
            [["a", "d", 0.9, 0.02], ["b", "c", 0.5, 0.03]],
        )
    tested = result.assign(z=10 * result.cka)
    assert kind.table(tested).columns == [*columns, "z"]
    tested = tested.assign(p_adjusted=0.1 * result.cka)  # it says more than z
    assert kind.table(tested).columns == [*columns, "p adjusted"]


def test_two_models_of_one_name_are_not_one_model():
    # nobody reads the steps of one model into a map of two, or leaves out its diagonal
    rng = np.random.default_rng(0)
    two = layer_pairs(rng.uniform(0.1, 0.9, (12, 12)))
    title, _, rows = KINDS["compare"].table(two)
    assert title.endswith("most similar layers")
    assert rows[0][1] == f"l{int(two.cka.values[0].argmax())}"
    mean = KINDS["compare"].findings(layer_pairs([[0.4]]))[0]
    assert (mean.what, mean.value) == ("mean of all pairs of layers", "0.400")

    one = rng.uniform(0.1, 0.9, (12, 12))  # also if the measure is not symmetric
    np.fill_diagonal(one, 1.0)
    assert KINDS["compare"].table(layer_pairs(one))[0].endswith("from layer to layer")
    mean = KINDS["compare"].findings(layer_pairs(one))[0]
    assert mean.what == "mean of all pairs of different layers"


def test_steps_in_a_row_are_found_by_their_number():
    steps = [0, 10, 20, 30]
    similarity = 1 - np.abs(np.subtract.outer(steps, steps)) / 100
    similarity[1, 2] = similarity[2, 1] = 0.5
    whole = xr.Dataset(
        {"cka": (("step_x", "step_y", "layer"), similarity[..., None])},
        coords={"step_x": steps, "step_y": steps, "layer": ["a"]},
    )
    kind = KINDS["trajectory"]
    for part in (whole, whole.isel(step_x=slice(1, None)), whole.isel(step_x=[3, 1, 0, 2])):
        (found,) = kind.findings(part)
        assert (found.value, found.where) == ("0.500", "10 → 20")
        assert "10 → 20" in kind.table(part).columns


def test_a_measure_that_is_not_symmetric_has_both_orders_of_two_models():
    rng = np.random.default_rng(0)
    models = {name: {"a": rng.standard_normal((20, p))} for name, p in (("x", 2), ("y", 6))}
    options = {"permutations": 19, "progress": False}
    both = repsim.alignment(models, measure="linear_regression_r2", **options)
    kind = KINDS["alignment"]
    assert [row[:2] for row in kind.table(both).rows] == [["x", "y"], ["y", "x"]]
    assert kind.findings(both)[-1].where.endswith("of 2")
    same = repsim.alignment(models, measure="nbs", **options)
    assert len(kind.table(same).rows) == 1
    assert [found.what for found in kind.findings(same)[:2]] == [
        "two models that are most alike",
        "pairs of models above chance, p ≤ 0.05 over all layers",
    ]


def test_parts_of_results_have_the_numbers_of_the_whole():
    pairs = aligned()
    kind, part = KINDS["alignment"], pairs.sel(model_y=["y"])
    assert [row[:2] for row in kind.table(part).rows] == [["x", "y"], ["z", "y"]]
    assert "samples" not in kind.table(part.drop_attrs()).title
    assert kind.findings(part)[-1].where.endswith("of 2")

    influence, whole = KINDS["block_influence"], made.influences()
    (row,) = influence.table(whole.isel(block=[2])).rows
    assert row == influence.table(whole).rows[2]
    later = influence.table(whole.isel(start=slice(2, None)))
    assert later.rows[2] == row
    assert np.isnan(later.rows[0][-1])

    scales = made.scales().isel(fraction=[0, 1]).assign_coords(fraction=[0.3, 0.30000001])
    assert len(KINDS["data_scale"].table(scales.drop_dims("control")).columns) == 3


def test_ends_without_a_value_are_not_called_the_first_and_the_last():
    result = made.fields()
    first, *rest = result["layer"].values
    whole = [found.what for found in KINDS["effective_receptive_field"].findings(result)]
    assert "σ, root mean square radius, first layer" in whole
    result["sigma"].loc[{"layer": first}] = np.nan
    found = KINDS["effective_receptive_field"].findings(result)[0]
    assert (found.what, found.where) == (
        "σ, root mean square radius, first layer with a value",
        rest[0],
    )
    for layer in rest[:-1]:
        result["sigma"].loc[{"layer": layer}] = np.nan
    found = KINDS["effective_receptive_field"].findings(result)[0]
    assert found.what == "σ, root mean square radius, only layer with a value"
