"""The page as text: the kind of a result, its findings and its cautions."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import sys
from importlib.resources import files

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex, to_rgb

import repsim
from plot import results as made
from report.pages import HOSTILE, compared, section_of, values_of, with_itself
from repsim import InputError
from repsim.report import write_report
from repsim.results import KINDS, number


def found(result, what):
    """Value and place of the one finding that begins so."""
    every = [each for each in section_of("it", result).findings if each.what.startswith(what)]
    assert len(every) == 1, [each.what for each in every]
    return every[0].value, every[0].where


def cautions(result):
    return " ".join(section_of("it", result).cautions)


@pytest.mark.parametrize(
    ("result", "kind", "pictures"),
    [
        (compared(), "Layer map", ["map", "chart"]),
        (with_itself(), "Layer map", ["map", "chart"]),
        (compared().cka.to_dataset(name="procrustes"), "Layer map", ["map", "chart"]),
        (made.attention(), "Attention distance", ["chart", "chart"]),
        (made.attention()[["distance"]], "Attention distance", ["chart"]),
        (made.subsets(), "Head subsets", ["chart"]),
        (made.fields(), "Effective receptive field", ["tiles", "chart"]),
        (made.ratios(), "Residual ratios", ["chart"]),
        (made.influences(), "Block influence", ["chart", "map"]),
        (made.localized(), "Token localisation", ["chart", "tiles"]),
        (made.probes(), "Linear probe", ["chart"]),
        (made.scales(), "Less data", ["chart"]),
        (made.scales().drop_dims("control"), "Less data", ["chart"]),
        (made.steps(), "Training time", ["chart"]),
        (made.between_steps(), "Training time", ["map"]),
        (repsim.layer_match(compared()), "Layer match", ["chart"]),
        (xr.Dataset({"loss": ("step", [3.0, 1.0])}), "Result", []),
        (xr.Dataset(), "Result", []),
        (made.attention().astype(str), "Result", []),
        (compared().isel(layer_x=slice(0)), "Result", []),
    ],
)
def test_the_kind_of_a_result_is_found_from_its_variables(result, kind, pictures):
    section = section_of("it", result)
    assert section.kind == kind
    assert [each["type"] for each in section.pictures] == pictures
    assert all(each["alt"] for each in section.pictures)
    assert (section.table is not None) == (kind == "Result")


def test_the_table_of_kinds_names_functions_of_the_library():
    assert all(callable(getattr(repsim, name)) for name in KINDS)


def test_results_of_the_real_functions_are_known():
    rng = np.random.default_rng(0)
    layers = {f"layer {i}": rng.standard_normal((20, 6)) for i in range(4)}
    for result in (
        repsim.pairwise(layers),
        repsim.pairwise(layers, measure="procrustes"),
        repsim.cka_matrix(layers),
        repsim.max_t(layers, permutations=9),
    ):
        dataset = result if isinstance(result, xr.Dataset) else result.to_dataset(name=result.name)
        assert section_of("it", dataset).kind == "Layer map"


def test_the_largest_and_smallest_are_off_the_diagonal():
    result = with_itself(m=8)
    result.cka[2, 5] = result.cka[5, 2] = 0.97
    result.cka[1, 6] = result.cka[6, 1] = -0.05
    assert found(result, "largest of all pairs of different") == ("0.970", "blocks.2 · blocks.5")
    assert found(result, "smallest of all pairs") == ("−0.050", "blocks.1 · blocks.6")
    off = result.cka.values[~np.eye(8, dtype=bool)]
    assert found(result, "mean of all pairs") == (number(off.mean()), "8 × 8")


def test_two_models_are_matched_and_their_errors_shown():
    result = compared()
    result.cka[29, 23], result.standard_error[29, 23] = 1.2, 0.0234
    assert found(result, "largest of all pairs") == (
        "1.200 ± 0.023",
        "blocks.29.mlp.fc1 · layer23.conv2",
    )
    match = repsim.layer_match(result)
    assert found(result, "depth of ResNet-18 that contains")[0] == f"{match.lower_half_reach:.0%}"
    assert found(result, "median depth")[0] == f"{match.lower_half_median:.0%}"
    assert found(result, "largest standard error")[0] == number(float(result.standard_error.max()))


def test_a_dissimilarity_has_no_best_match():
    result = compared().cka.rename("procrustes").assign_attrs(kind="dissimilarity").to_dataset()
    section = section_of("it", result)
    assert len(section.pictures) == 1
    assert not any("match" in each.what for each in section.findings)
    drawn = section.pictures[0]["variables"][0]
    assert (drawn["low"], drawn["high"]) == (0.0, float(result.procrustes.max()))
    assert drawn["colours"] != "magma"  # which says similarity


def test_a_map_says_what_its_measure_is():
    rng = np.random.default_rng(0)
    xs = {name: rng.standard_normal((30, p)) for name, p in (("a", 3), ("b", 5))}
    ys = {name: rng.standard_normal((30, 4)) for name in "cd"}
    for measure, label, note in (
        ("mutual_knn", "mutual knn (k=10)", "Larger is more alike; 1 for equal representations"),
        ("shape_distance", "shape distance (in rad, smaller", "range 0 to 1.571."),
        ("hsic", "HSIC (linear, unbiased)", "Larger is more alike."),
        ("procrustes", "in units of the features", "0 for equal representations."),
    ):
        section = section_of("it", repsim.pairwise(xs, ys, measure=measure).to_dataset())
        assert label in section.pictures[0]["alt"]
        assert note in section.pictures[0]["note"]
        assert (section.pictures[0]["variables"][0]["colours"] == "magma") == (
            measure in ("mutual_knn", "hsic")
        )


def test_the_share_above_chance():
    result = compared()
    known = np.isfinite(result.cka.values)
    share = int((result.z.values >= 3).sum())
    assert found(result, "pairs above chance, z ≥ 3") == (
        f"{share / known.sum():.1%}",
        f"{share} of {known.sum()}",
    )
    result["p_adjusted"] = result.cka.dims, np.where(result.z >= 20, 0.01, 0.5)
    share = int((result.z.values >= 20).sum())
    assert found(result, "pairs above chance, p ≤ 0.05")[0] == f"{share / known.sum():.1%}"


def test_findings_of_the_other_measurements():
    result = made.attention(layers=5, heads=4)
    mean = result.distance.mean("head").values
    assert found(result, "mean attention distance, first") == (
        number(mean[0], 1) + " px",
        "blocks.0.attn",
    )
    assert found(result, "mean attention distance, last")[0] == number(mean[-1], 1) + " px"
    assert found(result, "attention to prefix tokens, mean of heads, first")[0] == "0.100"
    below = int((result.distance[0] < result.uniform_distance[0] / 2).sum())
    assert found(result, "heads of the first layer with less")[0] == f"{below} of 4"

    result = made.ratios()
    assert found(result, "‖skip‖ / ‖branch‖, prefix tokens (CLS), first")[0] == "6.00"
    assert found(result, "‖skip‖ / ‖branch‖, prefix tokens (CLS), last") == (
        "1.00",
        "blocks.11.mlp",
    )
    assert found(result, "largest ratio, spatial tokens")[0] == number(
        float(result.ratio_spatial.max()), 2
    )

    result = made.fields()
    assert found(result, "σ, root mean square radius, last")[0] == "14.1 px"
    assert found(made.localized(), "tokens most similar to their own patch, first")[0] == "93.0%"
    assert found(made.localized(), "by chance")[0] == "0.5%"
    assert found(made.probes(), "best accuracy, CLS") == ("80.0%", "blocks.11")
    assert found(made.probes(single=3), "accuracy of single tokens")[1].count("%") == 2
    assert found(made.scales(), "CKA, 10 % of the data, last")[0] == number(0.1**0.4)
    assert "No control" in cautions(made.scales().drop_dims("control"))

    result = made.subsets(layers=1)
    r = np.corrcoef(result.mean_distance, result.cka[:, 0])[0, 1]
    assert found(result, "correlation of CKA")[0] == number(r, 2)


def test_one_layer_or_step_is_said_once():
    for result in (made.attention(layers=1), made.steps(steps=(7,))):
        every = [each.what for each in section_of("it", result).findings]
        assert len(set(every)) == len(every)
        assert not any("first" in each or "last" in each for each in every)


def probes_with_errors():
    result = made.probes(single=2)
    return result.assign(standard_error=0.02 * xr.ones_like(result.accuracy))


def test_an_error_of_zero_is_no_bound():
    result = probes_with_errors()
    for value, error, text in ((0.8, 0.02, "80.0% ± 2.0%"), (1.0, 0.0, "100.0%")):
        result.accuracy[-1, 0], result.standard_error[-1, 0] = value, error
        assert found(result, "best accuracy, CLS")[0] == text
    result.standard_error[-1, 0] = 0.0002
    assert found(result, "best accuracy, CLS")[0] == "100.0% ± <0.1%"


@pytest.mark.parametrize("make", [made.steps, made.scales, made.subsets, probes_with_errors])
def test_bands_are_named_if_there_are_any(make):
    result = make()
    words = "Bands are one standard error."
    assert words in section_of("it", result).pictures[0]["note"]
    result["standard_error"] = result["standard_error"] * np.nan
    chart = section_of("it", result).pictures[0]
    assert words not in chart["note"]
    assert all(each["low"] is None for each in chart["series"] if "single" not in each["name"])


def test_a_trajectory_says_its_measure_and_whether_less_is_more_alike():
    chart = section_of("it", made.steps()).pictures[0]
    assert chart["yLabel"] == "CKA (linear)"
    assert section_of("it", made.between_steps()).pictures[0]["variables"][0]["colours"] == "magma"
    result = made.between_steps().rename(cka="procrustes")
    result["procrustes"] = 1 - result["procrustes"]
    result["procrustes"].attrs["kind"] = "dissimilarity"
    section = section_of("it", result)
    assert section.pictures[0]["variables"][0]["colours"] == "viridis_r"  # bright is alike


def test_values_of_a_trajectory_are_within_the_scale_of_all_layers():
    maps = made.between_steps().rename(cka="hsic")
    maps["hsic"] = (50 * maps["hsic"]).assign_attrs(measure="hsic", kind="similarity")
    for drawn in section_of("it", maps).pictures[0]["variables"]:
        assert (drawn["low"], drawn["high"]) == (0.0, float(maps.hsic.max()))


def test_some_models_with_all_models():
    rng = np.random.default_rng(0)
    models = {name: {"a": rng.standard_normal((20, 3))} for name in "xyz"}
    whole = repsim.alignment(models, k=3, permutations=19, progress=False)
    drawn = section_of("it", whole.sel(model_x=["y"])).pictures[0]
    assert (drawn["rows"], drawn["columns"]) == (["y"], ["x", "y", "z"])
    values = np.frombuffer(base64.b64decode(drawn["variables"][0]["values"]), "<f4")
    np.testing.assert_allclose(values, whole.score.values[1], rtol=1e-6)


def test_steps_are_exact_and_far_apart_ones_on_a_logarithmic_axis():
    steps = (0, 1, 1000, 1_048_576)
    chart = section_of("it", made.steps(steps=steps)).pictures[0]
    assert chart["series"][0]["x"] == list(steps)
    assert chart["logFrom"] == 1
    assert section_of("it", made.steps(steps=(0, 10, 20))).pictures[0]["logFrom"] is None


def test_an_unknown_error_takes_no_band_from_the_other_layers():
    result = made.scales()
    result["standard_error"][0, 1] = np.nan
    low = section_of("it", result).pictures[0]["series"][0]["low"]
    assert [each is None for each in low[:3]] == [False, True, False]


def test_each_kind_of_subset_has_lines_and_the_unit_is_that_of_the_result():
    result = made.subsets(layers=2)
    result["mean_distance"].attrs["units"] = "tokens"
    section = section_of("it", result)
    chart = section.pictures[0]
    assert [(each["name"], each["dashed"]) for each in chart["series"][:2]] == [
        ("layer1.0.bn3, growing", False),
        ("layer1.0.bn3, sliding", True),
    ]
    assert all(each["x"] == sorted(each["x"]) for each in chart["series"])
    assert chart["note"].endswith("Dashed: sliding.")
    assert "(tokens)" in chart["xLabel"]
    assert "pixels" not in chart["alt"]


def test_missing_heads_and_layers_are_left_out():
    result = made.attention(layers=3, heads=4)
    result.distance[0, 1:] = np.nan
    result.distance[2] = np.nan
    assert found(result, "mean attention distance, first")[0] == (
        number(float(result.distance[0, 0]), 1) + " px"
    )
    assert found(result, "mean attention distance, last")[1] == "blocks.1.attn"
    nothing = made.probes()
    nothing["accuracy"] = nothing.accuracy * np.nan
    assert not any("best" in each.what for each in section_of("it", nothing).findings)


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"estimator": "biased"}, "The biased estimator has a floor"),
        ({"n_samples": 64}, "Only 64 samples"),
        ({"n_batches": 1}, "A single batch"),
        ({"n_batches": 5}, "jackknife over 5 batches only; its own error is about ±35%"),
        ({"passes": 3}, "3 passes over the same samples"),
        ({"n_skipped_batches": 2}, "2 batches of fewer than 4 samples were left out"),
        ({"n_skipped_batches": 1}, "A batch of fewer than 4 samples was left out"),
        ({"interrupted": "after 3 batches"}, "Interrupted after 3 batches"),
    ],
)
def test_cautions(attrs, said):
    assert said not in cautions(compared())
    assert said in cautions(compared(**attrs))


def test_cautions_of_values():
    assert "24 of 720 values are undefined (NaN)" in cautions(compared())
    assert "No standard error" in cautions(compared().drop_vars("standard_error"))


def written(results, tmp_path, **options):
    return write_report(results, tmp_path / "report.html", **options).read_text(encoding="utf-8")


def test_missing_results_are_named(tmp_path):
    control, chance = "no untrained control", "test against chance. compare"
    page = written({"map": compared()}, tmp_path)
    assert control in page
    assert chance not in page
    page = written({"map": compared().drop_vars("z"), "b": with_itself()}, tmp_path)
    assert control not in page
    assert chance in page
    page = written({"attention": made.attention()}, tmp_path)
    assert control not in page
    assert chance not in page


def test_title_command_and_versions(tmp_path):
    page = written({"A & B": compared()}, tmp_path, command=["repsim", "compare", "a b"])
    assert "<h1>ViT-Ti/16 and ResNet-18</h1>" in page
    assert "<title>ViT-Ti/16 and ResNet-18</title>" in page
    assert '<h2 id="title-1">A &amp; B</h2>' in page
    assert "<code>repsim compare &#39;a b&#39;</code>" in page
    assert re.search(r"<dt>torch</dt><dd>2\.6\.0</dd>", page)
    page = written({"a": compared(), "b": compared()}, tmp_path, title="Mine", command="make map")
    assert "<h1>Mine</h1>" in page
    assert "<code>make map</code>" in page
    assert "2,048 samples, 16 batches" in page


def test_the_heading_names_the_models_of_all_results(tmp_path):
    def heading(*models):
        results = {str(at): with_itself(model_x=x, model_y=y) for at, (x, y) in enumerate(models)}
        return re.search("<h1>(.*?)</h1>", written(results, tmp_path))[1]

    assert heading(("ViT", "ViT")) == "ViT"
    assert heading(("ViT", "ViT"), ("CNN", "CNN"), ("ViT", "CNN")) == "ViT and CNN"
    assert heading(("a", "b"), ("b", "c")) == "a, b and c"
    assert heading(("a", "b"), ("c", "d"), ("e", "f")) == "a, b, c and 3 more models"
    bare = with_itself().drop_attrs()
    assert "<h1>mine</h1>" in written({"mine": bare}, tmp_path)
    named = with_itself().cka.assign_attrs(model_x="ViT", model_y="CNN")  # attributes of a variable
    assert "<h1>ViT and CNN</h1>" in written({"mine": named}, tmp_path)


def test_models_that_were_not_trained_are_named_first_and_beside_each_picture(tmp_path):
    def said(**results):
        page = written(results, tmp_path)
        top = re.search(r'<p class="untrained"><strong>(.*?)</strong>', page)
        badges = re.findall(r'<h3>[^<]*<span class="badge">(.*?)</span></h3>', page)
        assert len(badges) in (0, len(re.findall("<figure", page)))
        return top and top[1], set(badges)

    random = {"weights_x": "random (seed 0)", "weights_y": "random (seed 1)"}
    both = compared(**random)
    told = "ViT-Ti/16, ResNet-18"
    assert said(a=both) == (f"Not trained: {told}.", {f"not trained: {told}"})
    one = compared(weights_x="resnet.pt (sha256 1)", weights_y="random (seed 1)")
    assert said(a=one)[1] == {"not trained: ResNet-18"}
    assert said(a=compared(weights_x="published", weights_y="published")) == (None, set())
    assert said(a=compared()) == (None, set())
    for side in ("_x", ""):
        itself = with_itself(model_x="ViT", model_y="ViT", **{f"weights{side}": "random (seed 0)"})
        assert said(a=itself)[1] == {"not trained: ViT"}
    assert said(a=made.attention().assign_attrs(model="ViT", weights="random (seed 0)"))[1] == {
        "not trained: ViT"
    }
    assert said(a=with_itself())[0] == "Not trained: untrained ViT."
    for name, untrained in (
        ("vit_untrained", True),
        ("random init", True),
        ("RandomForest", False),
        ("vit_random_crop", False),
        ("initial", False),
    ):
        assert bool(said(a=compared(model_x=name))[0]) == untrained, name
    page = written({"a": both}, tmp_path)
    assert page.index("Not trained") < page.index("Findings</h2>")
    assert "no untrained control" not in page


def test_skipped_results_are_listed_with_the_reason(tmp_path):
    page = written(
        {"a": compared()}, tmp_path, skipped={"probe & co": "the data have\n  no labels <b>"}
    )
    assert re.search(
        r"<h3 class=\"skipped\">Skipped</h3>\s*<dl class=\"skipped\">\s*"
        r"<div><dt>probe &amp; co</dt><dd>the data have no labels &lt;b&gt;</dd></div>",
        page,
    )
    assert "Skipped</h3>" not in written({"a": compared()}, tmp_path, skipped={})
    for wrong in (["a"], {"a": None}, {1: "b"}, "a"):
        with pytest.raises(InputError, match="skipped must map names to reasons"):
            written({"a": compared()}, tmp_path, skipped=wrong)


def curves(result):
    (chart,) = [each for each in section_of("it", result).pictures if each["type"] == "chart"]
    return chart


def test_charts_are_drawn_over_layers_that_one_can_tell_apart():
    parts = ("", ".norm1", ".attn", ".attn.qkv", ".attn.proj", ".norm2", ".mlp", ".mlp.fc1")
    names = ["embed", *(f"blocks.{i}{part}" for i in range(24) for part in parts), "norm", "head"]
    result = with_itself(len(names)).assign_coords(layer_x=names, layer_y=names)
    chart = curves(result)
    drawn = ["embed", *(f"blocks.{i}" for i in range(24)), "norm", "head"]
    assert chart["categories"] == drawn
    note = "Drawn: 27 of 195 layers, those whose names have at most 2 parts."
    assert chart["note"] == note
    assert chart["alt"].endswith(note)
    for series, i in zip(chart["series"], (0, 97, 194), strict=True):
        assert series["x"] == list(range(27))
        np.testing.assert_allclose(
            series["y"], result.cka[i].sel(layer_y=drawn), rtol=1e-5, atol=1e-9
        )

    flat = curves(with_itself(250))
    assert len(flat["categories"]) == 60
    assert (flat["categories"][0], flat["categories"][-1]) == ("blocks.0", "blocks.249")
    assert "60 of 250 layers, evenly spaced" in flat["note"]
    for few in (with_itself(60), made.probes()):
        assert "Drawn" not in curves(few)["note"]
    many = curves(made.probes(100, single=1))
    assert len(many["categories"]) == 60
    assert all(max(series["x"]) < 60 for series in many["series"])


def test_the_same_results_give_the_same_bytes(tmp_path):
    first = written({"a": compared(), "b": made.fields()}, tmp_path)
    assert written({"a": compared(), "b": made.fields()}, tmp_path) == first


def test_the_page_asks_for_nothing_and_lets_only_its_own_script_run(tmp_path):
    page = written({"a": compared(), "b": made.localized()}, tmp_path)
    script, style = (
        re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1) for tag in ("script", "style")
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy.startswith("default-src 'none';")
    for text in (script, style):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    linked = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith("#") or link == "data:," for link in linked)
    addresses = set(re.findall(r"https?://[^\s\"']*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place


def test_no_name_ends_the_data_or_is_markup(tmp_path):
    result = compared(2, 2, names=(HOSTILE + "{}", "{}" + HOSTILE))
    result.attrs.update({"model_x": HOSTILE, HOSTILE: HOSTILE})
    page = written({HOSTILE: result}, tmp_path, title=HOSTILE, command=HOSTILE)
    assert "<img" not in page
    assert page.count("</script") == 2
    data = re.search(r'id="pictures">(.*?)</script>', page, re.DOTALL).group(1)
    assert json.loads(data)[0]["rows"] == [f"{HOSTILE}0", f"{HOSTILE}1"]


def test_a_map_of_150_layers_is_small(tmp_path):
    assert len(written({"big": compared(150, 150)}, tmp_path)) < 1_000_000


def test_colours_are_those_of_the_pictures():
    script = (files("repsim.report") / "_page.js").read_text(encoding="utf-8")
    low = with_itself()
    low.cka[0, 1] = -0.9
    for name in ("magma", "viridis"):
        text = re.search(rf"{name}:\s*((?:\"[0-9a-f]+\"[\s+]*)+)", script).group(1)
        stops = re.findall("......", "".join(re.findall('"([0-9a-f]+)"', text)))
        image = repsim.plot.heatmap(with_itself(), cmap=name).images[0]
        cmap = image.cmap
        at = np.linspace(0, 1, 257)
        ours = np.array(
            [
                np.interp(at, np.linspace(0, 1, len(stops)), channel)
                for channel in np.array([to_rgb(f"#{stop}") for stop in stops]).T
            ]
        ).T
        assert np.abs(ours - cmap(at)[:, :3]).max() < 3 / 255
        under, over = re.search(rf'{name}: \["(#\w+)", "(#\w+)"\]', script).groups()
        assert under == to_hex(cmap.get_under())
        assert over == to_hex(cmap.get_over())
        fade = float(re.search(r"const FADE = ([\d.]+);", script).group(1))
        assert repsim.plot.heatmap(low, cmap=name).images[0].get_clim() == (-fade, 1.0)


def test_maps_of_many_tokens_are_thinned():
    result = made.localized(layers=4, grid=(28, 28))  # 4 × 785 × 784 values
    (tiles,) = (each for each in section_of("it", result).pictures if each["type"] == "tiles")
    assert "every third token" in tiles["note"]
    assert sum(tile["rows"] * tile["columns"] for tile in tiles["tiles"]) < 600_000
    height, width = tiles["cell"]
    token, patch = (3, 6), (4, 9)  # the second and third of those that are kept
    expected = result.cka[1, 1 + token[0] * 28 + token[1], patch[0] * 28 + patch[1]]
    value = values_of(tiles, 1)[1 * height + patch[0], 2 * width + patch[1]]
    assert value == pytest.approx(float(expected), abs=(tiles["high"] - tiles["low"]) / 254)


def test_fields_are_averaged_not_sampled():
    result = made.fields(layers=1, rows=100, columns=130)
    result["field"][0] = np.random.default_rng(0).uniform(0.01, 1, (100, 130))
    tiles = section_of("it", result).pictures[0]
    values = values_of(tiles, 0)
    assert values.shape == (34, 44)
    for (i, j), part in {
        (3, 5): result.field[0, 9:12, 15:18],
        (-1, 0): result.field[0, 99:, 0:3],
        (20, -1): result.field[0, 60:63, 129:],
    }.items():
        np.testing.assert_allclose(values[i, j], part.mean(), rtol=0.02)
    assert "Averaged from 100 × 130 to 34 × 44 cells" in tiles["note"]


def test_numbers_as_text():
    values = (0.1234, -0.5, 12345.6, np.nan, -np.inf, 0.0, -0.00341, 3.4e-5, -1e-17)
    assert [number(v) for v in values] == [
        "0.123",
        "−0.500",
        "12,346",
        "undefined",
        "−∞",
        "0.000",
        "−0.0034",
        "3.4 × 10⁻⁵",
        "0.000",
    ]
    assert number(0.0341, 1) == "0.034"


@pytest.mark.parametrize(
    ("results", "match"),
    [
        ({}, "results must map names to results"),
        ([compared()], "results must map names to results"),
        ({"a": 3}, "must be an xarray.Dataset or DataArray"),
    ],
)
def test_an_argument_that_is_not_a_result_is_refused(results, match, tmp_path):
    with pytest.raises(InputError, match=match):
        write_report(results, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_jinja2_is_reported_with_the_command_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        ModuleNotFoundError, match="(?s)write_report needs jinja2.*install .jinja2>="
    ):
        write_report({"a": compared()}, tmp_path / "report.html")


def test_a_kind_without_pictures_is_shown_as_its_table(monkeypatch):
    with_pictures = section_of("it", made.scales())
    without = dataclasses.replace(KINDS["data_scale"])  # equal, but no other has pictures
    monkeypatch.setitem(KINDS, "data_scale", without)
    section = section_of("it", made.scales())
    assert section.kind == with_pictures.kind
    assert section.findings == with_pictures.findings
    columns, rows = section.table
    assert columns[:2] == ["layer", "3 % of the data"]
    assert len(rows) == made.scales().sizes["layer"]
    assert rows[0][1] == "1.000"
