"""``repsim compare MODEL MODEL``: the map, its provenance, and errors."""

from __future__ import annotations

import numpy as np

import repsim

ONE = "cli.tiny_models:mlp"
TWO = ("compare", ONE, ONE, "--data", "inputs.npz")


def test_the_map_is_that_of_the_library(repsim_command, inputs, tiny):
    import torch

    def seeded(seed):
        torch.manual_seed(seed)
        return tiny.mlp()

    order = np.random.default_rng(0).permutation(40)
    data = torch.from_numpy(np.load(inputs)["inputs"][order]).split(20)
    for options, arguments in {
        (): {},
        ("--kernel", "rbf(fraction=0.5)"): {"kernel": repsim.kernels.RBF(fraction=0.5)},
        ("--layers", "0", "--layers-y", "1", "--layers-y", "2"): {
            "layers": ["0"],
            "layers_y": ["1", "2"],
        },
        ("--transform", "mean", "--z-scores"): {"transform": "mean", "z_scores": True},
        ("--transform-y", "mean"): {"transform_y": "mean"},
    }.items():
        ran = repsim_command(*TWO, "--batch-size", 20, "--json", *options)
        assert ran.code == 0, ran.err
        expected = repsim.compare(seeded(0), seeded(1), data=data, progress=False, **arguments)
        found = ran.json
        assert found["coords"]["layer_y"]["data"] == expected.layer_y.values.tolist()
        assert set(found["variables"]) == set(expected)
        for side in ("transform", "transform_y"):
            assert found["attrs"].get(side) == expected.attrs.get(side)
        for name, values in expected.items():
            np.testing.assert_array_equal(found["variables"][name]["data"], values, str(options))
        assert found["files"] is None
        assert "compare:" in ran.err  # the progress bar


def test_the_provenance_names_the_data_and_the_models(repsim_command, inputs):
    attrs = repsim_command(*TWO, "--json", "--seed", 5, "--limit", 30).json["attrs"]
    expected = {
        "command": f"repsim compare {ONE} {ONE} --data inputs.npz --json --seed 5 --limit 30",
        "spec_x": ONE,
        "spec_y": ONE,
        "weights_x": "as mlp makes them",
        "preparation_x": "as they are",
        "data": "inputs.npz",
        "data_seed": 5,
        "n_samples": 30,
        "n_bad_images": 0,
        "model_x": f"{ONE} (seed 5)",
        "model_y": f"{ONE} (seed 6)",
        "repsim_version": repsim.__version__,
    }
    assert {name: attrs[name] for name in expected} == expected


def test_networks_of_three_libraries(repsim_command, folder):
    for models, options, shape, prepared in (
        (
            ("timm:vit_tiny_patch16_224", "torchvision:resnet18"),
            ("--size", 64, "--layers", "blocks.?", "--layers-y", "layer?.1"),
            (10, 4),
            ("(64, 64)", "[64]"),
        ),
        (
            ("cli.tiny_models:hf_vit", "timm:test_resnet"),
            ("--size-y", 64, "--layers", "*layers.?", "--layers-y", "layer?"),
            (2, 4),
            ("32x32", "(64, 64)"),
        ),
    ):
        ran = repsim_command(
            "compare", *models, "--data", "photos", "--batch-size", 12, "--json", *options
        )
        assert ran.code == 0, ran.err
        values = np.array(ran.json["variables"]["cka"]["data"], dtype=float)
        assert values.shape == shape
        assert np.nanmax(np.abs(values)) <= 1
        attrs = ran.json["attrs"]
        assert attrs["n_samples"] == 24
        assert prepared[0] in attrs["preparation_x"]
        assert prepared[1] in attrs["preparation_y"]
        assert f"{models[1]} has random weights (seed 1)" in ran.err


def test_a_map_of_a_model_with_itself_is_shown_for_a_person(repsim_command, inputs, folder):
    ran = repsim_command("compare", ONE, "--data", "inputs.npz")
    assert ran.code == 0
    assert f"CKA of {ONE} with {ONE}" in ran.out
    assert ran.out.count("1.0000") == 3
    assert "On the command line: --batch-size." in ran.err, "one batch has no standard error"
    words = ("--measure", "mutual_knn", "--option", "k=3", "--permutations", 9)
    for options, title in ((("--z-scores",), "z-scores"), (words, "p-values, adjusted for all")):
        out = repsim_command("compare", ONE, "--data", "inputs.npz", *options).out
        assert out.count("1.0000") >= 3
        assert title in out
    words = ("cli.tiny_models:vit", "--data", "photos", "--batch-size", 6, "--no-progress")
    ran = repsim_command("compare", *words)
    header = next(line for line in ran.out.splitlines() if "next layer" in line)
    assert "standard error" in header


def test_models_cannot_print_into_the_json(repsim_command, inputs):
    argv = ("compare", "cli.tiny_models:chatty", "--data", "inputs.npz")
    ran = repsim_command(*argv, "--json")
    assert ran.json["command"] == "compare"
    assert "a line on standard output" in ran.err
    assert "a line on standard output" in repsim_command(*argv).out


def test_wrong_arguments_are_reported(repsim_command, inputs, arrays, folder):
    for code, said, argv in (
        (2, "--data FOLDER", TWO[:3]),
        (2, "no such folder or file", (*TWO[:4], "missing")),
        (2, "Did you mean timm:resnet", ("compare", "timm:resnet81", "--data", "inputs.npz")),
        (2, "Write timm:resnet18, torchvision", ("compare", "resnet18", "--data", "inputs.npz")),
        (2, "--layers: no layer matches 'blok*'", (*TWO, "--layers", "blok*")),
        (2, "--layers-y: no layer is called '9'", (*TWO, "--layers-y", "9")),
        (2, "--weights: there is no such file", (*TWO, "--weights", "missing.pt")),
        (2, "--weights: there is no such file", (*TWO, "--weights-y", "missing.pt")),
        (2, "--test: is an option of repsim measure", (*TWO, "--test")),
        (2, "--batch-size", (*TWO, "--batch-size", 0)),
        (2, "--on-bad-image", (*TWO, "--on-bad-image", "maybe")),
        (2, "--seed-y: is for two models only", (*TWO[:2], *TWO[3:], "--seed-y", 3)),
        (2, "--normalise is for the pixels of images", (*TWO, "--normalise", "imagenet")),
        (1, "On the command line: --batch-size.", (*TWO, "--batch-size", 3)),
        (1, "--transform, --transform-y.", (*TWO, "--transform", "cls")),
        (2, "--out: the folder holds the data", (*TWO[:3], "--data", "photos", "--out", "photos")),
        (2, "numpy.savez('x.npz', inputs=x)", (*TWO[:4], "x.npy")),
        (1, "must be finite", ("compare", "cli.tiny_models:broken", "--data", "inputs.npz")),
    ):
        ran = repsim_command(*argv)
        assert ran.code == code, (argv, ran.err)
        assert said in " ".join(ran.err.split()), argv
        assert ran.out == ""
        assert "Traceback" not in ran.err


def test_near_layers_are_named(repsim_command, folder):
    argv = ("compare", "cli.tiny_models:vit", "--data", "photos", "--layers", "block.0")
    ran = repsim_command(*argv)
    assert ran.code == 2
    assert "Did you mean 'blocks.0'" in ran.err
    assert "--layers-y" not in ran.err
    ran = repsim_command("compare", argv[1], "cli.tiny_models:cnn", *argv[2:5], "blocks.0")
    assert ran.code == 2
    assert "layers of the second model: choose them with --layers-y" in ran.err


def test_the_table_shows_z_or_the_p_value(repsim_command, inputs):
    two = (*TWO, "--batch-size", 40, "--layers", "0", "--layers", "1")
    for options, shown in (
        (("--z-scores",), ["z"]),
        (("--measure", "mutual_knn", "--option", "k=3", "--permutations", 9), ["p adjusted"]),
    ):
        out = repsim_command(*two, *options).out
        header = next(line for line in out.splitlines() if "layer of x" in line)
        columns = [name.strip() for name in header.strip("┃").split("┃")]
        assert [name for name in columns if name in ("z", "p adjusted")] == shown
        assert " 40 samples in 1 batch: " in out


def test_any_measure_of_the_library(repsim_command, inputs, tiny):
    import torch

    def seeded(seed):
        torch.manual_seed(seed)
        return tiny.mlp()

    order = np.random.default_rng(0).permutation(40)
    data = torch.from_numpy(np.load(inputs)["inputs"][order]).split(20)
    for options, arguments in {
        ("--measure", "mutual_knn", "--option", "k=3", "--permutations", 9): {
            "measure": "mutual_knn",
            "k": 3,
            "permutations": 9,
        },
        ("--measure", "hsic", "--kernel", "rbf(sigma=2)"): {
            "measure": "hsic",
            "kernel": repsim.kernels.RBF(sigma=2),
        },
        ("--measure", "procrustes", "--out", "run"): {"measure": "procrustes"},
    }.items():
        ran = repsim_command(*TWO, "--batch-size", 20, "--json", *options)
        assert ran.code == 0, ran.err
        expected = repsim.compare(seeded(0), seeded(1), data=data, progress=False, **arguments)
        found = ran.json["variables"]
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name]["data"], values, str(options))
        assert found[arguments["measure"]]["attrs"]["kind"] == (
            "dissimilarity" if arguments["measure"] == "procrustes" else "similarity"
        )
    # The features of a finished comparison are not kept.
    left = {path.name for path in (inputs.parent / "run").iterdir()}
    assert left - {".lock"} == {"compare.nc", "report.html", "run.json"}
    shown = repsim_command(*TWO, "--batch-size", 20, "--measure", "procrustes", "--out", "run")
    assert "procrustes (in units of the features, smaller is more alike)" in shown.out


def test_measures_and_options_that_do_not_fit_end_before_models_are_loaded(repsim_command):
    for options, says in {
        ("--measure", "mutual_nn"): "Did you mean mutual_knn",
        ("--measure", "nbs", "--option", "k=3"): "unknown options for measure 'nbs'",
        ("--measure", "nbs", "--passes", 2): "--passes: not with --measure nbs",
        ("--measure", "nbs", "--z-scores"): "--z-scores: not with --measure nbs",
        ("--permutations", 9): "--permutations: not with --measure cka",
        ("--measure", "nbs", "--kernel", "rbf"): "unknown options for measure 'nbs'",
        ("--measure", "mutual_knn", "--option", "k=five"): "k must be a positive integer",
        ("--option", "estimator=biased"): "unbiased and has no estimator",
    }.items():
        ran = repsim_command("compare", ONE, ONE, "--data", "missing.npz", *options)
        assert (ran.code, ran.out) == (2, "")
        assert says in ran.err
