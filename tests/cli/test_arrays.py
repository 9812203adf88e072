"""``repsim measure``: files of arrays."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import repsim


def test_a_number_is_the_first_line(repsim_command, arrays):
    x, y = arrays
    ran = repsim_command("measure", "x.npy", "y.npy")
    assert ran.code == 0
    first, second = ran.out.splitlines()
    assert float(first) == pytest.approx(float(repsim.cka(x, y, estimator="unbiased")), abs=1e-6)
    assert "unbiased" in second
    assert "n=40" in second
    assert ran.err == ""


def test_a_path_below_the_home_folder(repsim_command, arrays, tmp_path, monkeypatch):
    """A shell leaves the ~ of a path in quotes, and of --out=~/run, as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert repsim_command("measure", "~/x.npy", "~/y.npy").code == 0
    (tmp_path / "results").mkdir()
    repsim.report.save_result("~/results", "map", repsim.pairwise({"x": arrays[0], "y": arrays[1]}))
    repsim.report.write_report(repsim.report.load_results("~/results"), "~/page.html")
    assert (
        repsim_command("report", "~/results").out == f"the page is {tmp_path}/results/report.html\n"
    )
    assert {"page.html", "results"} < {each.name for each in tmp_path.iterdir()}


def test_small_values_have_digits(repsim_command, arrays, tmp_path):
    for name, each in zip("xy", arrays, strict=True):
        np.save(tmp_path / f"{name}.npy", 1e-4 * each)
    np.savez(tmp_path / "both.npz", x=1e-4 * arrays[0], y=1e-4 * arrays[1])
    x, y = (1e-4 * each for each in arrays)
    expected = float(repsim.hsic(x, y, estimator="unbiased"))
    assert abs(expected) < 1e-6
    first = repsim_command("measure", "x.npy", "y.npy", "--measure", "hsic").out.splitlines()[0]
    assert float(first) == pytest.approx(expected, rel=1e-3)
    table = repsim_command("measure", "both.npz", "--measure", "hsic", "--no-progress").out
    assert f"{expected:.2g}" in table


def test_options_are_those_of_the_measure(repsim_command, arrays):
    x, y = arrays
    wide = repsim.kernels.RBF(fraction=0.5)
    for options, expected in {
        "": repsim.cka(x, y, estimator="unbiased"),
        "--estimator biased": repsim.cka(x, y),
        "--kernel rbf(fraction=0.5)": repsim.cka(x, y, kernel=wide, estimator="unbiased"),
        "--measure procrustes": repsim.procrustes(x, y),
        "--measure mutual_knn --option k=3 --option metric=euclidean": repsim.mutual_knn(
            x, y, k=3, metric="euclidean"
        ),
        "--measure hsic": repsim.hsic(x, y, estimator="unbiased"),
    }.items():
        words = options.split()
        ran = repsim_command("measure", "x.npy", "y.npy", *words, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["value"] == pytest.approx(float(expected), rel=1e-12), options
        assert ran.json["n_samples"] == 40
        assert ran.json["measure"] == (words[1] if "--measure" in words else "cka")


def test_inference(repsim_command, arrays):
    x, y = arrays
    ran = repsim_command(
        "measure", "x.npy", "y.npy", "--test", "--permutations", 199, "--seed", 3, "--json"
    )
    expected = repsim.permutation_test(x, y, permutations=199, seed=3)
    assert ran.json["permutation_test"]["p_value"] == expected.p_value
    assert ran.json["permutation_test"]["z"] == pytest.approx(expected.z)
    interval = repsim.jackknife(x, y)
    assert ran.json["jackknife"]["low"] == pytest.approx(interval.low)
    assert ran.json["jackknife"]["high"] == pytest.approx(interval.high)

    shown = repsim_command("measure", "x.npy", "y.npy", "--test", "--permutations", 199).out
    assert "p = 0.005 (199 permutations)" in shown
    assert "95% interval [" in shown


def test_inference_of_another_measure_has_no_interval(repsim_command, arrays):
    for chosen in (["--measure", "procrustes"], ["--option", "features=sampled"]):
        options = [*chosen, "--test", "--permutations", "19"]
        ran = repsim_command("measure", "x.npy", "y.npy", *options, "--json")
        assert ran.json["permutation_test"]["p_value"] in (0.05, None)
        assert "jackknife" not in ran.json
        assert "no interval" in repsim_command("measure", "x.npy", "y.npy", *options).out


def test_a_matrix_is_labelled(repsim_command, layers):
    ran = repsim_command("measure", "layers.npz", "y.npy", "--json")
    assert ran.json["coords"]["layer_x"]["data"] == ["early", "late"]
    assert ran.json["coords"]["layer_y"]["data"] == ["y"]
    (late,) = ran.json["variables"]["cka"]["data"][1]
    y = np.load("y.npy")
    assert late == pytest.approx(float(repsim.cka(np.tanh(y), y, estimator="unbiased")))


def test_a_file_of_layers_with_itself(repsim_command, layers):
    shown = repsim_command("measure", "layers.npz", "--no-progress")
    assert shown.code == 0
    for word in ("early", "late", "1.0000"):
        assert word in shown.out
    ran = repsim_command("measure", "layers.npz", "--measure", "nbs", "--json")
    expected = repsim.pairwise(layers, measure="nbs")
    np.testing.assert_allclose(ran.json["variables"]["nbs"]["data"], expected.values)


def test_several_files_are_a_matrix(repsim_command, tmp_path, arrays, layers):
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "late.npy", layers["late"])
    np.save(tmp_path / "other" / "x.npy", layers["late"])
    for names in (["x", "y", "late"], ["x", "y", "other/x"]):
        files = [f"{name}.npy" for name in names]
        ran = repsim_command("measure", *files, "--json")
        assert ran.json["files"] == files
        assert ran.json["coords"]["layer_y"]["data"] == names
        expected = repsim.cka_matrix({name: np.load(f"{name}.npy") for name in names})
        np.testing.assert_allclose(ran.json["variables"]["cka"]["data"], expected.values)
    assert "other/x" in repsim_command("measure", *files, "--measure", "nbs").out

    for third, repair in {
        "layers.npz": "Write all arrays to one .npz",
        "x.npy": "Name each file once",
        "other/../x.npy": "Name each file once",
    }.items():
        refused = repsim_command("measure", "x.npy", "y.npy", third)
        assert refused.code == 2
        assert repair in refused.err


def test_files_of_one_name_and_two_kinds_are_both_in_the_matrix(repsim_command, arrays, layers):
    np.savez("x.npz", late=layers["late"])
    files = ["x.npy", "x.npz", "y.npy"]
    ran = repsim_command("measure", *files, "--json")
    assert ran.json["coords"]["layer_x"]["data"] == files
    x, y = np.load("x.npy"), np.load("y.npy")
    expected = repsim.cka_matrix({"x.npy": x, "x.npz": layers["late"], "y.npy": y})
    np.testing.assert_allclose(ran.json["variables"]["cka"]["data"], expected.values)


def test_a_matrix_is_tested_under_one_error_rate(repsim_command, layers):
    ran = repsim_command("measure", "layers.npz", "--test", "--permutations", 99, "--json")
    expected = repsim.max_t(layers, permutations=99)
    found = ran.json["variables"]["p_adjusted"]["data"]
    np.testing.assert_array_equal(found, expected.p_adjusted.values)
    options = ("--measure", "procrustes", "--test", "--permutations", 99)
    ran = repsim_command("measure", "layers.npz", *options, "--json")
    expected = repsim.max_t(layers, measure="procrustes", permutations=99)
    assert set(ran.json["variables"]) == set(expected)
    found = ran.json["variables"]["p_adjusted"]["data"]
    np.testing.assert_array_equal(found, expected.p_adjusted.values)
    shown = repsim_command("measure", "layers.npz", *options).out
    assert "p-values, adjusted for all pairs (max-T)" in shown


def test_an_undefined_value_is_null(repsim_command, tmp_path, arrays):
    np.save(tmp_path / "constant.npy", np.ones((40, 3)))
    ran = repsim_command("measure", "x.npy", "constant.npy", "--json")
    assert ran.code == 0
    assert ran.json["value"] is None
    assert "warning: cka" in ran.err


def test_wrong_arguments_are_reported(repsim_command, tmp_path, arrays):
    x, _ = arrays
    np.save(tmp_path / "short.npy", x[:-1])
    np.save(tmp_path / "few.npy", x[:2])
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:400])
    for name in ("garbage.npy", "garbage.npz"):
        (tmp_path / name).write_text("neither")
    for code, said, argv in (
        (2, "no such file", ["x.npy", "missing.npy"]),
        (2, "needs another one to be compared with", ["x.npy"]),
        (1, "n=39", ["x.npy", "short.npy"]),
        (1, "garbage.npy", ["x.npy", "garbage.npy"]),
        (1, "garbage.npz", ["x.npy", "garbage.npz"]),
        (1, "x.astype('float32')", ["x.npy", "pickled.npy"]),
        (1, "x.astype('float32')", ["x.npy", "pickled.npz"]),
        (1, "ends too early", ["x.npy", "cut.npy"]),
        (1, "n=2", ["x.npy", "few.npy"]),
        (2, "--layers: is an option of repsim compare", ["x.npy", "y.npy", "--layers", "a"]),
        (2, "--out: is an option of repsim compare", ["x.npy", "y.npy", "--out", "run"]),
        (2, "Did you mean procrustes", ["x.npy", "y.npy", "--measure", "procrusts"]),
        (2, "Did you mean rbf", ["x.npy", "y.npy", "--kernel", "rbff"]),
        (2, "Did you mean fraction", ["x.npy", "y.npy", "--kernel", "rbf(frction=2)"]),
        (2, "fraction must be a positive", ["x.npy", "y.npy", "--kernel", "rbf(fraction=-1)"]),
        (2, "cannot be read", ["x.npy", "y.npy", "--kernel", "__import__('os')"]),
        (2, "unknown options", ["x.npy", "y.npy", "--measure", "rsa", "--option", "k=3"]),
        (2, "k must be a pos", ["x.npy", "y.npy", "--measure", "mutual_knn", "--option", "k=five"]),
        (2, "unknown comp", ["x.npy", "y.npy", "--measure", "rsa", "--option", "comparison=r"]),
        (2, "NAME=VALUE", ["x.npy", "y.npy", "--measure", "rsa", "--option", "k"]),
        (2, "k is given twice", ["x.npy", "y.npy", "--option", "k=5", "--option", "k=6"]),
        (
            2,
            "estimator is given twice",
            [
                "x.npy",
                "y.npy",
                "--estimator",
                "biased",
                "--option",
                "estimator=unbiased",
            ],
        ),
        (2, "'kernel'", ["x.npy", "y.npy", "--measure", "rsa", "--kernel", "rbf"]),
        (2, "Add --test", ["x.npy", "y.npy", "--permutations", "9"]),
        (2, "--test", ["x.npy", "y.npy", "--tset"]),
        (2, "--seed", ["x.npy", "y.npy", "--seed", "one"]),
        (2, "Missing argument", []),
    ):
        ran = repsim_command("measure", *argv)
        assert ran.code == code, argv
        assert said in " ".join(ran.err.split()), argv
        assert ran.out == ""
        assert "Traceback" not in ran.err


def test_an_unknown_estimator_is_a_wrong_argument(repsim_command, arrays):
    ran = repsim_command("measure", "x.npy", "y.npy", "--estimator", "nope")
    assert ran.code == 2
    assert "'unbiased', 'biased'" in ran.err


def test_debug_shows_where(repsim_command, arrays):
    ran = repsim_command("measure", "x.npy", "missing.npy", "--debug")
    assert ran.code == 2
    assert "Traceback" in ran.err
    assert "error: there is no such file." in ran.err


def test_a_file_of_another_kind_is_named_with_a_way_to_write_it(repsim_command, arrays, tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:  # as torch.save writes it
        file.writestr("x/data.pkl", b"")
    for name, said in {
        "x.csv": ("another kind of file", "numpy.loadtxt"),
        "x.zarr": ("a folder", "zarr.open_array"),
        "x.mat": ("another kind of file", "scipy.io.loadmat"),
        "x.pt": ("'x/data.pkl'", "torch.load"),
    }.items():
        ran = repsim_command("measure", name, "y.npy")
        assert ran.code == 1
        assert all(words in ran.err for words in (name, *said)), ran.err
        assert "unsafely" not in ran.err


def test_a_mat_of_version_73_is_written_with_h5py(repsim_command, arrays, tmp_path):
    (tmp_path / "x.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    ran = repsim_command("measure", "x.mat", "y.npy")
    assert ran.code == 1
    assert "h5py.File('x.mat')['x'][:].T" in ran.err


def test_the_layers_of_a_store(repsim_command, tmp_path):
    import torch
    from torch import nn

    model, batch = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(9, 3)
    for name, ids in {"a": range(9), "b": range(1, 10)}.items():
        repsim.extract(
            model,
            [batch],
            out=tmp_path / f"{name}.zarr",
            sample_ids=lambda _, ids=ids: list(ids),
            progress=False,
        )
    ran = repsim_command("measure", "a.zarr", "--no-progress", "--json")
    expected = repsim.cka_matrix(repsim.open_activations(tmp_path / "a.zarr"))
    assert ran.json["coords"]["layer_x"]["data"] == ["0", "1"]
    np.testing.assert_allclose(ran.json["variables"]["cka"]["data"], expected, rtol=1e-12)
    ran = repsim_command("measure", "a.zarr", "b.zarr", "--no-progress")
    assert ran.code == 1
    assert "labels of 'sample' differ" in ran.err
    ran = repsim_command("compare", "a.zarr", "b.zarr")
    assert "Run: repsim measure a.zarr b.zarr" in ran.err


def test_a_folder_is_no_file(repsim_command, arrays, tmp_path):
    (tmp_path / "layers").mkdir()
    for part in ("layers", "."):
        ran = repsim_command("measure", part, "y.npy")
        assert ran.code == 2
        assert "Name its files, for example" in ran.err
