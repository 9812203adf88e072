"""The demo is run as a user would, and its page is compared with the saved results."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from browsers import faults
from forks import run_forked

SCRIPT = Path(__file__).parents[2] / "examples" / "digits.py"
PICTURES = {
    "vit", "cnn", "cnn-vit", "layer-match", "untrained-vit", "vit-untrained-vit",
    "layer-match-untrained",
}  # fmt: skip
RESULTS = {
    "vit", "cnn", "cnn-vit", "untrained-vit", "untrained-cnn", "vit-untrained-vit",
    "untrained-cnn-untrained-vit", "chance",
}  # fmt: skip
VOID = {"meta", "img", "br", "link", "input"}

pytestmark = pytest.mark.slow


def run(out: Path) -> str:
    """Run the script as a user would and return what it prints; call it in a new process."""
    sys.argv = [str(SCRIPT), "--out", str(out), "--quick"]
    sys.path.insert(0, str(SCRIPT.parent))
    for category in (UserWarning, RuntimeWarning):
        warnings.simplefilter("error", category)
    with (
        contextlib.redirect_stdout(io.StringIO()) as printed,
        pytest.raises(SystemExit) as ended,
    ):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    return printed.getvalue()


class Page(HTMLParser):
    """What a page holds: its tags, the pieces of data in it, and whether its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: dict[str, set[float]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag == "data":
            self.numbers.setdefault(str(values["data-name"]), set()).add(
                float(str(values["value"]))
            )
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module", autouse=True)
def _needed() -> None:
    for package in ("torch", "sklearn", "matplotlib"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    (ended,) = run_forked("examples.test_digits:run", [(out,)], limit=300.0)
    assert ended.code == 0, ended.stderr
    return out, ended.value


@pytest.fixture(scope="module")
def page(demo: tuple[Path, str]) -> Page:
    return Page((demo[0] / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(demo: tuple[Path, str]) -> dict[str, xr.Dataset]:
    return {
        file.stem: xr.load_dataset(file, engine="scipy")
        for file in (demo[0] / "results").glob("*.nc")
    }


def test_the_script_prints_verdicts_and_the_path_of_the_page(demo: tuple[Path, str]) -> None:
    out, stdout = demo
    assert str(out / "index.html") in stdout
    verdicts = re.findall(r"^(HOLDS|HOLDS IN PART|DOES NOT HOLD)  +\S", stdout, flags=re.MULTILINE)
    assert len(verdicts) == 6
    assert not re.search(r"\bnan\b|\{", stdout)


def test_pictures_are_pictures(demo: tuple[Path, str]) -> None:
    out, _ = demo
    assert {file.stem for file in out.glob("*.png")} == PICTURES | {"digits"}
    for name in PICTURES:
        with Image.open(out / f"{name}.png") as image:
            assert min(image.size) > 500, name
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50, name


def test_the_page_fits_every_screen(browser, demo: tuple[Path, str]) -> None:
    found = {}
    page = browser.new_page()
    page.goto((demo[0] / "index.html").as_uri())
    for width, scheme, media in (
        (390, "light", "screen"),
        (390, "dark", "screen"),
        (1440, "light", "screen"),
        (1440, "dark", "screen"),
        (690, "dark", "print"),
    ):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(media=media, color_scheme=scheme)
        wrong = faults(page)
        for figure in page.locator("figure").all():
            picture, frame = figure.locator("img").bounding_box(), figure.bounding_box()
            if picture["width"] > frame["width"] + 1 or picture["height"] < 60:
                wrong.append(f"{picture} in {frame}")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        if media == "print" and ground != "rgb(255, 255, 255)":
            wrong.append(f"the paper is {ground}")
        if wrong:
            found[width, scheme, media] = wrong[:5]
    page.close()
    assert not found


def test_results_are_labelled(results: dict[str, xr.Dataset]) -> None:
    assert set(results) == RESULTS
    cross = results["cnn-vit"]
    assert (cross.attrs["model_x"], cross.attrs["model_y"]) == ("CNN", "ViT")
    assert "stage2.0.conv1" in cross.layer_x.values
    assert "blocks.1.mlp.fc1" in cross.layer_y.values
    for name in ("vit", "cnn", "untrained-vit", "untrained-cnn"):
        np.testing.assert_allclose(np.diag(results[name].cka), 1.0, atol=1e-6)
        np.testing.assert_allclose(results[name].cka, results[name].cka.values.T, atol=1e-6)


def test_page_stands_alone(demo: tuple[Path, str], page: Page) -> None:
    out, _ = demo
    text = (out / "index.html").read_text(encoding="utf-8")
    assert page.open == []
    own = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link", own, re.IGNORECASE)
    assert "{" not in re.sub(r"<style>.*?</style>", "", own, flags=re.DOTALL)
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == len(PICTURES) + 1
    assert len({attrs["alt"] for attrs in images}) == len(images)
    for attrs in images:
        assert str(attrs["src"]).startswith("data:image/png;base64,")
        assert len(str(attrs["alt"])) > 20
    for _, attrs in page.tags:
        assert "href" not in attrs
        assert str(attrs.get("src", "data:")).startswith("data:")
    assert ("html", {"lang": "en"}) in page.tags
    assert any(attrs.get("name") == "viewport" for _, attrs in page.tags)
    assert "prefers-color-scheme: dark" in text


def test_the_page_shows_the_numbers_of_the_results(
    page: Page, results: dict[str, xr.Dataset]
) -> None:
    def off_diagonal(name: str, variable: str = "cka") -> float:
        values = results[name][variable].values
        return (values.sum() - np.trace(values)) / (values.size - len(values))

    def ends(name: str) -> float:
        values = results[name].cka.values
        return values[: len(values) // 4, -(len(values) // 4) :].mean()

    def blocks(name: str) -> float:
        names = ["blocks.0", "blocks.1"]
        return results[name].cka.sel(layer_x=names[0], layer_y=names[1]).item()

    def match(name: str) -> dict[str, float]:
        cka = results[name].cka.values
        n_x, n_y = cka.shape
        depths = [int(np.argmax(row)) / (n_y - 1) for row in cka]
        lower = [depth for i, depth in enumerate(depths) if i / (n_x - 1) <= 0.5]
        # Nine in ten of them lie at or below the reach, and fewer at or below any lesser depth.
        reach = min(d for d in lower if sum(other <= d for other in lower) >= 0.9 * len(lower))
        quarter = [j for j in range(n_y) if j / (n_y - 1) <= 0.25]
        margins = [max(row) - max(row[quarter]) for row in cka[: len(lower)]]
        return {
            "reach": reach,
            "lower": float(np.median(lower)),
            "upper": float(np.median(depths[len(lower) :])),
            "margin": float(np.median(margins)),
        }

    trained, untrained = match("cnn-vit"), match("untrained-cnn-untrained-vit")
    together = results["vit-untrained-vit"].cka
    chance = results["chance"].cka
    expected = {
        "accuracy_vit": results["cnn-vit"].attrs["test_accuracy_y"],
        "accuracy_cnn": results["cnn-vit"].attrs["test_accuracy_x"],
        "accuracy_untrained_vit": results["vit-untrained-vit"].attrs["test_accuracy_y"],
        "mean_vit": off_diagonal("vit"),
        "mean_cnn": off_diagonal("cnn"),
        "mean_untrained_vit": off_diagonal("untrained-vit"),
        "ends_vit": ends("vit"),
        "ends_cnn": ends("cnn"),
        "ends_untrained_vit": ends("untrained-vit"),
        "blocks_vit": blocks("vit"),
        "blocks_untrained_vit": blocks("untrained-vit"),
        "mean_cnn_vit": float(results["cnn-vit"].cka.mean()),
        "mean_vit_untrained_vit": float(together.mean()),
        "same_layer_vit_untrained_vit": float(
            np.mean([together.sel(layer_x=name, layer_y=name) for name in together.layer_x.values])
        ),
        "mean_chance": float(chance.mean()),
        "chance_largest": float(np.abs(chance).max()),
        "error_largest": max(float(each.standard_error.max()) for each in results.values()),
        "match_reach": trained["reach"],
        "match_lower": trained["lower"],
        "match_upper": trained["upper"],
        "margin_match": trained["margin"],
        "match_untrained_reach": untrained["reach"],
        "match_untrained_lower": untrained["lower"],
        "stages_cnn": stage_contrast(results["cnn"]),
        "stages_untrained_cnn": stage_contrast(results["untrained-cnn"]),
    }
    assert set(page.numbers) == set(expected)
    for name, value in expected.items():
        (shown,) = page.numbers[name]
        np.testing.assert_allclose(shown, value, rtol=1e-9, atol=1e-12, err_msg=name)


def stage_contrast(result: xr.Dataset) -> float:
    """The CKA of pairs in one stage minus that of pairs in two stages, at equal distances."""
    names = [str(name) for name in result.layer_x.values]
    cells: dict[int, tuple[list[float], list[float]]] = {}
    for i, one in enumerate(names):
        for j in range(i + 1, len(names)):
            if one.startswith("stage") and names[j].startswith("stage"):
                apart = one[:6] != names[j][:6]
                cells.setdefault(j - i, ([], []))[apart].append(float(result.cka[i, j]))
    return float(
        np.mean(
            [np.mean(same) - np.mean(other) for same, other in cells.values() if same and other]
        )
    )


def test_numbers_are_written_out_as_they_are(demo: tuple[Path, str], page: Page) -> None:
    text = (demo[0] / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'<data data-name="(\w+)" value="([^"]+)">([^<]+)</data>', text)
    assert shown
    for name, value, words in shown:
        first = words.split(" ± ")[0].replace("−", "-")
        if first.endswith("%"):
            assert abs(float(first[:-1]) / 100 - float(value)) <= 0.0005 + 1e-12, name
        else:
            assert abs(float(first) - float(value)) <= 0.0005 + 1e-12, name


@pytest.fixture
def exit_code(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that runs the script in this process; it returns what the script exits with."""

    def run_here(*arguments: str) -> Any:
        for name in [name for name in sys.modules if name.startswith("_digit")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(str(SCRIPT.parent))
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as raised:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return raised.value.code

    return run_here


def test_same_seed_same_numbers(
    demo: tuple[Path, str],
    tmp_path: Path,
    exit_code: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here, where sets have another order; the pictures are made, but not drawn."""
    import torch
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    assert exit_code("--out", str(tmp_path), "--quick") == 0
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    again = (tmp_path / "findings.json").read_text(encoding="utf-8")
    assert again == (demo[0] / "findings.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["sklearn", "torch", "matplotlib"])
def test_a_missing_package_is_reported_with_the_command_to_install_it(
    missing: str, exit_code: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    said = exit_code()
    assert f"digits.py: {missing} is not installed" in said
    assert ".[demo]" in said


def test_options_must_make_sense(
    exit_code: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--epochs", "--passes", "--threads"):
        assert exit_code(option, "0") == 2
        assert f"{option} must be at least 1" in capsys.readouterr().err
