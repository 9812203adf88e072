"""The paper end to end: its images, its arithmetic on closed forms, and a tiny complete run."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import repsim
from packages import Package

images, models, report, steps, train, trained = (
    Package(f"raghu2021.{name}")
    for name in ("images", "models", "report", "steps", "train", "trained")
)
(
    base, across, attention, data_scale, head_subsets, norms, places, probes, receptive, skips,
    within,
) = (
    Package(f"raghu2021.experiments.{name}")
    for name in (
        "_base", "across", "attention", "data_scale", "head_subsets", "norms", "places", "probes",
        "receptive", "skips", "within",
    )
)  # fmt: skip

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIGURES = {
    "fig01-within", "fig02-across", "fig02-match", "fig03-attention-distance", "fig04-less-data",
    "fig05-head-subsets", "fig06-receptive-field-vit", "fig06-receptive-field-cnn",
    "fig06-receptive-field-vit-gap", "fig06-receptive-field-vit-untrained",
    "fig06-receptive-field-cnn-untrained", "fig07-norm-ratios", "fig07-norm-ratios-tokens",
    "fig08-without-skips", "fig09-localization", "fig10-probes", "fig11-data-scale",
    "fig12-probes-by-data",
}  # fmt: skip
VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module", autouse=True)
def _needed() -> None:
    for package in ("timm", "skimage", "sklearn"):
        pytest.importorskip(package)


# Images


@pytest.fixture(scope="module")
def photographs() -> images.Images:
    return images.photographs()


def test_photographs_ship_with_their_package() -> None:
    for name, (package, file) in images.PHOTOGRAPHS.items():
        assert (resources.files(package) / file).is_file(), name
        photograph = images.read(name)
        assert photograph.ndim == 2, name
        assert photograph.size == pytest.approx(images.AREA, rel=0.01), name
        assert 0 <= photograph.min() < photograph.max() <= 1, name


@pytest.mark.parametrize("shape", [(512, 512), (418, 628), (455, 576), (478, 548), (421, 623)])
def test_train_and_test_share_no_pixel(shape: tuple[int, int]) -> None:
    from scipy.ndimage import binary_dilation

    # A photograph in which every pixel is its own number tells where a piece was cut.
    numbered = np.arange(shape[0] * shape[1], dtype=np.float64).reshape(shape)
    tiles, crops = images.cut(numbered, images.TRAIN_BLOCKS)
    assert tiles.shape == (4 * images.TRAIN_BLOCKS, images.TILE, images.TILE)
    assert crops.shape == (9 * images.TEST_BLOCKS, images.SIDE, images.SIDE)
    trained, tested = np.zeros(shape, bool), np.zeros(shape, bool)
    trained.ravel()[tiles.astype(int).ravel()] = True
    tested.ravel()[crops.astype(int).ravel()] = True
    apart = binary_dilation(trained, np.ones((3, 3)), iterations=2 * images.MARGIN)
    assert not (apart & tested).any()
    # No piece twice: the pieces lie at different places.
    assert len({float(tile[0, 0]) for tile in tiles}) == len(tiles)
    assert len({float(crop[0, 0]) for crop in crops}) == len(crops)


@pytest.mark.parametrize("kind", ["photographs", "digits"])
def test_every_class_is_there_and_the_same_every_time(kind: str) -> None:
    one, other = (getattr(images, kind)() for _ in range(2))
    for name in ("tiles", "labels", "test", "test_labels"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for labels in (one.labels, one.test_labels):
        counts = torch.bincount(labels, minlength=len(one.classes))
        assert len(counts) == len(one.classes)
        assert counts.min() > 0
        assert counts.max() <= 1.1 * counts.min()
    assert abs(float(one.tiles.mean())) < 1e-3
    assert one.test.shape[1:] == (1, one.side, one.side)
    assert one.side % one.patch == 0


def test_parts_of_the_data_are_balanced_and_nested(photographs: images.Images) -> None:
    for part in (0.03, 0.1, 0.3, 1.0):
        n = photographs.fraction(part)
        assert n == pytest.approx(part * len(photographs.tiles), abs=1), part
        counts = torch.bincount(photographs.labels[:n], minlength=len(photographs.classes))
        assert counts.max() - counts.min() <= 1, part
        assert counts.min() >= 1, part


def test_crops_are_cut_from_their_tiles(photographs: images.Images) -> None:
    chosen = torch.arange(40)
    crops = photographs.crops(chosen, torch.Generator().manual_seed(3))
    again = photographs.crops(chosen, torch.Generator().manual_seed(3))
    other = photographs.crops(chosen, torch.Generator().manual_seed(4))
    assert torch.equal(crops, again)
    assert not torch.equal(crops, other)
    turned = 0
    for crop, tile in zip(crops[:, 0], photographs.tiles[chosen, 0], strict=True):
        windows = tile.unfold(0, 32, 1).unfold(1, 32, 1).reshape(-1, 32, 32)
        as_is = (windows == crop).all((1, 2)).any()
        turned += not as_is
        assert as_is or (windows == crop.flip(1)).all((1, 2)).any()
    assert 8 < turned < 32


def test_digits_are_never_mirrored() -> None:
    digits = images.digits()
    crops = digits.crops(torch.arange(60), torch.Generator().manual_seed(0))
    for crop, tile in zip(crops[:, 0], digits.tiles[:60, 0], strict=True):
        windows = tile.unfold(0, 8, 1).unfold(1, 8, 1).reshape(-1, 8, 8)
        assert (windows == crop).all((1, 2)).any()


def test_grey_alone_does_not_give_the_photographs_away(photographs: images.Images) -> None:
    assert 1 / 16 < photographs.grey_alone < 0.5


@pytest.mark.slow
def test_training_learns_and_repeats() -> None:
    digits = images.digits()
    recipe = train.Recipe("cnn", steps=60, learning_rate=2e-3)

    def trained() -> torch.nn.Module:
        model = models.build("cnn", digits, models.QUICK, recipe.seed)
        train.train(model, digits, recipe, progress=False)
        return model

    model = trained()
    before = train.accuracy(models.build("cnn", digits, models.QUICK, 0), digits)
    assert train.accuracy(model, digits) > before + 0.3
    for one, other in zip(model.parameters(), trained().parameters(), strict=True):
        assert torch.equal(one, other)


def test_positions_are_fixed_and_the_nearest_are_the_most_alike() -> None:
    positions = models.sine_cosine(8, 6, 64)
    assert positions.shape == (48, 64)
    assert float(positions.square().mean()) == pytest.approx(1)
    alike = (positions @ positions.T).reshape(8, 6, 8, 6)[3, 2]
    assert alike.argmax() == 3 * 6 + 2
    beside = alike[[2, 4, 3, 3], [2, 2, 1, 3]]
    alike[3, 2] = alike[[2, 4, 3, 3], [2, 2, 1, 3]] = -1
    assert alike.max() < beside.min()
    vit = models.build("vit", images.digits(), models.QUICK, 0)
    assert not vit.pos_embed.requires_grad
    assert not vit.pos_embed[:, 0].any()


def test_removing_noise_trains_the_lower_half_alone() -> None:
    digits = images.digits()
    recipe = train.Recipe("vit", denoising_steps=30)

    def trained(steps: int) -> tuple[dict[str, torch.Tensor], float]:
        model = models.build("vit", digits, {**models.QUICK, "depth": 4}, recipe.seed)
        some = dataclasses.replace(recipe, denoising_steps=steps)
        loss = train.denoise(model, digits, some, progress=False)
        return model.state_dict(), loss

    (first, early), (last, late) = trained(1), trained(30)
    again, _ = trained(30)
    assert late < 0.8 * early
    for name, value in last.items():
        assert torch.equal(value, again[name]), name
        if name.startswith(("blocks.2", "blocks.3", "norm", "head", "pos_embed")):
            assert torch.equal(value, first[name]), name
    assert not torch.equal(first["blocks.1.attn.qkv.weight"], last["blocks.1.attn.qkv.weight"])


def test_a_part_of_the_data_is_all_that_training_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, seen = images.digits(), []
    monkeypatch.setattr(
        images.Images,
        "crops",
        lambda self, chosen, generator, crops=images.Images.crops: (
            seen.append(chosen), crops(self, chosen, generator))[1],
    )  # fmt: skip
    recipe = train.Recipe("cnn", part=0.1, steps=4)
    train.train(models.build("cnn", digits, models.QUICK, 0), digits, recipe, progress=False)
    drawn = torch.cat(seen)
    # 4 batches of 64 are more than two epochs of 108: each image twice or three times.
    counts = torch.bincount(drawn, minlength=108)
    assert len(counts) == 108
    assert set(counts.tolist()) == {2, 3}


# Steps


def test_steps_are_done_once(tmp_path: Path) -> None:
    made = []

    def step(name: str, key: str) -> steps.Step:
        file = tmp_path / f"{name}.nc"
        result = xr.Dataset({"x": ("i", [1.0])}, attrs={"flag": True, "names": ["a", "b"]})
        return steps.Step(
            name, file, key, lambda: (made.append(name), steps.save_result(file, key, result))
        )

    steps.run_steps([step("a", "1"), step("b", "1")], progress=False)
    steps.run_steps([step("a", "1"), step("b", "2")], progress=False)
    assert made == ["a", "b", "b"]
    read = xr.load_dataset(tmp_path / "a.nc", engine="scipy")
    assert (read.attrs["flag"], json.loads(read.attrs["names"])) == (1, ["a", "b"])


def test_a_step_that_breaks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: xr.Dataset, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(xr.Dataset, "to_netcdf", breaks)
    with pytest.raises(KeyboardInterrupt):
        steps.save_result(tmp_path / "a.nc", "1", xr.Dataset())
    assert list(tmp_path.iterdir()) == []


SLEEPER = """
import os, sys, time
from functools import partial
from pathlib import Path
from raghu2021.steps import Step, run_steps

def sleep(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(300)

if __name__ == "__main__":
    import sleeper  # by this name a worker finds it
    folder = Path(sys.argv[1])
    run_steps(
        [Step(n, folder / f"{n}.nc", n, partial(sleeper.sleep, f"{folder}/{n}")) for n in "ab"],
        progress=False, workers=2,
    )
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="asks for processes by signal 0")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    path = os.pathsep.join([str(BENCHMARKS), str(tmp_path)])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "sleeper.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
    )

    def until(met: Callable[[], bool]) -> bool:
        for _ in range(600):
            if met():
                return True
            time.sleep(0.1)
        return False

    def runs(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    files = [tmp_path / name for name in "ab"]
    try:
        assert until(lambda: all(file.exists() and file.read_text() for file in files))
    finally:
        parent.kill()
        parent.wait()
    workers = [int(file.read_text()) for file in files]
    assert until(lambda: not any(map(runs, workers)))


def test_weights_come_back(tmp_path: Path) -> None:
    file = tmp_path / "models" / "a.safetensors"
    weights = {"w": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)}
    steps.save_weights(file, "1", weights, {"accuracy": 0.25, "part": None})
    back, about = steps.load_weights(file)
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    assert about == {"accuracy": 0.25, "part": None}
    assert steps.is_done(file, "1")
    assert not steps.is_done(file, "2")


def test_digests_follow_settings_and_files(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("one")
    first = steps.digest({"b": 1, "a": [file]})
    assert first == steps.digest({"a": [file], "b": 1})
    assert first != steps.digest({"a": [file], "b": 2})
    file.write_text("two")
    assert first != steps.digest({"a": [file], "b": 1})


# Findings: numbers that need no model


def test_verdicts() -> None:
    for met, numbers, expected in (
        ([True, True], [], "holds"),
        ([True, False], [], "in part"),
        ([False, False], [], "does not hold"),
        ([], [], "undefined"),
        ([True], [0.1, float("nan")], "undefined"),
    ):
        assert base.verdict(met, *numbers) == expected, (met, numbers)


def test_numbers_are_written_with_their_errors() -> None:
    assert base.number(-0.12345, 0.01) == "−0.123 ± 0.010"
    assert base.by_seed([0.5, 0.25], digits=2) == "0.50 (other seed: 0.25)"
    assert base.by_seed([0.5, 0.25, 0.75], digits=2) == "0.50 (other seeds: 0.25, 0.75)"
    assert base.by_seed([0.5], [0.01], digits=2) == "0.50 ± 0.01"


def cka_map(values: np.ndarray, names: list[str], error: float = 0.01) -> xr.Dataset:
    return xr.Dataset(
        {
            "cka": (("layer_x", "layer_y"), values),
            "standard_error": (("layer_x", "layer_y"), np.full(values.shape, error)),
        },
        coords={"layer_x": names, "layer_y": names},
    )


def test_within() -> None:
    names = [f"stage{s}.{i}" for s in (1, 2) for i in range(4)]
    same = np.kron(np.eye(2), np.ones((4, 4)))
    result = cka_map(0.2 + 0.8 * same, names)
    assert within.ends(result) == pytest.approx((0.2, 0.01))
    # Of 56 pairs of different layers 24 are 1 and 32 are 0.2.
    p = 24 / 56
    assert within.spread(result) == pytest.approx(0.8 * np.sqrt(p * (1 - p)))
    assert within.stages(result) == pytest.approx((0.8, 0.02))
    assert within.stages(cka_map(np.ones((8, 8)), names)) == pytest.approx((0, 0.02))
    assert within.stages(cka_map(np.ones((2, 2)), ["blocks.0", "blocks.1"])) is None


def test_across() -> None:
    values = np.zeros((4, 6))
    values[1] = [0.9, 0.8, 0.7, 0.6, 0.3, 0.1]
    result = xr.Dataset(
        {
            "cka": (("layer_x", "layer_y"), values),
            "standard_error": (("layer_x", "layer_y"), np.full((4, 6), 0.5) - 0.4 * (values > 0)),
        }
    )
    assert across.highest_third(result) == pytest.approx((0.2, 0.75, 0.1, 0.1))


def test_attention() -> None:
    # One prefix token and four patches: among patches, uniform attention has 5/4 of 8, 8, 8, 16.
    result = xr.Dataset(
        {
            "renormalised": (
                ("layer", "head"),
                [[2.0, 8.0], [4.0, 6.0], [9.0, np.nan], [10.0, 12.0]],
            ),
            "uniform_distance": ("layer", [8.0, 8.0, 8.0, 16.0]),
        },
        coords={
            name: ("layer", [value] * 4)
            for name, value in {"grid_height": 2, "grid_width": 2, "prefix": 1}.items()
        },
    )
    assert sorted(attention.lowest(result)) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert sorted(attention.highest(result)) == pytest.approx([0.5, 0.6, 0.9])
    assert attention.local_share(result) == 0.5


def test_head_subsets() -> None:
    result = xr.Dataset(
        {
            "cka": (("subset", "layer_y"), [[0.2, 0.4], [0.6, 0.8], [0.4, 0.6]]),
            "standard_error": (("subset", "layer_y"), [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]),
        },
        coords={"mean_distance": ("subset", [9.0, 3.0, 5.0])},
    )
    assert head_subsets.ends(result) == pytest.approx((0.7, 0.3, 0.3))
    assert head_subsets.order(result) == pytest.approx(-1)


def test_receptive() -> None:
    even = np.full((8, 8), 1 / 64)
    peaked = np.zeros((8, 8))
    peaked[4:6, 2:4] = 0.25
    elsewhere = np.roll(peaked, 2, axis=0)
    result = xr.Dataset(
        {
            "field": (("layer", "row", "column"), [even, peaked, elsewhere]),
            "sigma": ("layer", [1.0, 4.0, 5.0]),
        },
        coords={
            name: ("layer", [value] * 3)
            for name, value in
            {"grid_height": 4, "grid_width": 4, "unit_row": 2, "unit_column": 1}.items()
        },
    )  # fmt: skip
    assert receptive.own(result) == pytest.approx([1, 16, 0])
    assert receptive.leads(result) == pytest.approx(2 / 3)
    assert receptive.middle(result) == pytest.approx(0.8)
    rows, columns = np.indices((8, 8)) - 3.5
    assert receptive.even(result) == pytest.approx(np.sqrt((rows**2 + columns**2).mean()))
    assert receptive.low(result) == pytest.approx(1 / receptive.even(result))


def test_norms() -> None:
    result = xr.Dataset(
        {"ratio_spatial": ("site", [1.0, 2.0, 4.0, 8.0]), "ratio_prefix": ("site", [2.0] * 4)}
    )
    assert norms.median(result) == 3
    half = np.log(2) / 2
    assert norms.halves(result) == pytest.approx((half, -3 * half))
    assert np.isnan(norms.median(result * np.nan))


def test_skips() -> None:
    names = ["patch_embed", "blocks.0", "blocks.1.attn", "blocks.1", "blocks.2", "head"]
    values = np.full((6, 6), 0.5)
    values[1, 4] = 0.9
    assert skips.across(cka_map(values, names), 1) == pytest.approx((0.9, 0.01))


def test_places() -> None:
    result = xr.Dataset({"hit_rate": ("layer", [0.0, 0.625]), "chance": ("layer", [0.5, 0.25])})
    assert places.last(result) == pytest.approx(0.5)


def test_probes() -> None:
    accuracy = np.array([[0.0] * 6, [0.9, 0.8, 0.7, 0.5, 0.1, 0.3]])
    tokens = ["cls", "mean", "mean_without_cls", "0", "1", "2"]
    result = xr.Dataset({"accuracy": (("layer", "token"), accuracy)}, coords={"token": tokens})
    assert probes.single(result) == pytest.approx(0.2)  # token 0 is CLS
    assert probes.pooled(result) == 0.7
    assert probes.middle(result) == 0.7
    accuracy[:, 0] = np.nan
    assert probes.single(result) == pytest.approx(0.3)


def test_data_scale() -> None:
    cka = xr.DataArray([0.9, 0.8, 0.5, 0.4, 0.3, 0.1], dims="layer")
    error = xr.full_like(cka, 0.01)
    assert data_scale.fall(cka, error) == pytest.approx((0.65, 0.02))


def test_the_table_has_the_paper_the_seeds_and_the_control_beside_each_other() -> None:
    measured = base.by_seed([0.25, 0.5, 0.375], digits=2)
    finding = base.Finding(
        "Fig. 3", "Some heads are local.", "Some | are.", "A share.", measured, "untrained 0.00",
        "holds",
    )  # fmt: skip
    shown = report.Shown("photographs", "16 classes.", [finding], [], {"ViT": 0.5})
    table = report.markdown([shown], {}).splitlines()
    head = next(i for i, line in enumerate(table) if line.startswith("| figure"))
    assert table[head].split(" | ")[2:6] == ["the paper", "here", "control", "verdict"]
    assert table[head + 2] == (
        "| Fig. 3 | Some heads are local. | Some \\| are. | 0.25 (other seeds: 0.50, 0.38) | "
        "untrained 0.00 | **holds** | A share. |"
    )


def test_three_seeds_and_two_controls_are_trained() -> None:
    recipes = {role: recipe for role, (_, recipe) in trained.cast(models.FULL, 20).items()}
    for kind in ("vit", "vit-gap", "cnn"):
        seeds = [recipes[role] for role in (kind, f"{kind}-2", f"{kind}-3")]
        assert [each.seed for each in seeds] == [0, 1, 2]
        assert len({(e.steps, e.denoising_steps, e.part) for e in seeds}) == 1
    labels, untrained = recipes["vit-labels"], recipes["vit-untrained"]
    assert (labels.denoising_steps, labels.steps) == (0, recipes["vit"].steps)
    assert (untrained.denoising_steps, untrained.steps) == (0, 0)
    assert len({label for label, _ in trained.cast(models.FULL, 20).values()}) == len(recipes)


@pytest.mark.slow
def test_no_head_is_local_until_noise_is_removed(photographs: images.Images) -> None:
    def local_heads(vit: torch.nn.Module) -> float:
        crops = [photographs.test[::200]]
        return attention.local_share(repsim.attention_distance(vit.eval(), crops, progress=False))

    size = {**models.FULL, "depth": 4}  # two blocks less, to train for a shorter time
    untrained = [models.build("vit", photographs, size, seed) for seed in range(3)]
    assert [local_heads(vit) for vit in untrained] == [0, 0, 0]
    recipe = train.Recipe("vit", denoising_steps=150)
    train.denoise(untrained[0], photographs, recipe, progress=False)
    assert local_heads(untrained[0]) >= 1 / 8


# The whole


QUICK_RUN = ("--quick", "--images", "photographs", "--threads", "1")


@pytest.fixture
def run_here(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[str, str]]]:
    """A function that runs the command in this process, and returns stdout and stderr."""
    from raghu2021.__main__ import main

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def run(*arguments: str) -> tuple[str, str]:
        capfd.readouterr()
        assert main(list(arguments)) == 0
        return capfd.readouterr()

    yield run
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What ``python -m raghu2021`` writes and prints; here, because its packages are loaded."""
    out = tmp_path_factory.mktemp("paper") / "new"
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", ["raghu2021", *QUICK_RUN, "--out", str(out)])
        patch.syspath_prepend(str(BENCHMARKS))
        runpy.run_module("raghu2021", run_name="__main__")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    assert ended.value.code == 0
    assert "step" in stderr.getvalue()  # the progress bar
    return out, stdout.getvalue()


@pytest.mark.slow
def test_every_figure_is_drawn(paper: tuple[Path, str]) -> None:
    figures = paper[0] / "photographs" / "figures"
    assert {file.stem for file in figures.iterdir()} == FIGURES
    for file in figures.iterdir():
        with Image.open(file) as image:
            assert min(image.size) > 200, file.name
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20, file.name


@pytest.mark.slow
def test_every_finding_has_its_row(paper: tuple[Path, str]) -> None:
    out, stdout = paper
    (rows,) = json.loads((out / "findings.json").read_text(encoding="utf-8")).values()
    assert [int(row["figure"][5:]) for row in rows] == sorted(int(r["figure"][5:]) for r in rows)
    assert {int(row["figure"][5:]) for row in rows} == set(range(1, 13))
    table = (out / "findings.md").read_text(encoding="utf-8")
    page = (out / "index.html").read_text(encoding="utf-8")
    for row in rows:
        assert row["verdict"] in {"holds", "in part", "does not hold", "undefined"}
        assert re.search(r"\d", row["measured"])
        assert f"| {row['figure']} | {row['claim']} |" in table
        assert row["claim"].replace("'", "&#x27;") in page
        assert f"{row['verdict'].upper():<14} {row['figure']:<8} {row['claim']}" in stdout


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_page_stands_alone(paper: tuple[Path, str]) -> None:
    text = (paper[0] / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    own = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|url\(|@import|<script|<link", own)
    assert len(page.images) == len(FIGURES)
    assert len({image["alt"] for image in page.images}) == len(FIGURES)
    for image in page.images:
        assert str(image["src"]).startswith("data:image/png;base64,")
        assert len(str(image["alt"])) > 40


@pytest.mark.slow
def test_finished_steps_do_not_run_again(
    paper: tuple[Path, str], tmp_path: Path, run_here: Callable[..., tuple[str, str]]
) -> None:
    out = shutil.copytree(paper[0], tmp_path / "out", copy_function=shutil.copy2)
    files = [f for f in (out / "photographs").rglob("*") if f.suffix in {".nc", ".safetensors"}]
    before = {file: file.stat().st_mtime_ns for file in files}
    table = (out / "findings.json").read_text(encoding="utf-8")
    lost = out / "photographs" / "results" / "within.vit.nc"
    lost.unlink()
    _, stderr = run_here(*QUICK_RUN, "--out", str(out), "--no-progress", "--no-pictures")
    assert stderr == ""
    made = {file for file in files if file.stat().st_mtime_ns != before[file]}
    assert made == {lost}
    assert (out / "findings.json").read_text(encoding="utf-8") == table


@pytest.mark.slow
def test_models_by_name_on_a_folder(
    tmp_path: Path, run_here: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures are made, but not drawn: that of trained models takes long enough."""
    monkeypatch.setattr(base.Picture, "png", lambda picture: b"not drawn")
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(12):
            pixels = draw.integers(0, 255, (90, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    run_here(
        "--models", "timm:test_vit", "torchvision:resnet18", "--data", str(tmp_path / "data"),
        "--random", "--quick", "--side", "64", "--threads", "1", "--no-progress",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    figures = {file.stem for file in (tmp_path / "out" / "data" / "figures").iterdir()}
    assert figures >= {
        "fig01-within", "fig02-across", "fig02-match", "fig03-attention-distance",
        "fig05-head-subsets", "fig06-receptive-field-vit", "fig07-norm-ratios",
        "fig09-localization", "fig10-probes",
    }  # fmt: skip
    result = xr.load_dataset(tmp_path / "out" / "data" / "results" / "across.cnn+vit.nc")
    assert (result.attrs["model_x"], result.attrs["model_y"]) == (
        "resnet18, random",
        "test_vit, random",
    )
    assert {"layer1.0.conv1", "layer4.1"} <= set(result.layer_x.values)
    (rows,) = json.loads((tmp_path / "out" / "findings.json").read_text("utf-8")).values()
    assert {int(row["figure"][5:]) for row in rows} == {1, 2, 3, 5, 6, 7, 9}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "timm:test_vit"], "--models and --data need each other"),
        (["--models", "timm:test_vit", "--data", "nowhere"], "--data nowhere is not a folder"),
        (["--models", "test_vit", "--data", "{few}"], "timm:NAME or torchvision:NAME"),
        (["--models", "timm:test_vit", "--data", "{none}"], "has no images"),
        (["--models", "timm:test_vit", "--data", "{few}", "--side", "32"], "has too few images"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("none", 0), ("few", 3)):
        (tmp_path / name / "a").mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (40, 40)).save(tmp_path / name / "a" / f"{i}.png")
    if "test_vit" in arguments:  # enough images, so the error is about the model's name
        for i in range(20):
            Image.new("RGB", (40, 40)).save(tmp_path / "few" / "a" / f"more{i}.png")
    from raghu2021.__main__ import main

    folders = {name: str(tmp_path / name) for name in ("none", "few")}
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pytest.raises(SystemExit) as raised:
        main([*(each.format(**folders) for each in arguments), "--quick", "--no-progress"])
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    assert said in f"{raised.value}{capsys.readouterr().err}"


@pytest.mark.slow
def test_a_missing_package_is_reported_with_the_command_to_install_it(tmp_path: Path) -> None:
    missing = "skimage"
    code = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; "
        "sys.argv[1:] = ['--quick', '--out', sys.argv[1]]; "
        "runpy.run_module('raghu2021', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS), "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 1
    assert f"raghu2021: {missing} is not installed" in done.stderr
    assert ".[paper]" in done.stderr
    assert "Traceback" not in done.stderr
